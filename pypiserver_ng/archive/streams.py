"""A compressed stream as a forward reader within limits. Knows nothing of what the bytes mean."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from pypiserver_ng.errors import Invalid

_INPUT = 64 * 2**10
_OUTPUT = 256 * 2**10
#: Enough for all presets but the last, `xz -9`, which needs 65 MiB.
_XZ_MEMORY = 40 * 2**20


class Truncated(Invalid):
    """The bytes begin as they should, and end too early."""


class Decompressor(Protocol):
    """What `bz2` and `lzma` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class Inflater:
    """zlib in the shape of a `Decompressor`, by default of gzip: its trailer's length and checksum are checked."""

    def __init__(self, wbits: int = 16 + zlib.MAX_WBITS) -> None:
        self._zlib = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


#: What such streams begin with.
GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
_DECOMPRESSORS: dict[bytes, Callable[[], Decompressor]] = {
    GZIP: Inflater,
    BZIP2: bz2.BZ2Decompressor,
    XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY),
}


class Stream:
    """Reads what one file unpacks to, at most `limit` bytes.

    With `single`, the file must end where the first compressed stream ends; otherwise streams may follow each
    other, and what follows the last is ignored. Reading raises Truncated or Invalid.
    """

    def __init__(self, file: BinaryIO, *, magic: bytes, limit: int, single: bool = False) -> None:
        file.seek(0)
        self._file = file
        self._magic = magic
        self._limit = limit
        self._single = single
        self._chunks = self._unpack()
        self._chunk = b""
        self._at = 0
        self._unpacked = 0

    @property
    def position(self) -> int:
        """Bytes read and skipped so far."""
        return self._unpacked - len(self._chunk) + self._at

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        if self._at + size <= len(self._chunk):
            self._at += size
            return self._chunk[self._at - size : self._at]
        return b"".join(self._take(size))

    def skip(self, size: int) -> None:
        """Pass over `size` bytes, or over all there are."""
        for _ in self._take(size):
            pass

    def drain(self) -> bool:
        """Read to the end of the file; whether all that was left were zeros."""
        zeros = True
        while chunk := self.read(_OUTPUT):
            zeros = zeros and not chunk.strip(b"\0")
        return zeros

    def _take(self, size: int) -> Iterator[bytes]:
        while size > 0 and (self._at < len(self._chunk) or self._refill()):
            piece = self._chunk[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def _refill(self) -> bool:
        self._chunk, self._at = next(self._chunks, b""), 0
        self._unpacked += len(self._chunk)
        if self._unpacked > self._limit:
            raise Invalid(f"The archive unpacks to more than {self._limit // 2**20} MiB")
        return bool(self._chunk)

    def _unpack(self) -> Iterator[bytes]:
        rest = b""
        while True:
            decompressor = _DECOMPRESSORS[self._magic]()
            while not decompressor.eof:
                data = b""
                if decompressor.needs_input:
                    data, rest = rest or self._file.read(_INPUT), b""
                chunk = _decompress(decompressor, data)
                if chunk:
                    yield chunk
                elif decompressor.needs_input and not data and not decompressor.eof:
                    raise Truncated("The archive is cut short: its compressed stream does not end")
            rest = decompressor.unused_data or self._file.read(_INPUT)
            if self._single and rest:
                raise Invalid("The archive has bytes after the end of its compressed stream")
            if not rest.startswith(self._magic):
                return


def _decompress(decompressor: Decompressor, data: bytes) -> bytes:
    try:
        return decompressor.decompress(data, _OUTPUT)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        if str(error) == "Memory usage limit exceeded":
            raise Invalid(f"The archive needs more than {_XZ_MEMORY // 2**20} MiB of memory to be unpacked") from error
        raise Invalid("The archive's compressed stream is damaged") from error
