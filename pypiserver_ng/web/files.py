"""`/packages/<path>` and `<path>.metadata`: the bytes of a distribution and of its core metadata.

Never compressed, never a type that a browser renders: clients check the raw bytes, and uploads are hostile.
"""

import os
from email.utils import formatdate
from functools import lru_cache

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng.auth import Gate
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.index import Index
from pypiserver_ng.index.opened import Opened
from pypiserver_ng.model import NormalizedName, Right, is_mirror_path
from pypiserver_ng.web import http
from pypiserver_ng.web.accel import Accel
from pypiserver_ng.web.failures import is_turned_away
from pypiserver_ng.web.ranges import Unsatisfiable, choose_range, is_unmodified_since, may_proceed, may_resume
from pypiserver_ng.web.sending import Sender

_YEAR = 31_536_000
_TYPES = {".gz": b"application/gzip", ".tgz": b"application/gzip", ".zip": b"application/zip"}


class FileDownload:
    """GET /packages/<path>."""

    def __init__(self, index: Index, gate: Gate, ages: "Ages", accel: Accel) -> None:
        self._index = index
        self._gate = gate
        self._ages = ages
        self._accel = accel
        self._sender = Sender()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path_params"]["path"]
        name, version = _read_filename(path.rpartition("/")[2])
        if await is_turned_away(scope, send, self._gate, Right.DOWNLOAD, name):
            return
        identity = await http.authorize(scope, self._gate, Right.DOWNLOAD, name)
        self._gate.require_version(version, identity)
        if path.endswith(".metadata"):
            await self._send_metadata(scope, send, path.removesuffix(".metadata"))
            return
        opened = await self._index.open_file(path)
        try:
            if location := self._accel.locate(scope, opened):
                await self._send_elsewhere(send, opened, location)
            else:
                await self._send_file(scope, receive, send, opened)
        finally:
            opened.close()

    async def _send_metadata(self, scope: Scope, send: Send, path: str) -> None:
        digest, content = await self._index.metadata_file(path)
        etag = b'"%s"' % digest.encode()
        shared: http.Headers = [(b"etag", etag), (b"cache-control", self._ages.choose(path))]
        if (tags := http.header(scope, b"if-none-match")) is not None and http.matches(tags, etag):
            await _send_empty(send, 304, shared)
            return
        await http.send_bytes(send, 200, content, b"text/plain; charset=utf-8", shared)

    async def _send_elsewhere(self, send: Send, opened: Opened, location: bytes) -> None:
        # Ranges and conditions are up to who sends the bytes: the validators are his own.
        await _send_empty(
            send,
            200,
            [
                (b"content-type", _content_type(opened.file.filename)),
                (b"cache-control", self._ages.choose(opened.file.path)),
                (b"content-disposition", b"attachment"),
                (b"x-accel-redirect", location),
            ],
        )

    async def _send_file(self, scope: Scope, receive: Receive, send: Send, opened: Opened) -> None:
        conditional = _Validators(opened)
        if (refusal := conditional.judge(scope)) is not None:
            await _send_empty(
                send, refusal, [*conditional.headers, (b"cache-control", self._ages.choose(opened.file.path))]
            )
            return
        is_head = scope["method"] == "HEAD"
        known = opened.sha256
        # From here on an upstream may be asked, and what it fails at can still be said.
        await (opened.measure() if is_head else opened.begin())
        if opened.sha256 != known:
            conditional = _Validators(opened)
        shared: http.Headers = [
            *conditional.headers,
            (b"cache-control", self._ages.choose(opened.file.path)),
            (b"accept-ranges", b"bytes"),
        ]
        # "A server MUST ignore a Range header field received with a request method … for which range handling
        # is not defined. For this specification, GET is the only method".
        asked = None if is_head or opened.size is None else http.header(scope, b"range")
        if asked is not None and not conditional.may_resume(scope):
            asked = None
        try:
            part = choose_range(asked, opened.size or 0)
        except Unsatisfiable:
            await _send_empty(send, 416, [*shared, (b"content-range", b"bytes */%d" % (opened.size or 0))])
            return
        first, end = part or (0, opened.size)
        headers: http.Headers = [
            (b"content-type", _content_type(opened.file.filename)),
            *shared,
            (b"x-content-type-options", b"nosniff"),
            (b"content-disposition", b"attachment"),
        ]
        if end is not None:
            headers.append((b"content-length", b"%d" % (end - first)))
        if part:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (*_inclusive(part), opened.size or 0)))
        await send({"type": "http.response.start", "status": 206 if part else 200, "headers": headers})
        if is_head:
            await send({"type": "http.response.body"})
        else:
            await self._sender.send(scope, receive, send, opened, first, end)


