"""The `[[policy]]` tables of the configuration file become rules, or Invalid with what to change."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from pypiserver_ng.config.entries import (
    Entry,
    parse_entries,
    parse_line,
    parse_moment,
    parse_named,
    parse_projects,
    parse_seconds,
    parse_truth,
    refuse_unknown,
    take,
    take_optional,
)
from pypiserver_ng.config.upstreams import choose_names
from pypiserver_ng.config.values import parse_releases
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Exemption, Mode, Releases, Rule

_KEYS = (
    "projects",
    "upstream",
    "mode",
    "merge",
    "cooldown",
    "exempt",
    "freeze",
    "allow",
    "deny",
    "max-age",
)
_EXEMPTION_KEYS = ("release", "until", "reason")


def parse_policies(value: Any, upstreams: Sequence[str]) -> tuple[Rule, ...]:
    """All entries in their order; `value` is what the file says under `policy`. Raises Invalid."""
    return parse_entries("policy", value, _KEYS, partial(_parse_rule, upstreams))


def _parse_rule(upstreams: Sequence[str], number: int, entry: Entry) -> Rule:
    projects = parse_projects("projects", take(entry, "projects"))
    return Rule(
        label=f"[[policy]] number {number} ({shorten(projects)})",
        projects=projects,
        upstreams=choose_names("upstream", entry["upstream"], upstreams) if "upstream" in entry else None,
        mode=take_optional(entry, "mode", _parse_mode),
        merge=take_optional(entry, "merge", parse_truth),
        cooldown=take_optional(entry, "cooldown", parse_seconds),
        freeze=take_optional(entry, "freeze", parse_moment),
        max_age=take_optional(entry, "max-age", parse_seconds),
        exempt=_parse_exemptions(entry.get("exempt", [])),
        allow=take_optional(entry, "allow", _parse_list),
        deny=_parse_list("deny", entry.get("deny", [])),
    )


def shorten(projects: Sequence[str]) -> str:
    """For one line that people read, where a list may be long."""
    shown = ", ".join(projects[:3])
    return shown if len(projects) <= 3 else f"{shown} and {len(projects) - 3} more"


def _parse_mode(key: str, value: Any) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        raise Invalid(f"{key!r} must be 'redirect' or 'cache', not {value!r}") from None


def _parse_list(key: str, value: Any) -> tuple[Releases, ...]:
    if not isinstance(value, list):
        raise Invalid(f'{key!r} must be a list of releases such as ["badpkg", "leftpad<2"]')
    return tuple(parse_named(key, parse_line(key, text), parse_releases) for text in value)


def _parse_exemptions(value: Any) -> tuple[Exemption, ...]:
    if not isinstance(value, list):
        raise Invalid("'exempt' must be a list of releases such as [\"numpy==2.4.1\"]")
    return tuple(_parse_exemption(one if isinstance(one, dict) else {"release": one}) for one in value)


def _parse_exemption(entry: Entry) -> Exemption:
    try:
        refuse_unknown(entry, _EXEMPTION_KEYS)
        return Exemption(
            releases=parse_named("release", parse_line("release", take(entry, "release")), parse_releases),
            until=take_optional(entry, "until", parse_moment),
            reason=take_optional(entry, "reason", parse_line),
        )
    except Invalid as fault:
        raise Invalid(f"'exempt': {fault.message}") from None
