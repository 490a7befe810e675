"""What the owner of an index does to it: yank, delete, set a status, read everything again, check every file.

Blocking code. Commands use it beside a running server, which follows the catalog's serial; requests use it through
the index.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pypiserver_ng.catalog import Catalog, Known
from pypiserver_ng.errors import Denied, NotFound
from pypiserver_ng.filenames import is_same_version, parse_found
from pypiserver_ng.index.reading import Reader, read_now
from pypiserver_ng.index.tree import Tree
from pypiserver_ng.model import File, NormalizedName, Status
from pypiserver_ng.storage import Directory, Seen, hash_stream, translate_os_error

#: Files read between two commits.
_BATCH = 64

#: Called with a number of bytes that were read.
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one file."""

    root: str
    path: str
    problem: str


class Curator:
    def __init__(self, catalog: Catalog, directory: Directory, tree: Tree, reader: Reader) -> None:
        self._catalog = catalog
        self._directory = directory
        self._tree = tree
        self._reader = reader

    def yank(self, name: NormalizedName, version: str, reason: str | None) -> None:
        """Mark a release as yanked. Raises NotFound."""
        self._catalog.yank(name, version, reason)

    def unyank(self, name: NormalizedName, version: str) -> None:
        """Take the mark away. Raises NotFound."""
        self._catalog.unyank(name, version)

    def set_status(self, name: NormalizedName, status: Status, reason: str | None) -> None:
        """Raises NotFound, but for a project that is quarantined before it is here."""
        self._catalog.set_status(name, status, reason)

    def delete(self, name: NormalizedName, version: str) -> Sequence[File]:
        """Delete the files of one release and bury their names. Raises NotFound, Denied, NoSpace, Unavailable."""
        # Every row: a copy that another package directory hides would come to light.
        rows = read_now(self._catalog, self._reader, name)
        files = [known.file for known in rows.known if known.file and is_same_version(known.file.version, version)]
        if not files:
            raise NotFound(f"{name} ({version[:100]}) is not here")
        for file in files:
            if not self._directory.may_delete(file.root, file.path):
                raise Denied(f"{file.filename} lies in a directory that the server may not change")
        try:
            self._tree.forget(files)
        except OSError as fault:
            raise translate_os_error(fault, "not everything was deleted") from fault
        return files

    def scan(self) -> None:
        """Learn what lies in the directories, for a command that has no server beside it."""
        self._tree.scan()

    def size(self) -> int:
        """Bytes of all files that are known."""
        return sum(known.presence.size for known in self._catalog.everything())

    def reindex(self, advance: Advance) -> int:
        """Read every file again and record what it says; returns how many are known.

        Pages stay up meanwhile: a file's old facts hold until the new ones are committed.
        """
        rows = self._catalog.everything()
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            results = [(known, contents) for known in batch if (contents := self._reader.read(known))]
            self._catalog.record(results, again=True)
            advance(sum(known.presence.size for known in batch))
        return len(rows)

    def verify(self, advance: Advance) -> list[Finding]:
        """Compare every file with what is recorded of it. Changes nothing."""
        rows = self._catalog.everything()
        seen, failed = self._directory.scan()
        here = {(file.root, file.path): file for file in seen}
        findings = [Finding(root, path or ".", "the directory cannot be read") for root, path in failed]
        for known in rows:
            presence = known.presence
            if problem := self._check(known, here.pop((presence.root, presence.path), None)):
                findings.append(Finding(presence.root, presence.path, problem))
            advance(presence.size)
        findings += _foreign(here.values())
        return sorted(findings, key=lambda finding: (finding.root, finding.path))

    def _check(self, known: Known, seen: Seen | None) -> str | None:
        presence = known.presence
        if seen is None:
            return "is missing"
        if known.file is None:
            return "was not read yet: its bytes cannot be compared"
        try:
            with open(self._directory.open(presence.root, presence.path), "rb") as stream:  # noqa: PTH123 - a descriptor
                sha256 = hash_stream(stream).sha256
        except OSError as fault:
            return f"cannot be read: {fault.strerror}"
        if sha256 != known.file.digests.sha256:
            return f"its bytes changed: recorded as sha256 {known.file.digests.sha256}, now {sha256}"
        return f"cannot be opened: {known.problem}" if known.problem else None


def _foreign(left: Iterable[Seen]) -> list[Finding]:
    return [
        Finding(
            file.root,
            file.path,
            "is not in the catalog: reindex takes it up" if parse_found(file.filename) else "is not a distribution",
        )
        for file in left
    ]
