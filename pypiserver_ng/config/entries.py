"""What the tables of the configuration file have in common: their shape, and values that only TOML has."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, TypeVar

from pypiserver_ng.config.values import nearest, parse_duration, parse_glob
from pypiserver_ng.errors import Invalid

T = TypeVar("T")

Entry = Mapping[str, Any]


def parse_entries(table: str, value: Any, keys: Sequence[str], parse: Callable[[int, Entry], T]) -> tuple[T, ...]:
    """All entries in their order, counted from one; `value` is what the file says under `table`. Raises Invalid."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Invalid(f"{table!r} in the configuration file must be tables that begin with [[{table}]]")
    return tuple(_parse_entries(table, value, keys, parse))


def _parse_entries(
    table: str, entries: Sequence[Entry], keys: Sequence[str], parse: Callable[[int, Entry], T]
) -> Iterator[T]:
    for number, entry in enumerate(entries, 1):
        try:
            refuse_unknown(entry, keys)
            yield parse(number, entry)
        except Invalid as fault:
            raise Invalid(f"[[{table}]] number {number} in the configuration file: {fault.message}") from None


def refuse_unknown(entry: Entry, keys: Sequence[str]) -> None:
    for key in entry:
        if key not in keys:
            raise Invalid(f"unknown key {key!r}{nearest(key, keys)}")


def take(entry: Entry, key: str) -> Any:
    if key not in entry:
        raise Invalid(f"{key!r} is missing")
    return entry[key]


def take_optional(entry: Entry, key: str, parse: Callable[[str, Any], T]) -> T | None:
    return parse(key, entry[key]) if key in entry else None


def parse_line(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Invalid(f"{key!r} must be a text of one line, not {value!r}")
    return value


def parse_truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{key!r} must be true or false, not {value!r}")
    return value


def parse_seconds(key: str, value: Any) -> int:
    """A duration as a text, or a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Invalid(f"{key!r} must be a duration such as '4d', not {value!r}")
    return parse_named(key, str(value), parse_duration)


def parse_moment(key: str, value: Any) -> datetime:
    """A date means its beginning; without a zone it is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise Invalid(f"{key!r} must be a date such as 2026-12-01, not {value!r}") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time.min)
    if not isinstance(value, datetime):
        raise Invalid(f"{key!r} must be a date such as 2026-12-01, not {value!r}")
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise Invalid(f"{key!r} must be a date that UTC can express, not {value}") from None


def parse_projects(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise Invalid(f'{key!r} must be a list of project names or patterns such as ["acme-*"]')
    return tuple(parse_named(key, parse_line(key, glob), parse_glob) for glob in value)


def parse_named(key: str, text: str, parse: Callable[[str], T]) -> T:
    """What `parse` makes of the text; its complaints name the key."""
    try:
        return parse(text)
    except Invalid as fault:
        raise Invalid(f"{key!r} {fault.message}") from None
