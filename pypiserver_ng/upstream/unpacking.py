"""A page's content coding undone within limits, in pieces that keep nobody waiting. Knows no HTTP but the names."""

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from pypiserver_ng.archive.streams import Inflater
from pypiserver_ng.errors import UpstreamFailed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Bytes of a page, unpacked; the largest of the public index has an eighth of it.
LONGEST_PAGE = 64 * 2**20
#: What a page is asked for with.
CODINGS = "zstd, gzip, deflate"

_PIECE = 2**18
#: Streams of one body: they may hold nothing, and then no limit of size ends them.
_MOST_STREAMS = 100
#: RFC 9659: "decoders … MUST limit the window size to 8 MB"; the library would take 128.
_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _open_deflate(first: bytes) -> _Decompressor:
    """RFC 9110 means a zlib stream, and some send a bare one; a zlib header's first byte ends with 8."""
    return Inflater(zlib.MAX_WBITS if first[:1] and first[0] & 0x0F == 8 else -zlib.MAX_WBITS)


_OPENERS: dict[str, Callable[[bytes], _Decompressor]] = {
    "gzip": lambda _: Inflater(16 + zlib.MAX_WBITS),
    "x-gzip": lambda _: Inflater(16 + zlib.MAX_WBITS),
    "deflate": _open_deflate,
    "zstd": lambda _: zstd.ZstdDecompressor(options=_WINDOW),
}


class Unpacker:
    """Takes a body's bytes in order; `coding` is the whole Content-Encoding header, in lower case."""

    def __init__(self, coding: str, limit: int = LONGEST_PAGE) -> None:
        if coding not in {"", "identity"} and coding not in _OPENERS:
            raise UpstreamFailed("has packed its answer in a way that was not asked for")
        self._open = _OPENERS.get(coding)
        self._decompressor: _Decompressor | None = None
        self._limit = limit
        self._size = 0
        self._taken = 0
        self._streams = 0

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Pieces of at most 256 KiB where the body is packed. Raises UpstreamFailed."""
        if self._open is None:
            yield self._count(data)
            return
        self._taken += len(data)
        if self._taken > self._limit:
            raise UpstreamFailed("sent a packed answer that does not end")
        while data:
            if self._decompressor is None or self._decompressor.eof:
                # Streams may follow each other.
                self._decompressor = self._open(data)
                self._streams += 1
            if self._streams > _MOST_STREAMS:
                raise UpstreamFailed("sent a packed answer in too many pieces")
            yield from self._drain(self._decompressor, data)
            data = self._decompressor.unused_data if self._decompressor.eof else b""

    def finish(self) -> None:
        """Raises UpstreamFailed where the body ended too early."""
        if self._open is not None and not (self._decompressor and self._decompressor.eof):
            raise UpstreamFailed("ended its answer early")

    def _drain(self, decompressor: _Decompressor, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = decompressor.decompress(data, _PIECE)
            except (zlib.error, zstd.ZstdError, EOFError) as error:
                raise UpstreamFailed("sent a packed answer that is damaged") from error
            yield self._count(piece)
            data = b""
            if decompressor.eof or (decompressor.needs_input and len(piece) < _PIECE):
                return

    def _count(self, piece: bytes) -> bytes:
        self._size += len(piece)
        if self._size > self._limit:
            raise UpstreamFailed(f"sent a page of more than {self._limit // 2**20} MiB")
        return piece
