"""Sends the bytes of an open file: large blocks to clients that take them at once, small ones to everybody else.

What is in the system's memory costs no thread. A thousand slow readers hold a small block each, and all others share a
few large ones. It must not know what is sent.
"""

import asyncio
import logging
import weakref
from typing import Any

from starlette.types import Receive, Scope, Send

from pypiserver_ng.errors import Failure
from pypiserver_ng.index.opened import Opened

_log = logging.getLogger(__name__)

#: An extension of ASGI that our own server offers; see `server.cycle`.
_SENDFILE = "pypiserver_ng.sendfile"
#: A little more than the 64 KiB above which a transport tries at once to send what it is given.
_SMALL = 65 * 1024
#: Large enough for speed; to copy it keeps others waiting for a fifth of a millisecond.
_LARGE = 512 * 1024
#: Large blocks at a time: clients that stop after a good start hold no more than these.
_MOST = 16
#: Of them, those that are kept while nobody needs them.
_SPARE = 4


class _Block(bytearray):
    """A buffer. The transport keeps it until all of it is sent; its end can be waited for."""


class Sender:
    """Shared by all downloads of a process. Used on the event loop."""

    def __init__(self) -> None:
        self._spare: list[_Block] = []
        self._made: list[weakref.ref[_Block]] = []

    async def send(
        self, scope: Scope, receive: Receive, send: Send, opened: Opened, first: int, end: int | None
    ) -> None:
        """The body of an answer: the bytes from `first` to before `end`, which may be unknown.

        Where they cannot be had it is left unfinished, and the server closes the connection: the client must see a
        broken transfer, not a short file.
        """
        gone: asyncio.Task[None] | None = None
        passes = _SENDFILE in scope.get("extensions", ()) and end is not None and end - first > _SMALL
        is_quick, turn = False, 0
        try:
            while end is None or first < end:
                count, kept = (await _pass(send, opened, first, end) if passes and end else 0), None
                if not count:
                    count, kept = await self._send_block(send, opened, first, end, is_large=is_quick)
                    if first + count == end:
                        return
                first += count
                turn += count
                if not count:
                    break
                if gone is None and (end is None or end - first > _LARGE):
                    gone = asyncio.create_task(_wait_for_disconnect(receive))
                is_quick = kept is None
                if kept is not None:
                    # A slow reader holds one block, no more.
                    await kept.wait()
                    turn = 0
                elif turn >= _LARGE:
                    # A client that takes everything at once must not keep others from their turn.
                    await asyncio.sleep(0)
                    turn = 0
                if gone is not None and gone.done():
                    return
            if end is not None and first < end:
                _log.warning("%s became shorter while it was sent", opened.file.filename)
            else:
                await send(_body(b"", more=False))
        except Failure:
            # Said in the log where it happened.
            return
        finally:
            if gone is not None:
                gone.cancel()

    async def _send_block(
        self, send: Send, opened: Opened, first: int, end: int | None, *, is_large: bool
    ) -> tuple[int, asyncio.Event | None]:
        """How many bytes were sent, none at the end of the file.

        Where the client did not take them at once, also what tells that it did.
        """
        block = self._take(_LARGE if end is None else end - first, is_large=is_large)
        view = memoryview(block)[: None if end is None else end - first]
        count = opened.peek(view, first, end)
        if not count:
            # Not into the block itself: a thread may go on after who waits for it was cancelled.
            content = await opened.read(len(view), first, end)
            count = len(content)
            view[:count] = content
        if count:
            await send(_body(view[:count], more=first + count != end))
        view.release()
        if self._put_back(block):
            return count, None
        taken = asyncio.Event()
        weakref.finalize(block, taken.set).atexit = False
        return count, taken

    def _take(self, left: int, *, is_large: bool) -> _Block:
        if not is_large or left <= _SMALL:
            return _Block(min(left, _SMALL))
        if self._spare:
            return self._spare.pop()
        self._made = [made for made in self._made if made() is not None]
        if len(self._made) >= _MOST:
            return _Block(_SMALL)
        block = _Block(_LARGE)
        self._made.append(weakref.ref(block))
        return block

    def _put_back(self, block: _Block) -> bool:
        """Whether nobody keeps anything of it."""
        try:
            # What somebody has a view of cannot be resized.
            block.append(block.pop())
        except BufferError:
            return False
        if len(block) == _LARGE and len(self._spare) < _SPARE:
            self._spare.append(block)
        return True


async def _pass(send: Send, opened: Opened, first: int, end: int) -> int:
    """Has the system send a part of the file by itself; how many bytes it took, none where it cannot just now."""
    fd, count = opened.span(first, end)
    message = {"type": _SENDFILE, "file": fd, "offset": first, "count": count, "sent": 0}
    if count:
        await send(message)
    sent: int = message["sent"]  # type: ignore[assignment]
    return sent


def _body(content: bytes | memoryview, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
