"""The bridge between async and threads: blocking work of one sort, in threads of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")


class Threads:
    def __init__(self, count: int, name: str) -> None:
        self.executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self.executor, partial(function, *arguments))

    async def finish(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """As `run`, but who is cancelled waits for the thread first: what it works on may be closed afterwards."""
        future = asyncio.get_running_loop().run_in_executor(self.executor, partial(function, *arguments))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise

    def stop(self) -> None:
        """Blocks until what runs has ended."""
        self.executor.shutdown(cancel_futures=True)
