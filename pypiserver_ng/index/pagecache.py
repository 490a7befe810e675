"""Remembers projects and their rendered pages by serial.

An entry is right while its serial is; nobody removes anything but the least recently used.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from pypiserver_ng.catalog import Rows
from pypiserver_ng.filenames import sort_key
from pypiserver_ng.model import Body, File, Kind, NormalizedName, Project, Status

#: (media type, coding), and for a project with provenance the URL below which that is served.
Key = tuple[str, ...]

#: Bytes that all remembered local projects may take together, by what one of them and one of its files takes: what is
#: known of it, and its part in two pages.
_MOST_BYTES = 32 * 2**20
_PROJECT_BYTES = 4000
_FILE_BYTES = 2000
#: The same of upstream projects, what upstreams say and what is offered each.
MOST_UPSTREAM_FILES = 30_000
#: Bodies of one project: three media types in three codings, or what clients ask for under a few hosts.
_MOST_BODIES = 12

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Recent(Generic[_K, _V]):
    """What was asked for last, up to a weight."""

    def __init__(self, most: int) -> None:
        self._values: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self._most = most
        self._weight = 0

    def get(self, key: _K) -> _V | None:
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: _K, value: _V, weight: int) -> None:
        self.drop(key)
        self._weight += weight
        self._values[key] = value, weight
        while self._weight > self._most and len(self._values) > 1:
            _, (_, dropped) = self._values.popitem(last=False)
            self._weight -= dropped

    def drop(self, key: _K) -> None:
        if old := self._values.pop(key, None):
            self._weight -= old[1]


class Bodies:
    """The rendered forms of one page, those that were asked for last."""

    __slots__ = ("_bodies",)

    def __init__(self) -> None:
        self._bodies: dict[Key, Body] = {}

    def get(self, key: Key) -> Body | None:
        return self._bodies.get(key)

    def keep(self, key: Key, body: Body) -> None:
        """Remember a body as the one that was asked for last."""
        self._bodies.pop(key, None)
        # A page with provenance has one body for each host that it is asked under; clients may make hosts up.
        while len(self._bodies) >= _MOST_BODIES:
            self._bodies.pop(next(iter(self._bodies)))
        self._bodies[key] = body


@dataclass(slots=True)
class Entry:
    project: Project
    #: Every readable file of the project, also those that another of the same name hides from the page.
    by_path: dict[str, File]
    #: Paths of files that are here and were not read yet.
    unread: frozenset[str]
    bodies: Bodies = field(default_factory=Bodies)
    has_provenance: bool = False


class PageCache:
    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._entries: Recent[NormalizedName, Entry] = Recent(most_bytes)

    def get(self, name: NormalizedName, serial: int) -> Entry | None:
        entry = self._entries.get(name)
        return entry if entry is not None and entry.project.serial == serial else None

    def put(self, name: NormalizedName, entry: Entry) -> None:
        self._entries.put(name, entry, _PROJECT_BYTES + _FILE_BYTES * len(entry.by_path))


def build_entry(name: NormalizedName, rows: Rows, roots: Sequence[str]) -> Entry:
    """Choose what the project's page lists from its rows.

    A filename is listed once: the first package directory and then the shortest path wins. A signature is listed
    only when what it signs is not here. "The index MUST NOT offer any distribution" of a quarantined project.
    """
    priority = {root: number for number, root in enumerate(roots)}
    files = [known.file for known in rows.known if known.file and known.file.root in priority]
    files.sort(key=lambda file: (priority[file.root], file.path.count("/"), file.path))
    by_path: dict[str, File] = {}
    by_filename: dict[str, File] = {}
    for file in files:
        by_path.setdefault(file.path, file)
        by_filename.setdefault(file.filename, file)
    listed = [_with_signature(file, by_path) for file in by_filename.values() if not _is_sidecar(file, by_filename)]
    listed.sort(key=lambda file: (sort_key(file.version), file.filename))
    display_name = listed[-1].display_name if listed else name
    unread = [known.presence.path for known in rows.known if known.file is None]
    if rows.status is Status.QUARANTINED:
        listed = []
    project = Project(name, display_name, rows.serial, tuple(listed), rows.status, rows.status_reason, len(unread))
    return Entry(project, by_path, frozenset(unread), has_provenance=any(file.has_provenance for file in listed))


def _is_sidecar(file: File, by_filename: dict[str, File]) -> bool:
    return file.kind is Kind.SIGNATURE and file.filename.removesuffix(".asc") in by_filename


def _with_signature(file: File, by_path: dict[str, File]) -> File:
    return replace(file, has_signature=True) if f"{file.path}.asc" in by_path else file
