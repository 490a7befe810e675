"""Brings files of upstreams into the first package directory, or only into the cache, because their owner says so.

The rules hold for it as for every client, but for the shadow rule: whoever brings a file asks for it by name.
"""

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from pypiserver_ng.catalog import Presence, buried_conflict, closed_denial
from pypiserver_ng.errors import Conflict, Failure, Invalid, NotFound, UpstreamFailed
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.index import Index
from pypiserver_ng.index.lockfiles import Wanted
from pypiserver_ng.index.mirror import Mirror
from pypiserver_ng.index.mirror.shelves import Source
from pypiserver_ng.index.newer import Versions, find_upstreams
from pypiserver_ng.index.opened import Opened, OpenFile
from pypiserver_ng.index.reading import Reader, read_now
from pypiserver_ng.index.store import Store
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.index.turns import run_each
from pypiserver_ng.model import NormalizedName, ParsedFilename, UpstreamFile
from pypiserver_ng.policy import Decision, Origin
from pypiserver_ng.policy.advisories import read_version
from pypiserver_ng.storage import Exists, Scratch, translate_os_error

_CHUNK = 1 << 20
#: Files, and pages, that are asked for at one time.
_MOST_FILES = 6
_MOST_PAGES = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Progress(Protocol):
    def expect(self, files: int, size: int, unknown: int) -> None:
        """So many files are coming, of so many bytes without those whose size is unknown."""

    def advance(self, size: int) -> None: ...

    def finish(self) -> None:
        """One file is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file."""

    wanted: Wanted
    #: Bytes that were brought; None where it was here already.
    size: int | None = None
    #: One line, where it could not be brought.
    problem: str | None = None

    @property
    def is_brought(self) -> bool:
        return self.size is not None and self.problem is None


