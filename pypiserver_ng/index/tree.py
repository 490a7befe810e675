"""Brings the catalog up to what lies in the package directories. Blocking code, called in threads."""

import contextlib
import itertools
import logging
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from pypiserver_ng.catalog import Catalog, Doomed, Presence, Stamp
from pypiserver_ng.errors import Failure
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import File, NormalizedName
from pypiserver_ng.storage import Directory, Seen, SharedLock

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Above this, comparing everything is the cheaper way.
_MOST_PATHS = 1000
#: Files that are recorded in one transaction: others may want to change something in between.
_MOST_AT_ONCE = 1000
#: Names that are put in the order of the catalog's index before they are looked up there.
_MOST_NAMES = 10_000
#: Files that are named in the log when they are found together.
_MOST_NAMED = 20

#: (root, path).
Key = tuple[str, str]


def _is_fresh(file: Seen | Presence, stamp: Stamp | None) -> bool:
    """Whether a file has no row, or another's."""
    return stamp is None or stamp[1:] != (file.size, file.mtime_ns)


class _Ids:
    """Numbers of rows, in one bit each: there may be very many."""

    def __init__(self, most: int) -> None:
        self._bits = bytearray((most >> 3) + 1)
        self._most = most
        self.count = 0

    def add(self, number: int) -> None:
        if number <= self._most and number not in self:
            self._bits[number >> 3] |= 1 << (number & 7)
            self.count += 1

    def __contains__(self, number: int) -> bool:
        return bool(self._bits[number >> 3] & 1 << (number & 7))


