"""Zip files by APPNOTE 6.3: the central directory, members within limits, and a framing that every reader sees alike.

Knows nothing of wheels and sdists. The standard library's reader is not used: it passes over whatever contradicts
the central directory.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pypiserver_ng.archive.streams import Truncated
from pypiserver_ng.archive.tree import quote
from pypiserver_ng.errors import Invalid

LOCAL = b"PK\x03\x04"
_CENTRAL = b"PK\x01\x02"
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"

_LOCAL_HEADER = struct.Struct("<4s2x2H4x3L2H")
_CENTRAL_HEADER = struct.Struct("<4sxB2x2H4x3L4H2x2L")
_END_RECORD = struct.Struct("<4s4H2LH")
_END64_RECORD = struct.Struct("<4sQ4x2L4Q")
_LOCATOR64_RECORD = struct.Struct("<4sLQL")

#: The end record with the longest comment, and what zip64 puts before it.
_TAIL = _END_RECORD.size + 0xFFFF + _LOCATOR64_RECORD.size + _END64_RECORD.size
#: The largest known wheels have about 15,000 members; a thousand of them take a MiB of memory.
_MAX_MEMBERS = 50_000
#: Length of the central directory in bytes.
_MAX_DIRECTORY = 8 * 2**20
#: Bytes that a local header takes with a usual name and extra field.
LONGEST_LOCAL = 4096
_MAX16, _MAX32 = 0xFFFF, 0xFFFF_FFFF
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_DESCRIPTOR, _UTF8 = 0x0008, 0x0800
_STORED, _DEFLATED = 0, 8
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_UNIX = 3
_CHUNK = 256 * 2**10


class Member(NamedTuple):
    """One entry of the central directory. `mode` is the Unix mode, 0 where the writer gave none."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


class Directory(NamedTuple):
    """The members, and the offsets in bytes where the central directory begins and its end record ends."""

    members: list[Member]
    start: int
    end: int
    comment: bytes


class _End(NamedTuple):
    entries: int
    length: int
    start: int
    end: int
    comment: bytes


def read_directory(file: BinaryIO, size: int) -> Directory:
    """Read the central directory of a file of `size` bytes; bytes after its end are allowed.

    Raises Truncated where no end record is found that fits the file, Invalid where the directory is damaged.
    """
    end = _find_end(file, size)
    if end.entries > _MAX_MEMBERS:
        raise Invalid(f"The archive has more than {_MAX_MEMBERS} members")
    if end.length > _MAX_DIRECTORY:
        raise Invalid(f"The archive's zip directory is larger than {_MAX_DIRECTORY // 2**20} MiB")
    file.seek(end.start)
    return Directory(_parse_directory(file.read(end.length), end.entries), end.start, end.end, end.comment)


def _find_end(file: BinaryIO, size: int) -> _End:
    """The last end record that describes a directory right before it, with offsets that count from the file's begin."""
    base = max(0, size - _TAIL)
    file.seek(base)
    tail = file.read(_TAIL)
    at = tail.rfind(_END)
    while at >= 0:
        if end := _parse_end(tail, at, base):
            return end
        at = tail.rfind(_END, 0, at)
    raise Truncated("The archive is cut short: it has no zip directory at its end")


def is_zip(file: BinaryIO, size: int) -> bool:
    """Whether any reader could take the file for a zip: an end record near its end, with a directory before it or none.

    By chance four bytes of an archive look like its begin; that the rest of it fits as well is no chance.
    """
    base = max(0, size - _TAIL)
    file.seek(base)
    tail = file.read(_TAIL)
    at = tail.rfind(_END)
    while at >= 0:
        if at + _END_RECORD.size <= len(tail):
            _, _, _, _, entries, length, _, _ = _END_RECORD.unpack_from(tail, at)
            file.seek(max(0, base + at - length))
            before = tail[max(0, at - _LOCATOR64_RECORD.size) : at]
            if file.read(4) == _CENTRAL or before.startswith(_LOCATOR64) or entries == length == 0:
                return True
        at = tail.rfind(_END, 0, at)
    return False


