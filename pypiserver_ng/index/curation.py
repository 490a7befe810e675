"""What the owner of an index does to it: yank, delete, set a status, read everything again, check every file.

Blocking code. Commands use it beside a running server, which follows the catalog's serial; requests use it through
the index.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pypiserver_ng.catalog import Known
from pypiserver_ng.errors import Denied, NotFound, Unavailable
from pypiserver_ng.filenames import is_same_version, parse_found
from pypiserver_ng.index.reading import Reader, read_now
from pypiserver_ng.index.store import Store
from pypiserver_ng.model import File, NormalizedName, Status
from pypiserver_ng.storage import Seen, hash_stream, translate_os_error

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
    def __init__(self, store: Store, reader: Reader) -> None:
        self._catalog = store.catalog
        self.tokens = store.catalog.tokens
        self._directory = store.directory
        self._tree = store.tree
        self._reader = reader

    def yank(self, name: NormalizedName, version: str, reason: str | None, user: str | None) -> None:
        """Mark a release as yanked. Raises NotFound."""
        self._catalog.yank(name, version, reason, user)

    def unyank(self, name: NormalizedName, version: str, user: str | None) -> bool:
        """Take the mark away; returns whether there was one. Raises NotFound."""
        return self._catalog.unyank(name, version, user)

    def is_here(self, name: NormalizedName) -> bool:
        """Whether the project has a file."""
        return bool(self._catalog.project_rows(name).known)

    def set_status(self, name: NormalizedName, status: Status, reason: str | None, user: str | None) -> None:
        """Raises NotFound, but for a project that is quarantined before it is here."""
        self._catalog.set_status(name, status, reason, user)

    def delete(
        self, name: NormalizedName, version: str, user: str | None, address: str | None = None
    ) -> Sequence[File]:
        """Delete the files of one release and bury their names. Raises NotFound, Denied, NoSpace, Unavailable."""
        # Every row: a copy that another package directory hides would come to light.
        rows = read_now(self._catalog, self._reader, name)
        for known in rows.known:
            if known.file is None and is_same_version(known.presence.parsed.version, version):
                raise Unavailable(f"{known.presence.path} is still being copied or read: try again", retry_after=1)
        files = [known.file for known in rows.known if known.file and is_same_version(known.file.version, version)]
        if not files:
            raise NotFound(f"{name} {version[:100]!a} is not here")
        for file in files:
            if not self._directory.may_delete(file.root, file.path):
                raise Denied(f"{file.filename} lies in a directory that the server may not change")
        try:
            self._tree.forget(files, user, address)
        except OSError as fault:
            raise translate_os_error(fault, "not everything was deleted") from fault
        return files

    def scan(self) -> None:
        """Learn what lies in the directories, for a command that has no server beside it."""
        self._tree.scan()

    def learn(self, name: NormalizedName, version: str | None = None) -> None:
        """As `scan`, of one project or release: files that nobody recorded are looked for if none of it is known."""
        self._tree.look_for(name, everywhere=False)
        known = [row.presence.parsed.version for row in self._catalog.project_rows(name).known]
        if not any(version is None or is_same_version(version, other) for other in known):
            self.learn_all(name)

    def learn_all(self, name: NormalizedName) -> None:
        """As `scan`, of one project and every file of it."""
        self._tree.look_for(name, everywhere=True)

    def size(self) -> int:
        """Bytes of all files that are known."""
        return self._catalog.total_size()

    def reindex(self, advance: Advance) -> tuple[int, list[str]]:
        """Read every file again and record what it says; returns how many were read, and whose bytes had changed.

        Pages stay up meanwhile: a file's old facts hold until the new ones are committed.
        """
        rows = self._catalog.everything()
        count = 0
        changed: list[str] = []
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            results = self._reader.read_each(batch)
            self._catalog.record(results, again=True)
            count += len(results)
            changed += [
                known.presence.path
                for known, contents in results
                if known.file and known.file.digests.sha256 != contents.digests.sha256
            ]
            advance(sum(known.presence.size for known in batch))
        return count, changed

    def verify(self, advance: Advance) -> list[Finding]:
        """Compare every file with what is recorded of it. Changes nothing."""
        rows = self._catalog.everything()
        seen, failed = self._directory.scan()
        uploads = self._catalog.uploads()
        here = {(file.root, file.path): file for file in seen}
        suspects: list[tuple[str, str]] = []
        for known in rows:
            presence = known.presence
            if self._check(known, here.pop((presence.root, presence.path), None), uploads):
                suspects.append((presence.root, presence.path))
            advance(presence.size)
        findings = [Finding(root, path or ".", "the directory cannot be read") for root, path in failed]
        # Files came and went while others were read: what looked wrong is looked at once more.
        uploads = self._catalog.uploads()
        for root, path in sorted([*suspects, *here]):
            if problem := self._check(self._catalog.file_at(root, path), self._directory.look(root, path), uploads):
                findings.append(Finding(root, path, problem))
        return findings

    def _check(self, known: Known | None, seen: Seen | None, uploads: Mapping[str, Collection[str]]) -> str | None:
        if known is None:
            return _describe_foreign(seen.filename) if seen else None
        if seen is None:
            return "is missing"
        if known.file is None:
            return "was not read yet: its bytes cannot be compared"
        try:
            with open(self._directory.open(seen.root, seen.path), "rb") as stream:  # noqa: PTH123 - a descriptor
                sha256 = hash_stream(stream).sha256
        except OSError as fault:
            return f"cannot be read: {fault.strerror}"
        uploaded = uploads.get(seen.filename, ())
        if uploaded and sha256 not in uploaded:
            return f"its bytes changed: uploaded as sha256 {', '.join(sorted(uploaded))}, now {sha256}"
        if sha256 != known.file.digests.sha256:
            return f"its bytes changed: recorded as sha256 {known.file.digests.sha256}, now {sha256}"
        return f"cannot be opened: {known.problem}" if known.problem else None


def _describe_foreign(filename: str) -> str:
    return "is not in the catalog: reindex takes it up" if parse_found(filename) else "is not a distribution"
