"""Takes connections from a socket that other processes take from too, so that each of them gets its share.

An event loop's own server takes whatever waits, and the first process to wake takes all of a burst. Here connections
are taken one at a time, and a process that has more of them than another lets the others go first. It must not know
what a connection is for.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

_log = logging.getLogger(__name__)

#: Seconds that others get to take what waits; if they do not, they are busy.
_COURTESY_SECONDS = 0.001
#: Seconds until it is tried again to take a connection where the system allows none.
_PAUSE_SECONDS = 1.0
#: Seconds for a client to begin with TLS.
_HANDSHAKE_SECONDS = 10.0
#: Seconds for it to take what is left when its connection ends; whoever takes nothing is given up earlier.
_PARTING_SECONDS = 300.0


class Acceptor:
    """In the place of an `asyncio.Server`."""

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        has_its_share: Callable[[int], bool],
        has_room: Callable[[int], bool] = lambda _opening: True,
        choose_context: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        """Both questions about shares and room are given how many connections are taken and not made yet.

        Each connection begins with the context that is chosen for it, and without TLS where that is None.
        """
        listening.setblocking(False)
        self._listening = listening
        self._make = make
        self._has_its_share = has_its_share
        self._has_room = has_room
        self._choose_context = choose_context
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[object]] = set()
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._listening, self._consider)

    def _consider(self) -> None:
        if self._has_its_share(len(self._opening)):
            self._wait(_COURTESY_SECONDS)
        else:
            self._take()

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._waiting = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._listen()
        # Whatever waits still has waited long enough.
        self._take()

    def _take(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            # Another process was quicker, or the client has left.
            return
        except OSError as fault:
            _log.warning("no connection can be taken now: %s", fault.strerror)
            self._wait(_PAUSE_SECONDS)
            return
        if not self._has_room(len(self._opening)):
            connection.close()
            return
        connection.setblocking(False)
        opening: asyncio.Task[object] = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        context = self._choose_context()
        if context is None:
            await self._loop.connect_accepted_socket(self._make, connection)
            return
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                connection,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_PARTING_SECONDS,
            )
        except OSError as fault:
            # A client that speaks no TLS, trusts another certificate, or has left.
            _log.debug("a connection did not come to be: %s", fault)

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._loop.remove_reader(self._listening)
        if self._choose_context() is not None:
            # Whoever is in the middle of a handshake has asked for nothing yet.
            for opening in self._opening:
                opening.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._opening, return_exceptions=True)
