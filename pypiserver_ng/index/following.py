"""Follows the catalog's serial, so that whatever any process acknowledged is in this one's next answer."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

from pypiserver_ng.catalog import Catalog, Change
from pypiserver_ng.model import NormalizedName, Status

_T = TypeVar("_T")

#: Changes that are followed at one go; others get a turn in between.
_MOST_AT_ONCE = 1000
#: Up to so many names are put into their places one by one.
_FEW = 50


class Flights:
    """Single flight: who asks for what is already under way waits for that."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def join(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        # A client that leaves takes nobody else's answer with it.
        result: _T = await asyncio.shield(self.launch(key, start))
        return result

    def launch(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, _T]]) -> asyncio.Task[_T]:
        """The flight itself, for who does not want to wait for its end. Cancelling it is not his."""
        task = self._tasks.get(key)
        # One that has landed is history, even before its callback ran: whoever needs something newer would get the
        # same answer again without ever giving way to that callback.
        if task is None or task.done():
            task = asyncio.get_running_loop().create_task(start())
            self._tasks[key] = task
            task.add_done_callback(partial(self._land, key))
        return task

    def _land(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            task.exception()


class Following:
    """The local projects, by serial: those that have files or are quarantined. Used on the event loop only."""

    def __init__(self, catalog: Catalog, threads: Executor, flights: Flights) -> None:
        self._catalog = catalog
        self._threads = threads
        self._flights = flights
        #: The serial of every local project.
        self.serials: dict[NormalizedName, int] = {}
        #: Those of them that are quarantined, with or without files.
        self.quarantined: set[NormalizedName] = set()
        #: How many files each has that has any.
        self.counts: dict[NormalizedName, int] = {}
        #: How many files there are together.
        self.files = 0
        #: What the list of projects names, in its order: everything that has files and is not quarantined.
        self.names: list[NormalizedName] = []
        #: Rises whenever the list of names changes.
        self.names_version = 0
        self._serial = 0
        #: The shared number up to which all this is right.
        self.seen = -1

    def is_current(self) -> bool:
        """One comparison of two integers in memory."""
        return self._catalog.shared.value == self.seen

    async def catch_up(self) -> None:
        if self.is_current():
            return
        # Others may go on writing: what was committed until now is enough.
        target = self._catalog.shared.value
        await self._flights.join("changes", self._fetch)
        if self.seen < target and not self.is_current():
            # That flight started before the change that brought us here; the next one cannot have.
            await self._flights.join("changes", self._fetch)

    async def _fetch(self) -> None:
        seen = self._catalog.shared.value
        loop = asyncio.get_running_loop()
        changes: Awaitable[list[Change]] = loop.run_in_executor(
            self._threads, self._catalog.changes_since, self._serial
        )
        came: set[NormalizedName] = set()
        went: set[NormalizedName] = set()
        for number, change in enumerate(await changes, 1):
            was_named = self._is_named(change.name)
            self._follow(change)
            if was_named is not (is_named := self._is_named(change.name)):
                (came if is_named else went).add(change.name)
            if number % _MOST_AT_ONCE == 0:
                # Whoever asks something meanwhile waits for this flight, and for nothing longer.
                await asyncio.sleep(0)
        self._rename(came, went)
        self.seen = seen

    def _is_named(self, name: NormalizedName) -> bool:
        return name in self.counts and name not in self.quarantined

    def _follow(self, change: Change) -> None:
        name = change.name
        self._serial = max(self._serial, change.serial)
        self.files += change.files - self.counts.pop(name, 0)
        if change.files:
            self.counts[name] = change.files
        self.quarantined.discard(name)
        if change.status is Status.QUARANTINED:
            self.quarantined.add(name)
        self.serials.pop(name, None)
        if change.files or name in self.quarantined:
            self.serials[name] = change.serial

    def _rename(self, came: Collection[NormalizedName], went: Collection[NormalizedName]) -> None:
        if came or went:
            self.names_version += 1
        if len(went) > _FEW:
            self.names = [name for name in self.names if name not in went]
        else:
            for name in went:
                del self.names[bisect_left(self.names, name)]
        if len(came) > _FEW:
            # Nearly sorted is quickly sorted.
            self.names = sorted([*self.names, *sorted(came)])
        else:
            for name in came:
                insort(self.names, name)
