"""Remembers projects and their rendered pages by serial.

An entry is right while its serial is; nobody removes anything but the least recently used.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pypiserver_ng.catalog import Rows
from pypiserver_ng.filenames import sort_key
from pypiserver_ng.model import Body, File, Kind, NormalizedName, Project, Status

#: (media type, coding), and for a project with provenance the URL below which that is served.
Key = tuple[str, ...]

#: Files of all remembered projects together; one costs about a kilobyte.
_MOST_FILES = 50_000
#: Bodies of one project: three media types in three codings, or what clients ask for under a few hosts.
_MOST_BODIES = 12


@dataclass(slots=True)
class Entry:
    project: Project
    #: Every readable file of the project, also those that another of the same name hides from the page.
    by_path: dict[str, File]
    #: Paths of files that are here and were not read yet.
    unread: frozenset[str]
    bodies: dict[Key, Body] = field(default_factory=dict)

    has_provenance: bool = False

    def keep(self, key: Key, body: Body) -> None:
        """Remember a body as the one that was asked for last."""
        self.bodies.pop(key, None)
        # A page with provenance has one body for each host that it is asked under; clients may make hosts up.
        while len(self.bodies) >= _MOST_BODIES:
            self.bodies.pop(next(iter(self.bodies)))
        self.bodies[key] = body

    @property
    def weight(self) -> int:
        return 1 + len(self.by_path)


class PageCache:
    def __init__(self, most_files: int = _MOST_FILES) -> None:
        self._entries: OrderedDict[NormalizedName, Entry] = OrderedDict()
        self._most = most_files
        self._weight = 0

    def get(self, name: NormalizedName, serial: int) -> Entry | None:
        entry = self._entries.get(name)
        if entry is None or entry.project.serial != serial:
            return None
        self._entries.move_to_end(name)
        return entry

    def put(self, name: NormalizedName, entry: Entry) -> None:
        old = self._entries.pop(name, None)
        self._weight += entry.weight - (old.weight if old else 0)
        self._entries[name] = entry
        while self._weight > self._most and len(self._entries) > 1:
            _, dropped = self._entries.popitem(last=False)
            self._weight -= dropped.weight


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
