"""Brings the catalog up to what lies in the package directories. Blocking code, called in threads."""

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence

from pypiserver_ng.catalog import Catalog, Doomed, Presence
from pypiserver_ng.errors import Failure
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import File, NormalizedName
from pypiserver_ng.storage import Directory, Seen, SharedLock

_log = logging.getLogger(__name__)

#: Above this, comparing everything is the cheaper way.
_MOST_PATHS = 1000


def _missing(
    stamps: Iterable[tuple[str, str]], seen: Iterable[Seen], failed: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Rows whose file was not seen, but for those below a directory that could not be read."""
    unknown = tuple(f"{root}/{path}" for root, path in failed)
    present = {(file.root, file.path) for file in seen}
    return [key for key in stamps if key not in present and not f"{key[0]}/{key[1]}".startswith(unknown)]


class Tree:
    def __init__(self, catalog: Catalog, directory: Directory, lock: SharedLock, *, is_server: bool) -> None:
        self._catalog = catalog
        self._directory = directory
        #: Only a server knows that a directory is served no longer; a command may have been told of fewer.
        self._is_server = is_server
        #: Held by whoever forgets a file before removing it, so that no scan finds it again in between.
        self.lock = lock
        #: Projects of files that are here and could not be recorded; they are local all the same.
        self.unrecorded: frozenset[NormalizedName] = frozenset()
        self._mounts = catalog.mounts()
        directory.mounts |= self._mounts

    def scan(self) -> bool:
        """Compare everything; returns whether anything changed."""
        self._catalog.notice()
        self._finish_deletions()
        # Rows first: one that is added while we look is then neither missed nor taken for gone.
        stamps = self._catalog.stamps()
        seen, failed = self._directory.scan()
        gone = _missing(stamps, seen, failed)
        if gone:
            # A file that was moved while we looked was perhaps seen in neither place.
            again, failed_again = self._directory.scan()
            seen = [*seen, *again]
            gone = _missing(stamps, seen, [*failed, *failed_again])
        if self._directory.mounts != self._mounts:
            self._mounts = set(self._directory.mounts)
            self._catalog.remember_mounts(self._mounts)
        return self._apply(stamps, seen, gone, is_everything=True)

    def look(self, paths: Sequence[tuple[str, str]]) -> bool:
        """Compare what changed, given as (root, path); everything if a directory came or went."""
        self._finish_deletions()
        if len(paths) > _MOST_PATHS:
            return self.scan()
        if any(parse_found(path.rpartition("/")[2]) is None and self._is_directory(root, path) for root, path in paths):
            return self.scan()
        stamps = self._catalog.stamps([path for _, path in paths])
        seen = [file for root, path in paths if (file := self._see(root, path))]
        present = {(file.root, file.path) for file in seen}
        gone = [key for key in paths if key in stamps and key not in present]
        if self._would_vanish([(stamps[key][0], key[1]) for key in gone]):
            # Perhaps it was only moved: its project must not be taken for gone in between.
            return self.scan()
        return self._apply(stamps, seen, gone)

    def _would_vanish(self, gone: Sequence[tuple[int, str]]) -> bool:
        """Whether a project would be left without a file; `gone` holds row ids and paths."""
        ids = {number for number, _ in gone}
        names = {parsed.name for _, path in gone if (parsed := parse_found(path.rpartition("/")[2]))}
        return any(all(row.id in ids for row in self._catalog.project_rows(name).known) for name in names)

    def forget(self, files: Sequence[File], user: str | None) -> None:
        """Delete files and bury their names. Raises OSError; what could not be deleted is known again then.

        A crash in between is made good by whoever compares next.
        """
        with self.lock:
            self._catalog.remove(files, user)
            self._delete_doomed(user)

    def _finish_deletions(self) -> None:
        """Delete what a process that died had begun to delete."""
        if not self._catalog.doomed():
            return
        with self.lock:
            try:
                self._delete_doomed(None)
            except OSError as fault:
                _log.warning("a deletion cannot be finished: %s", fault)

    def _delete_doomed(self, user: str | None) -> None:
        failure: OSError | None = None
        gone: list[Doomed] = []
        kept: list[Doomed] = []
        for file in self._catalog.doomed():
            if file.root not in self._directory.roots or not self._directory.is_known(file.root, file.path):
                continue  # its directory is away: whoever sees it again goes on
            try:
                seen = self._directory.look(file.root, file.path)
                # Another file may have taken the place of the one that was meant.
                if seen and (seen.size, seen.mtime_ns) == (file.size, file.mtime_ns):
                    self._directory.delete(file.root, file.path)
                gone.append(file)
            except OSError as fault:
                failure = fault
                kept.append(file)
        self._catalog.finish_removal(gone, kept, user)
        if failure is not None:
            left = [self._see(file.root, file.path) for file in kept]
            self._catalog.sync([found for file in left if file and (found := self._recheck(file))], [])
            raise failure

    def _apply(
        self,
        stamps: dict[tuple[str, str], tuple[int, int, int]],
        seen: Iterable[Seen],
        gone: Sequence[tuple[str, str]],
        *,
        is_everything: bool = False,
    ) -> bool:
        fresh = [file for file in seen if stamps.get((file.root, file.path), ())[1:] != (file.size, file.mtime_ns)]
        if not fresh and not gone:
            self.unrecorded = frozenset() if is_everything else self.unrecorded
            return False
        with self.lock:
            found = self._drop_recorded([presence for file in fresh if (presence := self._recheck(file))])
            vanished = [stamps[key][0] for key in gone if self._is_gone(*key)]
            try:
                self._catalog.sync(found, vanished)
            except Failure:
                self.unrecorded |= {presence.parsed.name for presence in found}
                raise
        if is_everything:
            self.unrecorded = frozenset()
        for presence in found:
            _log.info("found %s", presence.path)
        return bool(found or vanished)

    def _drop_recorded(self, found: list[Presence]) -> list[Presence]:
        """Those that another process, or an upload, did not record meanwhile."""
        paths = [presence.path for presence in found]
        known = self._catalog.stamps(paths if len(paths) <= _MOST_PATHS else None) if paths else {}
        return [
            presence
            for presence in found
            if known.get((presence.root, presence.path), ())[1:] != (presence.size, presence.mtime_ns)
        ]

    def _recheck(self, file: Seen) -> Presence | None:
        """The file as it is at this moment, if it is a distribution."""
        parsed = parse_found(file.filename)
        now = self._see(file.root, file.path) if parsed else None
        return Presence(now.root, now.path, parsed, now.size, now.mtime_ns) if parsed and now else None

    def _see(self, root: str, path: str) -> Seen | None:
        # What cannot be looked at must not keep the rest from being noticed.
        with contextlib.suppress(OSError):
            return self._directory.look(root, path)
        return None

    @staticmethod
    def _is_directory(root: str, path: str) -> bool:
        """Whether this is a directory, or may have been one."""
        full = f"{root}/{path}"
        return os.path.isdir(full) or not os.path.lexists(full)  # noqa: PTH112

    def _is_gone(self, root: str, path: str) -> bool:
        # A directory that is no longer served is gone with everything in it; one that is served and missing is
        # a share that will come back, and until then nothing of it may be asked from upstream.
        if root not in self._directory.roots:
            return self._is_server
        try:
            return self._directory.is_known(root, path) and self._directory.look(root, path) is None
        except OSError:
            return False
