"""Notices what people copy into the package directories and delete from them.

The system's notifications bring changes within a tenth of a second. They miss network shares and overflow, so
everything is also compared from time to time, as often as that is cheap.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from watchfiles import Change, awatch

from pypiserver_ng.errors import Failure

_log = logging.getLogger(__name__)

_STEP_MS = 50
_DEBOUNCE_MS = 300
#: Comparing everything takes at most this share of one core.
_SCAN_SHARE = 0.02
_SCAN_SECONDS = (1.0, 60.0)

#: Called with (root, path) pairs to look at, or None to compare everything.
Compare = Callable[[Sequence[tuple[str, str]] | None], Awaitable[None]]


class Watcher:
    def __init__(self, roots: Sequence[str], compare: Compare) -> None:
        self._roots = roots
        self._compare = compare

    async def run(self, *, compare_first: bool) -> None:
        """Until cancelled."""
        await asyncio.gather(self._follow(), self._rescan(0.0 if compare_first else _SCAN_SECONDS[0]))

    async def _follow(self) -> None:
        while True:
            try:
                async for changes in awatch(
                    *self._roots,
                    watch_filter=self._is_ours,
                    step=_STEP_MS,
                    debounce=_DEBOUNCE_MS,
                    ignore_permission_denied=True,
                ):
                    await self._guarded([pair for _, path in changes for pair in self._locate(path)])
                return
            except (OSError, RuntimeError) as fault:
                _log.warning("changes are noticed by comparing only: %s", fault)
                await asyncio.sleep(_SCAN_SECONDS[1])

    async def _rescan(self, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            start = time.monotonic()
            await self._guarded(None)
            pause = min(max((time.monotonic() - start) / _SCAN_SHARE, _SCAN_SECONDS[0]), _SCAN_SECONDS[1])

    async def _guarded(self, paths: Sequence[tuple[str, str]] | None) -> None:
        # One bad moment (a full disk, a share that hangs) must not end the watching.
        try:
            await self._compare(paths)
        except Failure as fault:
            _log.warning("what changed in the package directories cannot be recorded: %s", fault.message)
        except Exception:
            _log.exception("comparing the package directories failed; it is tried again")

    def _is_ours(self, _change: Change, path: str) -> bool:
        return any("/." not in f"/{inner}" for _, inner in self._locate(path))

    def _locate(self, path: str) -> list[tuple[str, str]]:
        # One directory may lie inside another that is served too.
        return [(root, path[len(root) + 1 :]) for root in self._roots if path.startswith(f"{root}/")]
