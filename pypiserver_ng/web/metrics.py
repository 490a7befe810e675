"""`GET /-/metrics`: the numbers of the whole server, whichever of its processes answers."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from pypiserver_ng.counters import Counters, Totals
from pypiserver_ng.errors import Failure
from pypiserver_ng.index import Index
from pypiserver_ng.web import http


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told, as of one moment."""

    projects: int
    files: int
    #: The number of the last change.
    serial: int
    #: When the server started, in seconds since the epoch.
    started: float
    totals: Totals


class Metrics:
    """GET /-/metrics. Never needs credentials; names no project, no path and nobody."""

    def __init__(self, index: Index, counters: Counters) -> None:
        self._index = index
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        facts = await self._gather()
        # Formats have ASCII names; the rest of the header is nobody's.
        accept = (http.header(scope, b"accept") or b"").decode("ascii", "replace")
        content, content_type = await asyncio.to_thread(_write, facts, accept)
        await http.send_bytes(send, 200, content, content_type.encode(), [(b"cache-control", b"no-store")])

    async def _gather(self) -> Facts:
        # An index in trouble is what somebody may be looking for here.
        with suppress(Failure):
            await self._index.counts()
        projects, files = self._index.known_counts()
        self._counters.refresh()
        board = self._counters.board
        return Facts(projects, files, self._index.serial, board.started, board.add_up())


def _write(facts: Facts, accept: str) -> tuple[bytes, str]:
    # The library takes a tenth of a second and several megabytes: whoever is never asked does without it.
    from pypiserver_ng.web.exposition import write  # noqa: PLC0415

    return write(facts, accept)
