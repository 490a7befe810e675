"""Records of malware in the Open Source Vulnerability format (OSV schema 1), and which releases they name.

Only records whose id or alias begins with ``MAL-`` count: others speak of faults, and what to do about those is
not decided here. What a record leaves open counts as named.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from packaging.version import Version

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import NormalizedName, is_project_name, normalize_name

_ID = re.compile(r"\AMAL-[A-Za-z0-9-]{1,64}\Z")
#: No filename holds a longer one.
_MAX_VERSION = 255
#: In the order in which those of one version take effect.
_FIXED, _INTRODUCED, _LAST_AFFECTED = range(3)
_EVENTS = {"fixed": _FIXED, "introduced": _INTRODUCED, "last_affected": _LAST_AFFECTED}


@dataclass(frozen=True, slots=True)
class Interval:
    """Versions from `low` on, up to `high`. None = without a limit."""

    low: Version | None = None
    high: Version | None = None
    #: Whether `high` itself is named too.
    has_high: bool = False

    def holds(self, version: Version) -> bool:
        if self.low is not None and version < self.low:
            return False
        return self.high is None or version < self.high or (self.has_high and version == self.high)


_EVERYTHING = Interval()


@dataclass(frozen=True, slots=True)
class Advisory:
    """What one record says of one project."""

    id: str
    project: NormalizedName
    versions: frozenset[Version] = frozenset()
    intervals: tuple[Interval, ...] = ()

    @property
    def covers_all(self) -> bool:
        return any(interval.low is None and interval.high is None for interval in self.intervals)

    def names(self, version: Version | None) -> bool:
        """None is a version that nobody can compare: it is named by every record of its project."""
        return (
            version is None or version in self.versions or any(interval.holds(version) for interval in self.intervals)
        )


class Advisories:
    """Many records, by project."""

    def __init__(self, records: Iterable[Advisory] = ()) -> None:
        self._by_project: dict[NormalizedName, list[Advisory]] = {}
        for record in records:
            self._by_project.setdefault(record.project, []).append(record)

    def __len__(self) -> int:
        return sum(map(len, self._by_project.values()))

    def covers_all(self, name: NormalizedName) -> Advisory | None:
        """The record that names every version of the project."""
        return next((record for record in self._by_project.get(name, ()) if record.covers_all), None)

    def find(self, name: NormalizedName, version: str) -> Advisory | None:
        """The record that names this version of the project, or a version that PEP 440 cannot read."""
        records = self._by_project.get(name)
        if not records:
            return None
        read = read_version(version)
        return next((record for record in records if record.names(read)), None)


NO_ADVISORIES = Advisories()


class _Package(msgspec.Struct, frozen=True):
    ecosystem: str
    name: str


class _Range(msgspec.Struct, frozen=True):
    type: str
    events: list[dict[str, str]]


class _Affected(msgspec.Struct, frozen=True):
    package: _Package | None = None
    ranges: list[_Range] | None = None
    versions: list[str] | None = None


class _Record(msgspec.Struct, frozen=True):
    id: str
    aliases: list[str] | None = None
    withdrawn: Any = None
    affected: list[_Affected] | None = None


_DECODER = msgspec.json.Decoder(_Record)


def parse_record(content: bytes) -> list[Advisory]:
    """What one JSON record says of the projects of this index's ecosystem. Raises Invalid with one line."""
    try:
        record = _DECODER.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as fault:
        raise Invalid(f"it is not an OSV record: {_make_printable(str(fault))}") from None
    malware = next((text for text in (record.id, *(record.aliases or ())) if text.startswith("MAL-")), None)
    if malware is None or record.withdrawn is not None:
        return []
    if not _ID.match(malware):
        raise Invalid(f"its id {malware[:80]!r} is not one")
    return [
        _read_affected(malware, affected, affected.package)
        for affected in record.affected or ()
        if affected.package is not None and affected.package.ecosystem.partition(":")[0] == "PyPI"
    ]


def _make_printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:200]


def _read_affected(malware: str, affected: _Affected, package: _Package) -> Advisory:
    if not is_project_name(package.name):
        raise Invalid(f"it names a project {package.name[:80]!r}, which no project can be called")
    texts, ranges = affected.versions or [], affected.ranges or []
    intervals = [interval for one in ranges for interval in _read_range(one, has_versions=bool(texts))]
    if not texts and not ranges:
        intervals = [_EVERYTHING]
    versions = frozenset(version for version in map(read_version, texts) if version is not None)
    return Advisory(malware, normalize_name(package.name), versions, tuple(intervals))


def _read_range(one: _Range, *, has_versions: bool) -> list[Interval]:
    """By the schema's algorithm: events in the order of their versions, "introduced" opens and the others close.

    Only ranges in the order of PEP 440 can be compared. Of the rest the list of versions says what they mean, so
    without one they may mean everything.
    """
    if one.type != "ECOSYSTEM":
        return [] if has_versions else [_EVERYTHING]
    events = [_read_event(kind, text) for event in one.events for kind, text in event.items() if kind != "limit"]
    known = sorted(event for event in events if event is not None)
    if len(known) < len(events) or _INTRODUCED not in {kind for _, _, kind in known}:
        return [_EVERYTHING]
    intervals: list[Interval] = []
    low: Version | None = None
    is_open = False
    for is_later, version, kind in known:
        if kind != _INTRODUCED and is_open:
            intervals.append(Interval(low, version, has_high=kind == _LAST_AFFECTED))
            is_open = False
        elif kind == _INTRODUCED and not is_open:
            low, is_open = version if is_later else None, True
    return [*intervals, Interval(low)] if is_open else intervals


def _read_event(kind: str, text: str) -> tuple[bool, Version, int] | None:
    """What puts it in its order; None where it cannot be understood.

    "introduced" may be "0": "a version that sorts before any other version".
    """
    version = read_version(text)
    if version is None or kind not in _EVENTS:
        return None
    return kind != "introduced" or text != "0", version, _EVENTS[kind]


def read_version(text: str) -> Version | None:
    """None where PEP 440 cannot read it."""
    if len(text) > _MAX_VERSION:
        return None
    try:
        return Version(text)
    except ValueError:
        return None
