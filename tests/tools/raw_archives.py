"""Zip and tar files written field by field, so that a test can make one that no writer would write.

Knows the formats and nothing of wheels and sdists.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Member:
    """A zip member, written as told: `local` and `central` replace fields of its two headers.

    The fields are name, flags, method, crc, packed, size, extra and offset. `before` are bytes ahead of the local
    header; `packed` stands in for the compressed data.
    """

    name: bytes
    data: bytes = b""
    method: int = 0
    flags: int = 0
    mode: int = 0o100644
    extra: bytes = b""
    local: Mapping[str, Any] = field(default_factory=dict)
    central: Mapping[str, Any] = field(default_factory=dict)
    before: bytes = b""
    packed: bytes | None = None

    def pack(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == 8 else self.data


def deflate(data: bytes) -> bytes:
    """A raw deflated stream."""
    return zlib.compress(data, wbits=-15)


def make_zip(
    members: list[Member], *, gap: bytes = b"", comment: bytes = b"", suffix: bytes = b"", **end: int
) -> bytes:
    """A zip with `gap` before its directory and `suffix` after its end.

    `end` replaces fields of the end record: disk, start_disk, here, total, length, start, comment_length.
    """
    out = bytearray()
    directory = bytearray()
    for member in members:
        out += member.before
        packed = member.pack()
        fields = {
            "name": member.name,
            "flags": member.flags,
            "method": member.method,
            "crc": zlib.crc32(member.data),
            "packed": len(packed),
            "size": len(member.data),
            "extra": member.extra,
            "offset": len(out),
        }
        local, central = {**fields, **member.local}, {**fields, **member.central}
        out += b"PK\3\4" + _common(local) + local["name"] + local["extra"] + packed
        directory += b"PK\1\2" + struct.pack("<H", 20 | 3 << 8) + _common(central)
        directory += struct.pack("<6xLL", member.mode << 16, central["offset"]) + central["name"] + central["extra"]
    out += gap
    record = {"disk": 0, "start_disk": 0, "here": len(members), "total": len(members), "length": len(directory)}
    record |= {"start": len(out), "comment_length": len(comment)} | end
    return bytes(out + directory + b"PK\5\6" + struct.pack("<4H2LH", *record.values()) + comment + suffix)


def _common(fields: Mapping[str, Any]) -> bytes:
    """What local and central headers share."""
    sizes = (fields["crc"], fields["packed"], fields["size"], len(fields["name"]), len(fields["extra"]))
    return struct.pack("<3H4x3L2H", 20, fields["flags"], fields["method"], *sizes)


def put_before(prefix: bytes, content: bytes) -> bytes:
    """A zip after some other bytes, with every offset corrected."""
    end = content.rindex(b"PK\5\6")
    (start,) = struct.unpack_from("<L", content, end + 16)
    directory = bytearray(content[start:end])
    at = 0
    while at < len(directory):
        (offset,) = struct.unpack_from("<L", directory, at + 42)
        struct.pack_into("<L", directory, at + 42, offset + len(prefix))
        at += 46 + sum(struct.unpack_from("<3H", directory, at + 28))
    tail = content[end : end + 16] + struct.pack("<L", start + len(prefix)) + content[end + 20 :]
    return prefix + content[:start] + bytes(directory) + tail


def add_zip64_end(content: bytes, **changes: int) -> bytes:
    """The zip with a zip64 end record; `changes` replace its fields as for `make_zip`."""
    end = content.rindex(b"PK\5\6")
    count, length, start = struct.unpack_from("<10xH2L", content, end)
    fields = {"disk": 0, "start_disk": 0, "here": count, "total": count, "length": length, "start": start} | changes
    record = b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, *fields.values())
    return content[:end] + record + b"PK\6\7" + struct.pack("<LQL", 0, end, 1) + content[end:]


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """What the standard library writes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def block(name: bytes, size: int = 0, kind: bytes = b"0", target: bytes = b"", **fields: bytes) -> bytes:
    """One tar header with its checksum; `fields` may give `raw_size`, `magic` and `prefix` as bytes."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108] = b"0000644\0"
    header[124:136] = fields.get("raw_size", b"%011o\0" % size)
    header[156:157] = kind
    header[157 : 157 + len(target)] = target
    header[257:265] = fields.get("magic", b"ustar\x0000")
    prefix = fields.get("prefix", b"")
    header[345 : 345 + len(prefix)] = prefix
    return seal(header)


def seal(header: bytearray) -> bytes:
    """The tar header with its checksum filled in."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def entry(name: bytes, data: bytes = b"", kind: bytes = b"0", target: bytes = b"", **fields: bytes) -> bytes:
    """One tar member."""
    return block(name, len(data), kind, target, **fields) + data + bytes(-len(data) % 512)


def pax(kind: bytes = b"x", **values: bytes) -> bytes:
    """A pax header; ``__`` in a keyword is a dot."""
    payload = b""
    for key, value in values.items():
        record = b" " + key.replace("__", ".").encode() + b"=" + value + b"\n"
        length = len(record)
        while length != len(str(length)) + len(record):
            length = len(str(length)) + len(record)
        payload += str(length).encode() + record
    return entry(b"PaxHeader/x", payload, kind)
