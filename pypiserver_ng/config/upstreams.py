"""The `[[upstream]]` tables of the configuration file, or `--fallback-url`, become upstreams, or Invalid."""

from collections.abc import Callable, Sequence
from typing import Any

from pypiserver_ng.config.entries import Entry, parse_entries, parse_line, parse_named, take
from pypiserver_ng.config.values import nearest, parse_url
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import OnError, UpstreamSettings

#: What an upstream is called that has no entry of its own.
DEFAULT_NAME = "upstream"

_KEYS = ("name", "url", "url-file", "on-error")


def parse_upstreams(value: Any, read_secret: Callable[[str], str]) -> tuple[UpstreamSettings, ...]:
    """All entries in their order; `value` is what the file says under `upstream`. Raises Invalid."""
    names: set[str] = set()

    def parse(_number: int, entry: Entry) -> UpstreamSettings:
        settings = _parse_upstream(entry, read_secret)
        if settings.name in names:
            raise Invalid(f"'name' {settings.name!r} is taken by an entry before it: give each its own")
        names.add(settings.name)
        return settings

    return parse_entries("upstream", value, _KEYS, parse)


def _parse_upstream(entry: Entry, read_secret: Callable[[str], str]) -> UpstreamSettings:
    name = parse_line("name", take(entry, "name"))
    if not name.isascii() or any(character.isspace() for character in name):
        raise Invalid(f"'name' must be one word of ASCII characters, not {name!r}")
    return UpstreamSettings(name, _find_url(entry, read_secret), _parse_on_error(entry.get("on-error", "next")))


def _find_url(entry: Entry, read_secret: Callable[[str], str]) -> str:
    if "url" in entry and "url-file" in entry:
        raise Invalid("'url' and 'url-file' say the same: remove one of them")
    if "url-file" in entry:
        return parse_named("url-file", read_secret(parse_line("url-file", entry["url-file"])).strip(), parse_url)
    # The value is not shown where it is wrong: it may hold a password.
    url = take(entry, "url")
    return parse_named("url", url if isinstance(url, str) else "", parse_url)


def _parse_on_error(value: Any) -> OnError:
    try:
        return OnError(value)
    except ValueError:
        raise Invalid(f"'on-error' must be 'next' or 'stop', not {value!r}") from None


def name_fallbacks(urls: Sequence[str]) -> tuple[UpstreamSettings, ...]:
    """The upstreams that `--fallback-url` names, in its order."""
    if len(urls) == 1:
        return (UpstreamSettings(DEFAULT_NAME, urls[0]),)
    return tuple(UpstreamSettings(f"{DEFAULT_NAME}-{number}", url) for number, url in enumerate(urls, 1))


def choose_names(key: str, value: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Upstreams as an entry names them, one or a list. Raises Invalid where there is none of that name."""
    names = value if isinstance(value, list) else [value]
    for name in names:
        parse_line(key, name)
        if name not in known:
            raise Invalid(f"{key!r} names an unknown upstream {name!r}{nearest(name, known)}")
    return tuple(dict.fromkeys(names))
