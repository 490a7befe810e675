"""The files that were not read yet: all of them in the background, those of a project at once when it is asked for.

Reading has threads of its own: it may take long, and questions must not wait behind it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar
from zlib import crc32

from pypiserver_ng.catalog import Known
from pypiserver_ng.errors import Failure
from pypiserver_ng.index.pagecache import Entry, build_entry
from pypiserver_ng.index.reading import Reader, read_now
from pypiserver_ng.index.store import Store
from pypiserver_ng.model import NormalizedName

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Threads that read at a time: while one hashes, another has its archive looked into by another process.
_READERS = 2
#: Files and bytes read between two commits.
_BATCH = 512
_BATCH_BYTES = 256 * 2**20
#: Up to so many files are read by one thread at one go.
_FEW = 32
#: How often files that are not whole yet are looked at again.
_PENDING_SECONDS = 0.3
#: How often a process that does not read in the background asks whether the one that does is gone.
_SEAT_SECONDS = 1.0
#: 8 MiB.
_KEPT_BITS = 26
#: How long to wait after a fault of the disk or of the catalog.
_FAULT_SECONDS = 2.0


class _Kept:
    """Names that are in use, in one bit each, because there may be very many.

    One in seventy others is taken for one of a million. It stays too, which costs a few bytes of the disk.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._bits = bytearray(1 << (_KEPT_BITS - 3))
        for name in names:
            number = self._place(name)
            self._bits[number >> 3] |= 1 << (number & 7)

    def __contains__(self, name: object) -> bool:
        number = self._place(str(name))
        return bool(self._bits[number >> 3] & 1 << (number & 7))

    @staticmethod
    def _place(name: str) -> int:
        return crc32(name.encode()) >> (32 - _KEPT_BITS)


class Backlog:
    def __init__(self, store: Store, reader: Reader) -> None:
        self._catalog = store.catalog
        self._metadata = store.metadata
        self._roots = store.directory.roots
        self._reader = reader
        #: Only one process at a time reads what nobody asked for.
        self._seat = store.seat
        self._may_sweep = False
        self._swept = False
        self._asked = ThreadPoolExecutor(4, thread_name_prefix="reading")
        self._background = ThreadPoolExecutor(_READERS, thread_name_prefix="background")
        self._has_unread = asyncio.Event()
        self._has_unread.set()

    def stop(self) -> None:
        """Give up what is being read; blocks until the threads have noticed."""
        self._reader.stopped = True
        for threads in (self._asked, self._background):
            threads.shutdown(cancel_futures=True)

    def wake(self) -> None:
        """There may be unread files; the directories were compared."""
        self._may_sweep = True
        self._has_unread.set()

    def load(self, name: NormalizedName) -> tuple[Entry, bool]:
        """A project as far as it was read, and whether some of its files should be read now. Blocking."""
        rows = self._catalog.project_rows(name)
        unread = any(known.file is None and self._reader.is_due(known) for known in rows.known)
        return build_entry(name, rows, self._roots), unread

    async def read(self, name: NormalizedName) -> Entry:
        """Read a project's files now."""
        rows = await self.run(self._catalog.project_rows, name)
        due = [known for known in rows.known if known.file is None and self._reader.is_due(known)]
        if len(due) <= _FEW:
            return await self.run(self._read_project, name)
        try:
            for batch in _divide(due):
                # Recorded one after the other: who cannot wait for all of them waits less when he comes again.
                await self._read_together(batch, self._asked)
        except Failure as fault:
            _log.warning("what was read of %s could not be recorded: %s", name, fault.message)
        return (await self.run(self.load, name))[0]

    async def run(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Long blocking work, in the threads for it."""
        return await asyncio.get_running_loop().run_in_executor(self._asked, function, *arguments)

    def _read_project(self, name: NormalizedName) -> Entry:
        return build_entry(name, read_now(self._catalog, self._reader, name), self._roots)

    async def read_all(self) -> None:
        """Read, in the background, what nobody asked for yet. Until cancelled."""
        loop = asyncio.get_running_loop()
        while not self._seat.take():  # noqa: ASYNC110 - nobody tells of a process that died
            await asyncio.sleep(_SEAT_SECONDS)
        while True:
            await self._has_unread.wait()
            self._has_unread.clear()
            try:
                while (batch := await loop.run_in_executor(self._background, self._next_batch)) is not None:
                    if not await self._read_together(batch, self._background):
                        await asyncio.sleep(_PENDING_SECONDS)
            except Exception as fault:
                _log.warning("reading files failed, it is tried again: %s", fault)
                await asyncio.sleep(_FAULT_SECONDS)
                self._has_unread.set()

    def _next_batch(self) -> Sequence[Known] | None:
        """Files to read next; empty where what is left is not whole yet, None when all are read."""
        most = _BATCH + self._reader.pending
        unread = self._catalog.unread(most)
        if len(unread) < most:
            self._reader.forget_all_but(unread)
        if unread:
            due = [known for known in unread if self._reader.is_due(known)]
            return next(_divide(due), ())
        if self._may_sweep and not self._swept:
            # Once everything is read, what no file refers to is left over from deletions. There is no hurry: at a start
            # with very many files it would hold up those who learn what is there.
            self._swept = True
            self._metadata.sweep(_Kept(self._catalog.metadata_digests()))
        return None

    async def _read_together(self, files: Sequence[Known], threads: ThreadPoolExecutor) -> bool:
        """Read some files in several threads; returns whether any could be read."""
        run = partial(asyncio.get_running_loop().run_in_executor, threads)
        parts = [files[number::_READERS] for number in range(min(_READERS, len(files)))]
        results = await asyncio.gather(*(run(self._reader.read_each, part) for part in parts))
        read = [one for part in results for one in part]
        if read:
            await run(self._catalog.record, read)
        return bool(read)


def _divide(files: Sequence[Known]) -> Iterator[Sequence[Known]]:
    """Batches of bounded numbers of files and bytes."""
    batch: list[Known] = []
    size = 0
    for known in files:
        batch.append(known)
        size += known.presence.size
        if len(batch) == _BATCH or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