class Bringer:
    """Used on the event loop."""

    def __init__(self, index: Index, store: Store, reader: Reader) -> None:
        self._index = index
        self._store = store
        self._reader = reader
        self._began = time.time()
        self._threads = Threads(8, "bringing")
        self.versions = Versions(index, store, self._threads)

    def stop(self) -> None:
        self._reader.stopped = True
        self._threads.stop()

    async def scan(self) -> None:
        """Learn what lies in the directories."""
        await self._threads.run(self._store.tree.scan)

    @property
    def has_upstream(self) -> bool:
        return bool(self._index.upstreams)

    @property
    def _mirror(self) -> Mirror:
        return self._index.mirror

    # Files

    async def bring(self, wanted: Sequence[Wanted], progress: Progress, *, cache_only: bool = False) -> list[Outcome]:
        """Every file for itself: what cannot be had costs itself only."""
        found = await run_each(wanted, _MOST_PAGES, self._locate)
        todo = [item for item in found if isinstance(item, _Located)]
        sizes = [item.file.size for item in todo]
        progress.expect(len(todo), sum(size or 0 for size in sizes), sizes.count(None))

        async def fetch(item: _Located) -> Outcome:
            outcome = await self._fetch(item, progress, cache_only=cache_only)
            progress.finish()
            return outcome

        done = {item.wanted: item for item in found if isinstance(item, Outcome)}
        done |= {outcome.wanted: outcome for outcome in await run_each(todo, _MOST_FILES, fetch)}
        return [done[one] for one in wanted]

    async def local_names(self) -> set[NormalizedName]:
        """Projects that have a file here."""
        return {known.presence.parsed.name for known in await self._threads.run(self._store.catalog.everything)}

    async def explain(self, wanted: Mapping[NormalizedName, str | None]) -> list[str]:
        """Why a resolver may not have seen these projects, or these versions of them.

        One line for each project of which that is known.
        """
        found = []
        for name in sorted(wanted):
            try:
                line = await self._explain(name, wanted[name])
            except (NotFound, UpstreamFailed) as fault:
                line = fault.message
            if line:
                found.append(line)
        return found

    async def _explain(self, name: NormalizedName, version: str | None) -> str | None:
        decision = await self._index.decide(name)
        if decision.origin is Origin.LOCAL:
            return f"{decision.reason}: update brings newer versions, and a lock file (-r) brings files by name"
        if decision.origin is Origin.NOBODY:
            return decision.reason
        shelf = await self._mirror.shelf(name, decision, self._index.policy, None)
        if not shelf.withheld:
            return None
        count = len(shelf.withheld)
        hidden = f"{count} {'file of it is' if count == 1 else 'files of it are'} withheld"
        example = shelf.withheld[-1][1].reason
        asked = read_version(version) if version else None
        if asked is None:
            return f"{name}: {hidden}, such as: {example}"
        reasons = [verdict.reason for file, verdict in shelf.withheld if read_version(file.version) == asked]
        if reasons:
            return reasons[0]
        is_offered = any(read_version(file.version) == asked for file in shelf.project.files)
        return f"{name} {version} is {'offered' if is_offered else 'not upstream'}; {hidden}, such as: {example}"

    async def origin(self, name: NormalizedName) -> Origin:
        """Who answers for the project now."""
        return (await self._index.decide(name)).origin

    async def _locate(self, wanted: Wanted) -> "_Located | Outcome":
        try:
            parsed = parse_found(wanted.filename)
            if parsed is None:
                raise Invalid("it is no distribution's name")
            if await self._threads.run(self._is_here, parsed, wanted):
                return Outcome(wanted)
            source, file = await self._find(wanted, find_upstreams(self._index.policy, parsed.name))
        except Failure as fault:
            return Outcome(wanted, problem=fault.message)
        except OSError as fault:
            return Outcome(wanted, problem=translate_os_error(fault, "the file was not brought").message)
        return _Located(wanted, parsed, source, file)

    def _is_here(self, parsed: ParsedFilename, wanted: Wanted) -> bool:
        """Whether the bytes are here under their name. Raises Conflict and Denied where they may not come."""
        outlook = self._store.catalog.outlook(parsed.name, parsed.filename)
        if not outlook.status.takes_uploads:
            raise closed_denial(parsed.name, outlook.status, outlook.status_reason)
        for known in outlook.known:
            here = self._store.directory.hash(known.presence.root, known.presence.path)
            if here is None:
                continue
            if here != wanted.hashes.get("sha256", here):
                raise Conflict(f"other bytes are here under this name (sha256 {here}): delete them first")
            return True
        if outlook.buried is not None and outlook.buried != wanted.hashes.get("sha256", outlook.buried):
            raise buried_conflict(parsed.filename)
        return False

    async def _find(self, wanted: Wanted, decision: Decision) -> tuple[Source, UpstreamFile]:
        """As its upstream lists it now, else as it did once. Raises NotFound, Denied, UpstreamFailed."""
        sha256 = wanted.hashes.get("sha256")
        name, policy = wanted.project, self._index.policy
        path = f"-/{sha256 or 'first-seen'}/{wanted.filename}"
        with contextlib.suppress(NotFound, UpstreamFailed):
            shelf = await self._mirror.shelf(name, decision, policy, None)
            for file in (*shelf.project.files, *(file for file, _ in shelf.withheld)):
                if (
                    isinstance(file, UpstreamFile)
                    and file.filename == wanted.filename
                    and None in {sha256, file.sha256}
                ):
                    # One of both gives no hash of it: then it is the name that they have in common.
                    path = file.path
        return await self._mirror.locate(path, name, decision, policy, None)

    async def _fetch(self, item: "_Located", progress: Progress, *, cache_only: bool) -> Outcome:
        try:
            opened = await self._mirror.open(item.source, item.file)
            try:
                size = await self._take(item, opened, progress, cache_only=cache_only)
            finally:
                opened.close()
            if not cache_only:
                # They lie in the package directory now.
                await self._mirror.drop(item.file, self._began)
        except Failure as fault:
            return Outcome(item.wanted, problem=fault.message)
        except OSError as fault:
            return Outcome(item.wanted, problem=translate_os_error(fault, "the file was not brought").message)
        return Outcome(item.wanted, size)

    async def _take(self, item: "_Located", opened: Opened, progress: Progress, *, cache_only: bool) -> int | None:
        """Bytes that were brought; None where they are here already."""
        await opened.begin()
        if cache_only:
            check = _Check(item.wanted)
            size = await self._read(opened, check.update, progress)
            check.finish()
            return None if isinstance(opened, OpenFile) else size
        scratch = self._store.directory.new_scratch()
        try:
            check = _Check(item.wanted)

            def write(block: bytes) -> None:
                scratch.write(block)
                check.update(block)

            size = await self._read(opened, write, progress)
            check.finish()
            if opened.sha256 is not None and not hmac.compare_digest(scratch.digests().sha256, opened.sha256):
                raise UpstreamFailed("the bytes in the cache are not what they should be: remove them from it")
            is_new = await self._threads.run(self._publish, item, scratch)
        finally:
            # Not in a thread: it must be gone whatever else is being given up.
            scratch.discard()
        await self._threads.run(self._read_project, item.parsed.name)
        return size if is_new else None

    async def _read(self, opened: Opened, write: Callable[[bytes], None], progress: Progress) -> int:
        offset = 0
        while block := await opened.read(_CHUNK, offset, None):
            await self._threads.run(write, block)
            offset += len(block)
            progress.advance(len(block))
        return offset

    def _publish(self, item: "_Located", scratch: Scratch) -> bool:
        """Give the bytes their name; False where the same were quicker. Raises Conflict, Failure, OSError."""
        store, parsed, sha256 = self._store, item.parsed, scratch.digests().sha256
        # Once more: the upstream's own hash may not have been known before.
        if self._is_here(parsed, Wanted(parsed.name, parsed.filename, {"sha256": sha256})):
            return False
        if item.file.upload_time is not None:
            moment = _to_nanoseconds(item.file.upload_time)
            with scratch.lock:
                os.utime(scratch.descriptor(), ns=(moment, moment))
        store.directory.flush(scratch)
        # From its name to its row: no scan may take it for a file that somebody copied in.
        with store.tree.lock:
            try:
                seen = store.directory.publish(scratch, parsed.filename, overwrite=False)
            except Exists:
                if store.directory.hash(store.directory.roots[0], parsed.filename) != sha256:
                    raise Conflict("other bytes are here under this name: move them away first") from None
                return False
            try:
                store.catalog.sync([Presence(seen.root, seen.path, parsed, seen.size, seen.mtime_ns)], [])
            except Failure:
                with contextlib.suppress(OSError):
                    store.directory.delete(seen.root, seen.path)
                raise
        return True

    def _read_project(self, name: NormalizedName) -> None:
        # A server that runs reads it as well, but nobody may be there.
        read_now(self._store.catalog, self._reader, name)


@dataclass(frozen=True, slots=True)
class _Located:
    wanted: Wanted
    parsed: ParsedFilename
    source: Source
    file: UpstreamFile


class _Check:
    """Whether the bytes have the hashes that somebody gave."""

    def __init__(self, wanted: Wanted) -> None:
        self._expected = {name: wanted.hashes[name] for name in wanted.hashes if name in hashlib.algorithms_guaranteed}
        if wanted.hashes and not self._expected:
            raise Invalid(f"it is locked by hashes that are not known here: {', '.join(sorted(wanted.hashes))}")
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in self._expected}

    def update(self, block: bytes) -> None:
        for digest in self._hashes.values():
            digest.update(block)

    def finish(self) -> None:
        """Raises Conflict."""
        for name, digest in self._hashes.items():
            found = digest.hexdigest()
            if not hmac.compare_digest(found, self._expected[name]):
                raise Conflict(f"upstream has other bytes under this name: {name} {found}, not {self._expected[name]}")


def _to_nanoseconds(moment: datetime) -> int:
    delta = moment - _EPOCH
    return max((delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000, 0)