class Tree:
    def __init__(self, catalog: Catalog, directory: Directory, lock: SharedLock, *, is_server: bool) -> None:
        self._catalog = catalog
        self._directory = directory
        #: Only a server knows that a directory is served no longer; a command may have been told of fewer.
        self._is_server = is_server
        #: Held by whoever forgets a file before removing it, so that no scan finds it again in between.
        self.lock = lock
        #: Files that are here and are not recorded yet, or could not be; their projects are local all the same.
        #: Never changed, only replaced: it is read while threads work.
        self.unrecorded: Mapping[NormalizedName, Collection[Key]] = {}
        self._noting = threading.Lock()
        #: Those of them that are recorded meanwhile.
        self._recorded: dict[Key, NormalizedName] = {}
        #: Set once: nothing more is recorded, so that the thread that does can end.
        self.stopped = False
        self._mounts = catalog.mounts()
        directory.mounts |= self._mounts

    def list_names(self) -> int:
        """Learn from names alone what is here and not recorded, long before a scan is through; returns how many are."""
        count = 0
        unrecorded: dict[NormalizedName, list[Key]] = {}
        for some in _divide(self._directory.names(), _MOST_NAMES):
            count += len(some)
            for keys in _divide(sorted(some), _MOST_AT_ONCE):
                for key in self._catalog.unknown(keys):
                    if parsed := parse_found(key[1].rpartition("/")[2]):
                        unrecorded.setdefault(parsed.name, []).append(key)
        self.unrecorded = unrecorded
        return count

    def record(self, name: NormalizedName) -> None:
        """Record now what is known of a project by its files' names only."""
        keys = list(self.unrecorded.get(name, ()))
        self._apply([file for key in keys if (file := self._see(*key))], {})
        self._settle(dict.fromkeys(self._catalog.stamps(keys), name))

    def scan(self) -> bool:
        """Compare everything; returns whether anything changed."""
        self._catalog.notice()
        self._finish_deletions()
        unrecorded = self.unrecorded
        changed, fresh, gone = self._compare()
        if gone:
            # A file that was moved while we looked was perhaps seen in neither place.
            changed_again, more, still = self._compare()
            changed |= changed_again
            fresh = list({*fresh, *more})
            gone = {key: number for key, number in gone.items() if still.get(key) == number}
        changed |= self._apply(fresh, gone)
        # Those that are no distributions, or not there after all.
        left = {key: name for name in unrecorded.keys() & self.unrecorded.keys() for key in unrecorded[name]}
        self._settle(left)
        return changed

    def _compare(self) -> tuple[bool, list[Seen], dict[Key, int]]:
        """Record files that are new or changed as they are seen.

        Returns whether there were any, the last of them, which are not recorded yet, and the ids of rows whose file was
        not seen where it could have been.
        """
        # Whatever is added while we look is neither missed nor taken for gone.
        last, count = self._catalog.extent()
        seen = _Ids(last)
        failed: list[Key] = []
        # Nothing is kept of what has not changed, nor for long of what has: there may be very much of either.
        fresh = self._find_fresh(self._directory.walk(failed), seen)
        changed = False
        while len(batch := list(itertools.islice(fresh, _MOST_AT_ONCE))) == _MOST_AT_ONCE:
            try:
                changed |= self._apply(batch, {})
            except (Failure, OSError):
                self._keep_in_mind(fresh)
                raise
        unknown = tuple(f"{root}/{path}" for root, path in failed)
        missing = () if seen.count == count else self._catalog.places(last)
        gone = {
            (root, path): number
            for number, root, path in missing
            if number not in seen and not f"{root}/{path}".startswith(unknown)
        }
        return changed, batch, gone

    def _find_fresh(self, files: Iterable[Seen], seen: _Ids) -> Iterator[Seen]:
        """Those that have no row, or another's; the numbers of all rows that have a file are added to `seen`."""
        for some in _divide(files, _MOST_AT_ONCE):
            stamps = self._catalog.stamps([(file.root, file.path) for file in some])
            for stamp in stamps.values():
                seen.add(stamp[0])
            yield from (file for file in some if _is_fresh(file, stamps.get((file.root, file.path))))

    def look_for(self, name: NormalizedName, *, everywhere: bool) -> None:
        """Compare one project's files: those that are known or, `everywhere`, all that have its name."""
        self._catalog.notice()
        self._finish_deletions()
        rows = {(row.presence.root, row.presence.path): row.id for row in self._catalog.project_rows(name).known}
        keys = {*rows, *(self._list_names_of(name) if everywhere else ())}
        here = {(file.root, file.path): file for key in sorted(keys) if (file := self._see(*key))}
        if rows and not everywhere and not rows.keys() & here:
            # Perhaps they were only moved.
            self.look_for(name, everywhere=True)
            return
        stamps = self._catalog.stamps(list(keys))
        fresh = [file for key, file in here.items() if _is_fresh(file, stamps.get(key))]
        self._apply(fresh, {key: number for key, number in rows.items() if key not in here})

    def _list_names_of(self, name: NormalizedName) -> Iterator[Key]:
        # Reading every name to its end would take ten times as long.
        begins = re.compile("[-_.]+".join(map(re.escape, name.split("-"))), re.IGNORECASE).match
        for root, path in self._directory.names():
            filename = path.rpartition("/")[2]
            if begins(filename) and (parsed := parse_found(filename)) and parsed.name == name:
                yield root, path

    def look(self, paths: Sequence[tuple[str, str]]) -> bool:
        """Compare what changed, given as (root, path) of files."""
        self._finish_deletions()
        if len(paths) > _MOST_PATHS:
            return self.scan()
        stamps = self._catalog.stamps(paths)
        seen = [file for root, path in paths if (file := self._see(root, path))]
        present = {(file.root, file.path) for file in seen}
        gone = {key: stamps[key][0] for key in paths if key in stamps and key not in present}
        if self._would_vanish(gone):
            # Perhaps it was only moved: its project must not be taken for gone in between.
            return self.scan()
        return self._apply([file for file in seen if _is_fresh(file, stamps.get((file.root, file.path)))], gone)

    def _would_vanish(self, gone: Mapping[Key, int]) -> bool:
        """Whether a project would be left without a file; `gone` holds row ids."""
        ids = set(gone.values())
        names = {parsed.name for _, path in gone if (parsed := parse_found(path.rpartition("/")[2]))}
        return any(all(row.id in ids for row in self._catalog.project_rows(name).known) for name in names)

    def forget(self, files: Sequence[File], user: str | None, address: str | None = None) -> None:
        """Delete files and bury their names. Raises OSError; what could not be deleted is known again then.

        A crash in between is made good by whoever compares next.
        """
        with self.lock:
            self._catalog.remove(files, user, address)
            self._delete_doomed(user, address)

    def _finish_deletions(self) -> None:
        """Delete what a process that died had begun to delete."""
        if not self._catalog.doomed():
            return
        with self.lock:
            try:
                self._delete_doomed()
            except OSError as fault:
                _log.warning("a deletion cannot be finished: %s", fault)

    def _delete_doomed(self, user: str | None = None, address: str | None = None) -> None:
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
        self._catalog.finish_removal(gone, kept, user, address)
        if failure is not None:
            left = [self._see(file.root, file.path) for file in kept]
            self._catalog.sync([found for file in left if file and (found := self._recheck(file))], [])
            raise failure

    def _apply(self, fresh: Sequence[Seen], gone: Mapping[Key, int]) -> bool:
        """Record what is new or changed, and forget what is gone; returns whether anything was left to do."""
        if self._directory.mounts != self._mounts:
            self._mounts = set(self._directory.mounts)
            self._catalog.remember_mounts(self._mounts)
        changed = False
        for start in range(0, max(len(fresh), 1), _MOST_AT_ONCE):
            if self.stopped:
                break
            # What is gone comes last, or a project whose files were moved would be gone in between.
            is_last = start + _MOST_AT_ONCE >= len(fresh)
            try:
                changed |= self._record(fresh[start : start + _MOST_AT_ONCE], gone if is_last else {})
            except (Failure, OSError):
                self._keep_in_mind(fresh[start:])
                raise
        return changed

    def _record(self, files: Sequence[Seen], gone: Mapping[Key, int]) -> bool:
        if not files and not gone:
            return False
        with self.lock:
            found = [presence for file in files if (presence := self._recheck(file))]
            fresh = self._drop_recorded(found)
            vanished = [number for key, number in gone.items() if self._is_gone(*key)]
            self._catalog.sync(fresh, vanished)
        self._note({(presence.root, presence.path): presence.parsed.name for presence in found})
        for presence in fresh[:_MOST_NAMED]:
            _log.info("found %s", presence.path)
        if len(fresh) > _MOST_NAMED:
            _log.info("and %d more files", len(fresh) - _MOST_NAMED)
        return bool(fresh or vanished)

    def _drop_recorded(self, found: Sequence[Presence]) -> list[Presence]:
        """Those that another process, or an upload, did not record meanwhile."""
        known = self._catalog.stamps([(presence.root, presence.path) for presence in found])
        return [presence for presence in found if _is_fresh(presence, known.get((presence.root, presence.path)))]

    def _note(self, recorded: Mapping[Key, NormalizedName]) -> None:
        """These files have rows now. There is no hurry to forget that they had none, and each time costs something."""
        with self._noting:
            self._recorded |= recorded
            enough = len(self._recorded) >= len(self.unrecorded) / 16
            noted, self._recorded = (self._recorded, {}) if enough else ({}, self._recorded)
        self._settle(noted)

    def _settle(self, recorded: Mapping[Key, NormalizedName]) -> None:
        """These files need not be kept in mind any more."""
        if not self.unrecorded or not recorded:
            return
        with self._noting:
            unrecorded = dict(self.unrecorded)
            for name in set(recorded.values()):
                keys = [key for key in unrecorded.pop(name, ()) if key not in recorded]
                if keys:
                    unrecorded[name] = keys
            self.unrecorded = unrecorded

    def _keep_in_mind(self, files: Iterable[Seen]) -> None:
        """Files that could not be recorded make their projects local all the same."""
        here = [
            (parsed.name, (file.root, file.path))
            for file in files
            if (parsed := parse_found(file.filename)) and self._see(file.root, file.path)
        ]
        with self._noting:
            # One that fails at each scan counts once.
            unrecorded = {name: dict.fromkeys(keys) for name, keys in self.unrecorded.items()}
            for name, key in here:
                unrecorded.setdefault(name, {})[key] = None
                # Its row went meanwhile, whatever was noted of it.
                self._recorded.pop(key, None)
            self.unrecorded = unrecorded

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

    def _is_gone(self, root: str, path: str) -> bool:
        # A directory that is no longer served is gone with everything in it; one that is served and missing is
        # a share that will come back, and until then nothing of it may be asked from upstream.
        if root not in self._directory.roots:
            return self._is_server
        try:
            return self._directory.is_known(root, path) and self._directory.look(root, path) is None
        except OSError:
            return False


def _divide(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    remaining = iter(items)
    while some := list(itertools.islice(remaining, size)):
        yield some
