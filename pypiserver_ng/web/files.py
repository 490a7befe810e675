"""`/packages/<path>` and `<path>.metadata`: the bytes of a distribution and of its core metadata.

Never compressed, never a type that a browser renders: clients check the raw bytes, and uploads are hostile.
"""

import asyncio
import logging
import os
from email.utils import formatdate

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng.auth import Gate
from pypiserver_ng.index import Index
from pypiserver_ng.model import Action, File
from pypiserver_ng.web import http
from pypiserver_ng.web.ranges import Unsatisfiable, choose_range, is_unmodified_since, may_proceed, may_resume

_log = logging.getLogger(__name__)

_YEAR = 31_536_000
#: Bytes read at once: large enough for speed, small enough for a thousand slow downloads at a time.
_CHUNK = 1 << 16
_TYPES = {".gz": b"application/gzip", ".tgz": b"application/gzip", ".zip": b"application/zip"}


class FileDownload:
    """GET /packages/<path>."""

    def __init__(self, index: Index, gate: Gate, cache_control: bytes) -> None:
        self._index = index
        self._gate = gate
        self._cache_control = cache_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gate.authorize(Action.DOWNLOAD, http.header(scope, b"authorization"))
        path: str = scope["path_params"]["path"]
        if path.endswith(".metadata"):
            await self._send_metadata(scope, send, path.removesuffix(".metadata"))
            return
        file, fd = await self._index.open_file(path)
        try:
            await self._send_file(scope, receive, send, file, fd)
        finally:
            os.close(fd)

    async def _send_metadata(self, scope: Scope, send: Send, path: str) -> None:
        file, content = await self._index.metadata_file(path)
        etag = b'"%s"' % (file.metadata_sha256 or "").encode()
        shared: http.Headers = [(b"etag", etag), (b"cache-control", self._cache_control)]
        if (tags := http.header(scope, b"if-none-match")) is not None and http.matches(tags, etag):
            await _send_empty(send, 304, shared)
            return
        await http.send_bytes(send, 200, content, b"text/plain; charset=utf-8", shared)

    async def _send_file(self, scope: Scope, receive: Receive, send: Send, file: File, fd: int) -> None:
        etag = b'"%s"' % file.digests.sha256.encode()
        mtime = file.mtime_ns // 10**9
        modified = formatdate(mtime, usegmt=True).encode()
        shared: http.Headers = [
            (b"etag", etag),
            (b"last-modified", modified),
            (b"cache-control", self._cache_control),
            (b"accept-ranges", b"bytes"),
        ]
        if not may_proceed(http.header(scope, b"if-match"), http.header(scope, b"if-unmodified-since"), etag, mtime):
            await _send_empty(send, 412, shared)
            return
        if _is_known(scope, etag, mtime):
            await _send_empty(send, 304, shared)
            return
        # "A server MUST ignore a Range header field received with a request method … for which range handling
        # is not defined. For this specification, GET is the only method".
        asked = http.header(scope, b"range") if scope["method"] == "GET" else None
        if asked is not None and not may_resume(http.header(scope, b"if-range"), etag, modified):
            asked = None
        try:
            part = choose_range(asked, file.size)
        except Unsatisfiable:
            await _send_empty(send, 416, [*shared, (b"content-range", b"bytes */%d" % file.size)])
            return
        first, end = part or (0, file.size)
        headers: http.Headers = [
            (b"content-type", _content_type(file)),
            (b"content-length", b"%d" % (end - first)),
            *shared,
            (b"x-content-type-options", b"nosniff"),
            (b"content-disposition", b"attachment"),
        ]
        if part:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (first, end - 1, file.size)))
        await send({"type": "http.response.start", "status": 206 if part else 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
        else:
            await self._stream(receive, send, fd, first, end)

    async def _stream(self, receive: Receive, send: Send, fd: int, first: int, end: int) -> None:
        gone: asyncio.Task[None] | None = None
        try:
            while first < end:
                block = await self._index.read(fd, min(_CHUNK, end - first), first)
                if not block:
                    # The server closes the connection: the client must see a broken transfer, not a short file.
                    _log.warning("a file became shorter while it was sent")
                    return
                first += len(block)
                await send({"type": "http.response.body", "body": block, "more_body": first < end})
                if first < end:
                    gone = gone or asyncio.create_task(_wait_for_disconnect(receive))
                    if gone.done():
                        return
            if end == 0:
                await send({"type": "http.response.body"})
        finally:
            if gone is not None:
                gone.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_known(scope: Scope, etag: bytes, mtime: int) -> bool:
    # "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header field"
    if (tags := http.header(scope, b"if-none-match")) is not None:
        return http.matches(tags, etag)
    return is_unmodified_since(http.header(scope, b"if-modified-since"), mtime)


def _content_type(file: File) -> bytes:
    return _TYPES.get(os.path.splitext(file.filename)[1].lower(), b"application/octet-stream")  # noqa: PTH122


async def _send_empty(send: Send, status: int, headers: http.Headers) -> None:
    length: http.Headers = [] if status == 304 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body"})


def make_cache_control(age: int | None, *, overwrite: bool, private: bool) -> bytes:
    """Ages of a download: what is behind a URL never changes, unless files may be overwritten."""
    scope = b"private" if private else b"public"
    if age is not None:
        return b"%s, max-age=%d" % (scope, age)
    return b"%s, no-cache" % scope if overwrite else b"%s, max-age=%d, immutable" % (scope, _YEAR)


def routes(index: Index, gate: Gate, cache_control: bytes) -> list[BaseRoute]:
    return [Route("/packages/{path:path}", FileDownload(index, gate, cache_control), methods=["GET"])]
