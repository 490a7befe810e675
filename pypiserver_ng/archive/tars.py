"""Tar archives by POSIX ustar and pax, with GNU long names, member by member over a bounded stream.

Where two readers of a tar could see different members, it is refused. The standard library's reader is not used: it
reads an extension header of any length into memory.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from pypiserver_ng.archive.streams import Stream
from pypiserver_ng.errors import Invalid

_BLOCK = 512
_END = bytes(_BLOCK)
#: Members and extension headers together: many tools write one of these for each of those.
_MAX_HEADERS = 100_000
#: Longest pax or long name header, and all of them together, in bytes.
_MAX_EXTENSION = 64 * 2**10
_MAX_EXTENSIONS = 8 * 2**20
_OCTAL = re.compile(rb"\A *([0-7]*)[ \0]*\Z")
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=]+)=")


class Type(Enum):
    """What a member is."""

    FILE = auto()
    HARDLINK = auto()
    SYMLINK = auto()
    DIRECTORY = auto()


_TYPES = {
    b"0": Type.FILE,
    b"\0": Type.FILE,
    b"1": Type.HARDLINK,
    b"2": Type.SYMLINK,
    b"5": Type.DIRECTORY,
}


_GNU = {b"L": "path", b"K": "linkpath"}


class Entry(NamedTuple):
    """One member; its `size` bytes are the next in the stream."""

    path: str
    type: Type
    size: int
    target: str


class _Extensions:
    """What extension headers say of the member that follows them."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self._kinds: set[bytes] = set()
        self._total = 0

    def take(self) -> dict[str, bytes]:
        """The values for the next member, which end with it."""
        values, self.values, self._kinds = self.values, {}, set()
        return values

    def read(self, stream: Stream, kind: bytes, size: int) -> None:
        self._total += size
        if size > _MAX_EXTENSION or self._total > _MAX_EXTENSIONS:
            raise Invalid("The archive has too long an extension header")
        payload = stream.read(size)
        stream.skip(-size % _BLOCK)
        if len(payload) < size:
            raise Invalid("The archive is cut short: its last member does not end")
        found = _parse_pax(payload) if kind in b"xg" else {_GNU[kind]: payload.partition(b"\0")[0]}
        if any(key.startswith("GNU.sparse") for key in found):
            raise Invalid("The archive has a sparse member")
        if kind == b"g":
            if not found.keys().isdisjoint(("path", "linkpath", "size")):
                raise Invalid("The archive has one name for all its members")
            return
        if kind in self._kinds or b"x" in self._kinds or (self._kinds and kind == b"x"):
            raise Invalid("The archive has a member with two extension headers")
        self._kinds.add(kind)
        self.values |= found


def walk(stream: Stream) -> Iterator[Entry]:
    """The members in order, up to the end-of-archive block. Raises Invalid.

    Between two steps the caller may read the member's bytes from the stream.
    """
    extensions = _Extensions()
    for _ in range(_MAX_HEADERS):
        block = stream.read(_BLOCK)
        if len(block) < _BLOCK:
            raise Invalid("The archive is cut short: it has no end-of-archive block")
        if block == _END:
            if extensions.values:
                raise Invalid("The archive ends after an extension header")
            return
        kind, size = _check_header(block)
        if kind in b"xgLK":
            extensions.read(stream, kind, size)
            continue
        end = stream.position + size + -size % _BLOCK
        yield _read_entry(block, kind, size, extensions.take())
        stream.skip(end - stream.position)
    raise Invalid(f"The archive has more than {_MAX_HEADERS} members")


def is_header(block: bytes) -> bool:
    """Whether a tar could begin with these 512 bytes."""
    try:
        return len(block) == _BLOCK and bool(_check_header(block))
    except Invalid:
        return False


def _check_header(block: bytes) -> tuple[bytes, int]:
    """Type flag and size. "The checksum field is treated as if it were filled with spaces"."""
    if _parse_number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise Invalid("The archive is not a tar, or damaged: a header's checksum is wrong")
    if block[257:265] not in {b"ustar\x0000", b"ustar  \0", bytes(8)}:
        raise Invalid("The archive has a tar header of an unknown format")
    return block[156:157], _parse_number(block[124:136])


def _parse_number(raw: bytes) -> int:
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    octal = _OCTAL.match(raw)
    if octal is None:
        raise Invalid("The archive is not a tar, or damaged: a header has a malformed number")
    return int(octal[1] or b"0", 8)


def _read_entry(block: bytes, kind: bytes, size: int, extensions: dict[str, bytes]) -> Entry:
    path = block[:100].partition(b"\0")[0]
    if block[257:263] != b"ustar\0" and any(block[345:500]):
        # Some readers put it before the name all the same.
        raise Invalid("The archive has a member with a name in two parts")
    if _TYPES.get(kind) is Type.FILE and path.endswith(b"/") and (size or extensions):
        # Some readers take this for a directory, whatever the extension says, and read its content as headers.
        raise Invalid("The archive has a member that is a file and a directory")
    if block[257:263] == b"ustar\0" and block[345]:
        path = block[345:500].partition(b"\0")[0] + b"/" + path
    path = extensions.get("path", path)
    target = extensions.get("linkpath", block[157:257].partition(b"\0")[0])
    if extensions.get("size", b"%d" % size) != b"%d" % size:
        raise Invalid("The archive has a member with two sizes")
    if kind == b"S":
        raise Invalid("The archive has a sparse member")
    if kind not in _TYPES:
        raise Invalid("The archive has a member that is no file, directory or link")
    # "for backward compatibility", a regular file whose name ends in a slash is a directory.
    type_ = Type.DIRECTORY if _TYPES[kind] is Type.FILE and path.endswith(b"/") else _TYPES[kind]
    if size and type_ is not Type.FILE:
        raise Invalid("The archive has a directory or a link with content")
    return Entry(_decode(path).removeprefix("./"), type_, size, _decode(target))


def _decode(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _parse_pax(payload: bytes) -> dict[str, bytes]:
    """Records of "<length> <keyword>=<value>" and a newline; the length counts the whole record."""
    values: dict[str, bytes] = {}
    at = 0
    while at < len(payload):
        record = _PAX_RECORD.match(payload, at)
        end = at + int(record[1]) if record else 0
        if record is None or end <= record.end() or payload[end - 1 : end] != b"\n":
            raise Invalid("The archive has a malformed pax header")
        key = _decode(record[2])
        if key in values:
            raise Invalid("The archive has a pax header with a repeated keyword")
        values[key] = payload[record.end() : end - 1]
        at = end
    return values
