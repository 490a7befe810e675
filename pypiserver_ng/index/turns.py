"""Much to do, and not all at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


async def run_each(items: Sequence[_T], most: int, work: Callable[[_T], Awaitable[_R]]) -> list[_R]:
    """The results in order; so many at a time. What ends early ends all."""
    turns = asyncio.Semaphore(most)

    async def take_turn(item: _T) -> _R:
        async with turns:
            return await work(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(take_turn(item)) for item in items]
    return [task.result() for task in tasks]
