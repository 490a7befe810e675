"""Notices what people copy into the package directories and delete from them.

The system's notifications bring changes within a tenth of a second. They miss network shares and overflow, so
everything is also compared from time to time, as often as that is cheap.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from pypiserver_ng.errors import Failure
from pypiserver_ng.index.inotify import Notices

_log = logging.getLogger(__name__)

#: Changes come in crowds: so long nothing more must have come, and so long nobody waits for that.
_STEP_SECONDS = 0.05
_DEBOUNCE_SECONDS = 0.3
#: Comparing everything takes at most this share of one core, as far as that allows to do it often enough.
_SCAN_SHARE = 0.02
_SCAN_SECONDS = (1.0, 600.0)
#: How long to wait before asking the system again to tell of changes.
_RETRY_SECONDS = 60.0

#: Called with (root, path) pairs to look at, or None to compare everything.
Compare = Callable[[Sequence[tuple[str, str]] | None], Awaitable[None]]

_Run = Callable[[Callable[[], Any]], Awaitable[Any]]


class Watcher:
    def __init__(self, roots: Sequence[str], compare: Compare) -> None:
        self._roots = roots
        self._compare = compare
        #: Set once the system tells of changes, or it is known that it does not.
        self._begun = asyncio.Event()

    async def run(self, *, compare_first: bool) -> None:
        """Until cancelled."""
        await asyncio.gather(self._follow(), self._rescan(0.0 if compare_first else _SCAN_SECONDS[0]))

    async def _follow(self) -> None:
        while True:
            try:
                notices = Notices(self._roots)
                with _running(notices) as run:
                    await self._heed(notices, run)
            except OSError as fault:
                _log.warning("changes are noticed by comparing only: %s", fault.strerror)
            self._begun.set()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _heed(self, notices: Notices, run: _Run) -> None:
        await run(notices.watch)
        if self._begun.is_set():
            # Nobody told of what happened since the last time.
            await self._guarded(None)
        self._begun.set()
        while True:
            await _wait_for(notices)
            changed = await run(notices.read)
            deadline = time.monotonic() + _DEBOUNCE_SECONDS
            while changed and time.monotonic() < deadline:
                await asyncio.sleep(_STEP_SECONDS)
                more = await run(notices.read)
                if more == set():
                    break
                changed = None if more is None else changed | more
            if changed is None:
                await self._guarded(None)
            elif pairs := [pair for path in changed for pair in self._locate(path)]:
                await self._guarded(pairs)

    async def _rescan(self, pause: float) -> None:
        # What changes before anybody tells of it must not wait for the next time.
        await self._begun.wait()
        while True:
            await asyncio.sleep(pause)
            start, worked = time.monotonic(), time.process_time()
            await self._guarded(None)
            # Where the disk is what takes so long, it gets a rest too.
            pause = max((time.process_time() - worked) / _SCAN_SHARE, time.monotonic() - start)
            pause = min(max(pause, _SCAN_SECONDS[0]), _SCAN_SECONDS[1])

    async def _guarded(self, paths: Sequence[tuple[str, str]] | None) -> None:
        # One bad moment (a full disk, a share that hangs) must not end the watching.
        try:
            await self._compare(paths)
        except Failure as fault:
            _log.warning("what changed in the package directories cannot be recorded: %s", fault.message)
        except Exception:
            _log.exception("comparing the package directories failed; it is tried again")

    def _locate(self, path: str) -> list[tuple[str, str]]:
        # One directory may lie inside another that is served too.
        return [(root, path[len(root) + 1 :]) for root in self._roots if path.startswith(f"{root}/")]


@contextmanager
def _running(notices: Notices) -> Iterator[_Run]:
    """A thread for what blocks, which closes the notices at the end: never while they are in use."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="watching")
    try:
        yield partial(asyncio.get_running_loop().run_in_executor, thread)
    finally:
        thread.submit(notices.close)
        thread.shutdown(wait=False)


async def _wait_for(notices: Notices) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(notices.fileno(), told.set)
    try:
        await told.wait()
    finally:
        loop.remove_reader(notices.fileno())
