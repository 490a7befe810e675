"""What is here: learned from the directories and the catalog, and read when somebody asks for it.

It must not know upstreams, policy, pages or uploads.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from pypiserver_ng.errors import Failure, Unavailable
from pypiserver_ng.index.backlog import Backlog
from pypiserver_ng.index.following import Flights, Following
from pypiserver_ng.index.pagecache import Entry, PageCache
from pypiserver_ng.index.store import Store
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.index.watcher import Watcher
from pypiserver_ng.model import NormalizedName, Status

_log = logging.getLogger(__name__)

#: From so many files on, a start does not wait until all of them were looked at.
_MANY_FILES = 10_000
#: How long whoever asks for a project waits until its files are read: less than pip waits for an answer.
_PATIENCE_SECONDS = 10.0


class Holdings:
    """The local projects. Used on the event loop; `start` before the first question, `stop` after the last."""

    def __init__(
        self,
        store: Store,
        backlog: Backlog,
        following: Following,
        flights: Flights,
        threads: Threads,
        changing: Threads,
    ) -> None:
        self._tree = store.tree
        self._backlog = backlog
        self._following = following
        self._flights = flights
        self._threads = threads
        self._changing = changing
        self._watcher = Watcher(store.directory.roots, self.compare)
        self._cache = PageCache()
        #: Set unless it is not known yet which names are in the directories.
        self._surveyed = asyncio.Event()
        self._surveyed.set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Learn what lies in the directories; their files are read afterwards, or when they are asked for.

        Where there are many files, only their names are looked at first: they decide who answers for a project.
        """
        await self._following.catch_up()
        self._surveyed.clear()
        surveying = asyncio.create_task(self._survey())
        self._tasks = [asyncio.create_task(self._watch(surveying)), asyncio.create_task(self._backlog.read_all())]
        if self._following.files < _MANY_FILES:
            await asyncio.shield(surveying)
            await self._following.catch_up()

    async def _survey(self) -> bool:
        """Returns whether everything was compared."""
        try:
            is_small = await self._changing.run(self._tree.list_names) < _MANY_FILES
            if is_small:
                await self._changing.run(self._tree.scan)
        except (Failure, OSError) as fault:
            # What is known can be answered; the watcher tries again.
            _log.error("what changed in the package directories cannot be recorded: %s", fault)
            return True
        finally:
            self._surveyed.set()
        return is_small

    async def _watch(self, surveying: "asyncio.Task[bool]") -> None:
        await self._watcher.run(compare_first=not await surveying)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tree.stopped = True

    async def compare(self, paths: Sequence[tuple[str, str]] | None) -> None:
        """Look at these files, given as (root, path), or at all. Raises NoSpace, Unavailable, OSError."""
        compare = self._tree.scan if paths is None else partial(self._tree.look, paths)
        # A command or another process may have found what nobody reads yet.
        if await self._changing.run(compare) or paths is None:
            self._backlog.wake()
        # Not when somebody asks: it may be much.
        await self._following.catch_up()

    # What is local

    async def catch_up(self, name: NormalizedName | None = None) -> Mapping[NormalizedName, Collection[object]]:
        """Follow what was recorded; returns what was not, by project. Does not wait for more than `name` needs."""
        if name not in self._following.serials:
            await self._surveyed.wait()
        # In this order: what is recorded in between is in both, never in neither.
        unrecorded = self._tree.unrecorded
        await self._following.catch_up()
        return unrecorded

    async def record(self, name: NormalizedName) -> bool:
        """Have the project's files recorded that were seen by name only; returns whether it is local then."""
        if name in await self.catch_up(name):
            try:
                await self._flights.join(("record", name), lambda: self._changing.run(self._tree.record, name))
            except (Failure, OSError) as fault:
                _log.warning("files of %s cannot be recorded: %s", name, fault)
            await self._following.catch_up()
        return name in self._following.serials

    def counts(self) -> tuple[int, int]:
        """Projects and files, as of the last question."""
        more = [len(keys) for name, keys in self._tree.unrecorded.items() if name not in self._following.counts]
        return len(self._following.names) + len(more), self._following.files + sum(more)

    # What it is

    def find(self, name: NormalizedName) -> Entry | None:
        """A local project from memory, if it did not change since it was last loaded."""
        serial = self._following.serials.get(name)
        return self._cache.get(name, serial) if serial is not None else None

    async def entry(self, name: NormalizedName) -> Entry:
        """Of a local project. Raises Unavailable while none of its files is whole."""
        entry = await self.load(name) if await self.record(name) else None
        if entry is None or not (entry.project.files or entry.project.status is Status.QUARANTINED):
            raise Unavailable(f"the files of {name} are still being copied or read", retry_after=1)
        return entry

    async def load(self, name: NormalizedName) -> Entry:
        """Of a project that has rows. Raises Unavailable where there is so much to read that it takes too long."""
        serial = self._following.serials[name]
        entry = self._cache.get(name, serial)
        if entry is None:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    entry = await self._join_load(name, serial)
            except TimeoutError:
                # Reading goes on, and what was read is recorded; clients give up on an answer that does not come.
                raise Unavailable(f"the files of {name} are still being read", retry_after=5) from None
            self._cache.put(name, entry)
        return entry

    async def _join_load(self, name: NormalizedName, serial: int) -> Entry:
        entry = await self._flights.join(("load", name), lambda: self._load_or_read(name))
        if entry.project.serial < serial:
            # That flight started before the change that brought us here; the next one cannot have.
            entry = await self._flights.join(("load", name), lambda: self._load_or_read(name))
        return entry

    async def _load_or_read(self, name: NormalizedName) -> Entry:
        entry, has_unread = await self._threads.run(self._backlog.load, name)
        return await self._backlog.read(name) if has_unread else entry
