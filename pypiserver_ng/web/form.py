"""Reads an upload form in one pass: the one file goes to scratch while it is hashed, a few fields are kept.

The parser's callbacks are used directly: a ready-made form would take truncated bodies, the last of two filenames
and any content type. Specification: RFC 7578 (multipart/form-data).
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from pypiserver_ng.errors import Invalid, TooLarge
from pypiserver_ng.storage import Scratch

#: The fields the index asks about; thousands of others may come and are passed over.
KEPT = frozenset(
    {
        ":action",
        "protocol_version",
        "name",
        "version",
        "filetype",
        "sha256_digest",
        "md5_digest",
        "blake2_256_digest",
        "attestations",
    }
)
#: Bytes of a kept field; all but attestations are lines.
_MOST_FIELD = 64 * 1024
_MOST_ATTESTATIONS = 1024 * 1024
#: Bytes of everything that is not the file: descriptions of several MB are usual.
MOST_TEXT = 64 * 1024 * 1024
_MOST_PARTS = 20_000
_MOST_URLENCODED = 1000
#: Bytes gathered before a thread writes and hashes them: as much memory as a client that stalls can hold.
_BLOCK = 1 << 16


class ClientLeft(Exception):  # noqa: N818 - an outcome, not a fault
    """The connection closed before the form ended: there is nobody to answer."""


class Form:
    """The kept fields, and the file if there was one. The caller discards `scratch`."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.scratch: Scratch | None = None


#: Runs blocking work in a thread.
Run = Callable[..., Awaitable[Any]]


async def read_form(
    receive: Receive, content_type: bytes | None, form: Form, *, most: int, new_scratch: Callable[[], Scratch], run: Run
) -> None:
    """Fill `form` from the request's body; `most` is the file's size limit in bytes.

    Raises Invalid, TooLarge, ClientLeft, and what writing raises.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"application/x-www-form-urlencoded":
        await _read_urlencoded(receive, form)
        return
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise Invalid("the upload must be multipart/form-data with a boundary, as twine and uv send it")
    reader = _Reader(form, boundary, most)
    more = True
    while more:
        more = await _feed(receive, reader)
        await reader.flush(new_scratch, run, everything=not more)
    reader.finish()


async def _feed(receive: Receive, reader: "_Reader") -> bool:
    """Take what has come; tells if there is more. Nobody keeps the bytes while the client takes its time."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    reader.feed(message.get("body", b""))
    return bool(message.get("more_body", False))


async def _read_urlencoded(receive: Receive, form: Form) -> None:
    body = await read_body(receive, most=1024 * 1024)
    if body.count(b"&") >= _MOST_URLENCODED:
        raise Invalid(f"the form has more than {_MOST_URLENCODED} fields")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Invalid("the form is not valid UTF-8") from None
    for name, value in pairs:
        if name in KEPT:
            _keep(form, name, value)


async def read_body(receive: Receive, *, most: int) -> bytes:
    """A small body as a whole. Raises TooLarge, ClientLeft."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise TooLarge(f"the request is larger than {most} bytes")
    return bytes(body)


class _Reader:
    """Push parser for one multipart body. `feed` only gathers; `flush` writes."""

    def __init__(self, form: Form, boundary: bytes, most: int) -> None:
        self._form = form
        self._most = most
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._add_content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )
        self._ended = False
        self._parts = 0
        self._text = 0
        self._file_size = 0
        self._name = ""
        self._is_file = False
        self._has_file = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._value: bytearray | None = None
        self._gathered = bytearray()

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as fault:
            raise Invalid(f"the multipart form is malformed: {fault}") from None

    async def flush(self, new_scratch: Callable[[], Scratch], run: Run, *, everything: bool) -> None:
        if not self._has_file or (len(self._gathered) < _BLOCK and not everything):
            return
        form = self._form
        if form.scratch is None:
            form.scratch = new_scratch()
        block, self._gathered = self._gathered, bytearray()
        if everything:
            # Whoever takes the file next does so in a thread.
            form.scratch.hold(block)
        else:
            # A cancelled request must not close the file under the thread that writes it.
            await asyncio.shield(asyncio.ensure_future(run(form.scratch.write, block)))

    def finish(self) -> None:
        if not self._ended:
            raise Invalid("the form ends before its last boundary: the upload was cut short")

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise Invalid(f"the form has more than {_MOST_PARTS} fields")
        self._headers = {}

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        name = bytes(self._header_name).lower()
        if name in self._headers:
            raise Invalid("a part of the form has the same header twice")
        self._headers[name] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _begin_content(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        read = _read_disposition if len(disposition) > _MOST_REMEMBERED else _remember_disposition
        self._name, filename = read(disposition)
        self._is_file = self._name == "content"
        self._value = bytearray() if self._name in KEPT else None
        if not self._is_file:
            return
        if self._has_file:
            raise Invalid("the form has two files: send one upload at a time")
        if filename is None:
            raise Invalid("the field 'content' has no filename: send the distribution file in it")
        self._has_file = True
        self._form.filename = _decode(filename, "the filename")

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file_size += end - start
            if self._file_size > self._most:
                raise TooLarge(f"the file is larger than this index takes ({self._most} bytes)")
            self._gathered += memoryview(data)[start:end]
            return
        self._text += end - start
        if self._text > MOST_TEXT:
            raise TooLarge(f"the form's text is larger than {MOST_TEXT} bytes")
        if self._value is not None:
            most = _MOST_ATTESTATIONS if self._name == "attestations" else _MOST_FIELD
            if len(self._value) + end - start > most:
                raise Invalid(f"the field {self._name!r} is longer than {most} bytes")
            self._value += data[start:end]

    def _end_part(self) -> None:
        if self._value is not None:
            _keep(self._form, self._name, _decode(bytes(self._value), f"the field {self._name!r}"))
            self._value = None

    def _end(self) -> None:
        self._ended = True


def _read_disposition(disposition: bytes) -> tuple[str, bytes | None]:
    """A part's name, and its filename if it has one."""
    kind, options = parse_options_header(disposition)
    if kind != b"form-data" or b"name" not in options:
        raise Invalid("a part of the form has no name")
    filenames = disposition.lower().count(b"filename=")
    if filenames > 1 or disposition.lower().count(b"name=") > 1 + filenames:
        raise Invalid("a part of the form has two names")
    return _decode(options[b"name"], "a field's name"), options.get(b"filename")


#: Every upload has the same fields.
_remember_disposition = lru_cache(256)(_read_disposition)
_MOST_REMEMBERED = 80


def _keep(form: Form, name: str, value: str) -> None:
    value = value.strip()
    # "UNKNOWN" is what old build tools wrote for "nothing".
    if not value or value == "UNKNOWN":
        return
    if name in form.fields:
        raise Invalid(f"the form has the field {name!r} twice")
    form.fields[name] = value


def _decode(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{what} is not valid UTF-8") from None