class _Validators:
    """What a client can compare its copy with."""

    def __init__(self, opened: Opened) -> None:
        self._etag = b'"%s"' % opened.sha256.encode() if opened.sha256 else b""
        self._mtime = opened.modified
        self._modified = _format_date(opened.modified) if opened.modified is not None else b""
        self.headers: http.Headers = []
        if self._etag:
            self.headers.append((b"etag", self._etag))
        if self._modified:
            self.headers.append((b"last-modified", self._modified))

    def judge(self, scope: Scope) -> int | None:
        """412 or 304 where the client's conditions ask for it (RFC 9110, 13.2.2)."""
        if not self._etag:
            return None
        # Nobody can have a newer copy of what has no date.
        mtime = self._mtime or 0
        unmodified_since = http.header(scope, b"if-unmodified-since") if self._modified else None
        if not may_proceed(http.header(scope, b"if-match"), unmodified_since, self._etag, mtime):
            return 412
        # "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header field"
        if (tags := http.header(scope, b"if-none-match")) is not None:
            return 304 if http.matches(tags, self._etag) else None
        since = http.header(scope, b"if-modified-since") if self._modified else None
        return 304 if is_unmodified_since(since, mtime) else None

    def may_resume(self, scope: Scope) -> bool:
        return may_resume(http.header(scope, b"if-range"), self._etag, self._modified)


def _inclusive(part: tuple[int, int]) -> tuple[int, int]:
    return part[0], part[1] - 1


@lru_cache(maxsize=4096)
def _read_filename(filename: str) -> tuple[NormalizedName | None, str]:
    """Of which project and version a file is, here or not; None where it is of none."""
    parsed = parse_found(filename.removesuffix(".metadata"))
    return (parsed.name, parsed.version) if parsed else (None, "")


@lru_cache(maxsize=4096)
def _format_date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


def _content_type(filename: str) -> bytes:
    return _TYPES.get(os.path.splitext(filename)[1].lower(), b"application/octet-stream")  # noqa: PTH122


async def _send_empty(send: Send, status: int, headers: http.Headers) -> None:
    length: http.Headers = [] if status == 304 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body"})


class Ages:
    """How long clients may keep a download: what is behind a URL never changes, unless files may be overwritten."""

    def __init__(self, age: int | None, *, overwrite: bool, private: bool) -> None:
        scope = b"private" if private else b"public"
        self._fixed = b"%s, max-age=%d, immutable" % (scope, _YEAR)
        self._changing = b"%s, no-cache" % scope
        if age is not None:
            self._fixed = self._changing = self._local = b"%s, max-age=%d" % (scope, age)
        else:
            self._local = self._changing if overwrite else self._fixed

    def choose(self, path: str) -> bytes:
        if not is_mirror_path(path):
            return self._local
        # Without a hash in it, a path stands for other bytes once its owner has the first ones forgotten.
        return self._changing if path.startswith("-/first-seen/") else self._fixed


def routes(index: Index, gate: Gate, ages: Ages, accel: Accel) -> list[BaseRoute]:
    return [Route("/packages/{path:path}", FileDownload(index, gate, ages, accel), methods=["GET"])]
