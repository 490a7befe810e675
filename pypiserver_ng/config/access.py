"""The `[[access]]` tables and `[groups]` of the configuration file become grants, or Invalid with what to change."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pypiserver_ng.config.entries import Entry, parse_entries, parse_line, parse_projects, take
from pypiserver_ng.config.policies import shorten
from pypiserver_ng.config.values import nearest
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Grant, Right

_KEYS = ("who", "projects", "may")
#: What stands before a colon in the name of somebody who is no person.
_KINDS = ("token", "publisher")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Groups = Mapping[str, frozenset[str]]


def parse_access(value: Any, groups: Groups) -> tuple[Grant, ...]:
    """All entries in their order; `value` is what the file says under `access`. Raises Invalid."""
    return parse_entries("access", value, _KEYS, partial(_parse_grant, groups))


def parse_groups(value: Any) -> Groups:
    """What the file says under `groups`: lists of members by name. Raises Invalid."""
    if not isinstance(value, dict):
        raise Invalid("'groups' in the configuration file must be a table that begins with [groups]")
    groups = {}
    for name, members in value.items():
        if not _GROUP.fullmatch(name):
            raise Invalid(f"[groups] in the configuration file: {name!r} is no name of a group")
        try:
            groups[name] = frozenset(_parse_caller(name, member) for member in _parse_list(name, members))
        except Invalid as fault:
            raise Invalid(f"[groups] in the configuration file: {fault.message}") from None
    return groups


def _parse_grant(groups: Groups, number: int, entry: Entry) -> Grant:
    projects = parse_projects("projects", take(entry, "projects"))
    who: set[str] = set()
    for one in _parse_list("who", take(entry, "who")):
        who |= _find_group(one[1:], groups) if one.startswith("@") else {_parse_caller("who", one)}
    return Grant(
        label=f"[[access]] number {number} ({shorten(projects)})",
        who=frozenset(who),
        projects=projects,
        may=frozenset(_parse_right(text) for text in _parse_list("may", take(entry, "may"), may_be_empty=True)),
    )


def _find_group(name: str, groups: Groups) -> frozenset[str]:
    if name not in groups:
        raise Invalid(f"'who' names the unknown group {name!r}{nearest(name, sorted(groups))}")
    return groups[name]


def _parse_caller(key: str, text: str) -> str:
    kind, colon, name = text.partition(":")
    if text.startswith("@"):
        raise Invalid(f"{key!r} holds the group {text!r}: a group has no groups in it")
    if colon and (kind not in _KINDS or not name):
        raise Invalid(f"{key!r} must hold users, 'token:NAME', 'publisher:NAME' or 'anyone', not {text!r}")
    return text


def _parse_right(text: str) -> Right:
    try:
        return Right(text)
    except ValueError:
        known = [right.value for right in Right]
        raise Invalid(f"'may' holds {text!r}: it takes {', '.join(known)}{nearest(text, known)}") from None


def _parse_list(key: str, value: Any, *, may_be_empty: bool = False) -> Sequence[str]:
    if not isinstance(value, list) or not (value or may_be_empty):
        raise Invalid(f"{key!r} must be a list of texts")
    return [parse_line(key, text) for text in value]
