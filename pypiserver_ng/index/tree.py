"""Brings the catalog up to what lies in the package directories. Blocking code, called in threads."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Sequence

from pypiserver_ng.catalog import Catalog, Presence
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.storage import Directory, Seen

_log = logging.getLogger(__name__)

#: Above this, comparing everything is the cheaper way.
_MOST_PATHS = 1000


class Tree:
    def __init__(self, catalog: Catalog, directory: Directory) -> None:
        self._catalog = catalog
        self._directory = directory
        #: Held by whoever forgets a file before removing it, so that no scan finds it again in between.
        self.lock = threading.Lock()

    def scan(self) -> bool:
        """Compare everything; returns whether anything changed."""
        # Rows first: one that is added while we look is then neither missed nor taken for gone.
        stamps = self._catalog.stamps()
        seen, failed = self._directory.scan()
        unknown = tuple(f"{root}/{path}" for root, path in failed)
        present = {(file.root, file.path) for file in seen}
        gone = [key for key in stamps if key not in present and not f"{key[0]}/{key[1]}".startswith(unknown)]
        return self._apply(stamps, seen, gone)

    def look(self, paths: Sequence[tuple[str, str]]) -> bool:
        """Compare what changed, given as (root, path); everything if a directory came or went."""
        if len(paths) > _MOST_PATHS:
            return self.scan()
        if any(parse_found(path.rpartition("/")[2]) is None and self._is_directory(root, path) for root, path in paths):
            return self.scan()
        stamps = self._catalog.stamps([path for _, path in paths])
        seen = [file for root, path in paths if (file := self._see(root, path))]
        present = {(file.root, file.path) for file in seen}
        gone = [key for key in paths if key in stamps and key not in present]
        return self._apply(stamps, seen, gone)

    def _apply(
        self,
        stamps: dict[tuple[str, str], tuple[int, int, int]],
        seen: Iterable[Seen],
        gone: Sequence[tuple[str, str]],
    ) -> bool:
        fresh = [file for file in seen if stamps.get((file.root, file.path), ())[1:] != (file.size, file.mtime_ns)]
        if not fresh and not gone:
            return False
        with self.lock:
            found = [presence for file in fresh if (presence := self._recheck(file))]
            vanished = [stamps[key][0] for key in gone if self._is_gone(*key)]
            self._catalog.sync(found, vanished)
        for presence in found:
            _log.info("found %s", presence.path)
        return bool(found or vanished)

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
            return True
        try:
            return os.path.isdir(root) and self._directory.look(root, path) is None  # noqa: PTH112
        except OSError:
            return False