def _parse_end(tail: bytes, at: int, base: int) -> _End | None:
    if at + _END_RECORD.size > len(tail):
        return None
    record = _END_RECORD.unpack_from(tail, at)
    _, disk, directory_disk, here, count, length, start, comment_length = record
    end = at + _END_RECORD.size + comment_length
    before = at
    if tail[max(0, at - _LOCATOR64_RECORD.size) : at].startswith(_LOCATOR64):
        before = at - _LOCATOR64_RECORD.size - _END64_RECORD.size
        wide = _parse_end64(tail, before, base) if before >= 0 else None
        narrow = (disk, directory_disk, here, count, length, start)
        limits = (_MAX16, _MAX16, _MAX16, _MAX16, _MAX32, _MAX32)
        if wide is None or any(n not in {w, limit} for n, w, limit in zip(narrow, wide, limits, strict=True)):
            return None
        disk, directory_disk, here, count, length, start = wide
    if disk or directory_disk or here != count or start + length != base + before or end > len(tail):
        return None
    return _End(count, length, start, base + end, tail[at + _END_RECORD.size : end])


def _parse_end64(tail: bytes, at: int, base: int) -> tuple[int, ...] | None:
    """The zip64 end record as (disk, disk of the directory, entries here, entries, length, start)."""
    magic, rest, *values = _END64_RECORD.unpack_from(tail, at)
    _, disk, offset, disks = _LOCATOR64_RECORD.unpack_from(tail, at + _END64_RECORD.size)
    fits = magic == _END64 and rest == _END64_RECORD.size - 12 and not disk and offset == base + at and disks <= 1
    return tuple(values) if fits else None


def _parse_directory(raw: bytes, count: int) -> list[Member]:
    members = []
    at = 0
    for _ in range(count):
        if raw[at : at + 4] != _CENTRAL or at + _CENTRAL_HEADER.size > len(raw):
            raise Invalid("The archive's zip directory is damaged")
        _, system, flags, method, crc, packed, size, *lengths, disk, attributes, offset = _CENTRAL_HEADER.unpack_from(
            raw, at
        )
        at += _CENTRAL_HEADER.size
        name_end = at + lengths[0]
        name = raw[at:name_end].decode(errors="surrogateescape")
        size, packed, offset = _widen(raw[name_end : name_end + lengths[1]], size, packed, offset)
        if disk:
            raise Invalid("The archive is one of several disks")
        at += sum(lengths)
        mode = attributes >> 16 if system == _UNIX else 0
        members.append(Member(name, flags, method, crc, packed, size, offset, mode))
    if at != len(raw):
        raise Invalid("The archive's zip directory has another length than its end record says")
    return members


def _widen(extra: bytes, *values: int) -> tuple[int, ...]:
    """Replace 32-bit values at their maximum by those of the zip64 extra field, which must hold exactly these.

    Bazel writes the field where nothing is at its maximum: then it must repeat the values.
    """
    wide = b""
    at = 0
    while at < len(extra):
        if at + 4 > len(extra):
            raise Invalid("The archive has a malformed extra field")
        tag, length = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + length]
        if len(field) < length or tag == _UNICODE_PATH or (tag == _ZIP64 and (wide or not field)):
            raise Invalid("The archive has a malformed or ambiguous extra field")
        wide = field if tag == _ZIP64 else wide
        at += 4 + length
    if _MAX32 not in values and wide == struct.pack(f"<{len(values)}Q", *values)[: len(wide)]:
        return values
    if len(wide) != 8 * values.count(_MAX32):
        raise Invalid("The archive has zip64 sizes that contradict the 32-bit ones")
    numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide))
    return tuple(next(numbers) if value == _MAX32 else value for value in values)


def check_framing(file: BinaryIO, size: int, directory: Directory) -> None:
    """Hold a zip to the one reading that all readers share. Raises Invalid.

    The local headers say what the directory says, the members follow each other without a gap from the first byte
    to the directory, and nothing follows the end record.
    """
    if directory.end != size:
        raise Invalid("The archive has bytes after its end")
    file.seek(size - len(directory.comment) - _END_RECORD.size)
    if file.read().rfind(_END) != 0:
        # A comment, also together with its length before it, can look like another end record.
        raise Invalid("The archive has bytes after its end")
    names: set[str] = set()
    at = 0
    for member in sorted(directory.members, key=lambda member: member.offset):
        _check_member(member)
        if member.name in names:
            raise Invalid(f"The archive has the member {quote(member.name)} twice")
        names.add(member.name)
        if member.offset != at:
            raise Invalid("The archive has bytes that belong to no member, or to two")
        at = _check_local(file, member) + member.packed
    if at != directory.start:
        raise Invalid("The archive has bytes that belong to no member, or to two")


def _check_member(member: Member) -> None:
    name = quote(member.name)
    if member.flags & _ENCRYPTED:
        raise Invalid(f"The archive has an encrypted member: {name}")
    if member.flags & _DESCRIPTOR:
        raise Invalid(f"The archive has a member with its size after its data (data descriptor): {name}")
    if member.method not in {_STORED, _DEFLATED}:
        raise Invalid(f"The archive has a member that is neither stored nor deflated: {name}")
    if member.method == _STORED and member.packed != member.size:
        raise Invalid(f"The archive has a stored member with two sizes: {name}")
    if not member.name.isascii() and not member.flags & _UTF8:
        raise Invalid(f"The archive has a member with a name that is not UTF-8: {name}")
    if any("\ud800" <= character <= "\udfff" for character in member.name):
        raise Invalid(f"The archive has a member with a name that is not UTF-8: {name}")


def _check_local(file: BinaryIO, member: Member) -> int:
    """Compare the local header with the directory; the offset where the member's data begins."""
    file.seek(member.offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(LOCAL):
        raise Invalid(f"The archive has no local header for {quote(member.name)}")
    _, flags, method, crc, packed, size, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    name = file.read(name_length).decode(errors="surrogateescape")
    size, packed = _widen(file.read(extra_length), size, packed)
    if (name, flags, method, crc, packed, size) != member[:6]:
        raise Invalid(f"The archive has two different headers for {quote(member.name)}")
    return file.tell()


def unpack(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """The member's bytes in pieces of at most 256 KiB, never more than its size.

    Raises Invalid where they do not have the size and the checksum that the directory says.
    """
    file.seek(member.offset)
    header = file.read(_LOCAL_HEADER.size)
    readable = not member.flags & _ENCRYPTED and member.method in {_STORED, _DEFLATED}
    if len(header) < _LOCAL_HEADER.size or not header.startswith(LOCAL) or not readable:
        raise Invalid(f"The archive has a member that cannot be read: {quote(member.name)}")
    file.seek(sum(_LOCAL_HEADER.unpack(header)[-2:]), 1)
    pieces = _read_stored if member.method == _STORED else _inflate
    crc = total = 0
    for piece in pieces(file, member.packed):
        crc = zlib.crc32(piece, crc)
        total += len(piece)
        if total > member.size:
            break
        yield piece
    if (crc, total) != (member.crc, member.size):
        raise Invalid(f"The archive has a damaged member: {quote(member.name)}")


def read(file: BinaryIO, member: Member, limit: int) -> bytes:
    """The bytes of one member. Raises Invalid if there are more than `limit`, or as `unpack` does."""
    if member.size > limit:
        raise Invalid(f"The archive has a member larger than {limit // 2**20} MiB: {quote(member.name)}")
    return b"".join(unpack(file, member))


def _read_stored(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length and (piece := file.read(min(_CHUNK, length))):
        length -= len(piece)
        yield piece


def _inflate(file: BinaryIO, length: int) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while length and not decompressor.eof:
            data = decompressor.unconsumed_tail
            if not data:
                data = file.read(min(_CHUNK, length))
                length -= len(data)
            if not data:
                break
            yield decompressor.decompress(data, _CHUNK)
        while decompressor.unconsumed_tail:
            yield decompressor.decompress(decompressor.unconsumed_tail, _CHUNK)
        yield decompressor.flush()
    except zlib.error as error:
        raise Invalid("The archive has a damaged member") from error
    if length or not decompressor.eof or decompressor.unused_data:
        raise Invalid("The archive has a member whose compressed data does not end where it should")
