"""The files that servers are given. Made by hand, so that a hundred thousand of them take seconds."""

import hashlib
import random
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.tools.distributions import Distribution, core_metadata, escape_name

_DATE = 0x21 | 40 << 9
_TAG = "py3-none-any"
_WHEEL = f"Wheel-Version: 1.0\nGenerator: benchmarks\nRoot-Is-Purelib: true\nTag: {_TAG}\n".encode()


def build_wheel(name: str, version: str, payload: bytes = b"") -> Distribution:
    """A wheel whose members are stored as they are; `payload` decides how large it is."""
    module = escape_name(name)
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": payload,
        f"{info}/METADATA": core_metadata(name, version, {"requires_python": ">=3.9"}),
        f"{info}/WHEEL": _WHEEL,
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD")).encode()
    return Distribution(f"{module}-{version}-{_TAG}.whl", _zip(files))


def make_payload(size: int) -> bytes:
    """Bytes that no archive makes smaller, the same ones every time."""
    return random.Random(size).randbytes(size)


def name_project(number: int) -> str:
    return f"bench-{number:06d}"


def provide_wheels(home: Path, projects: int, versions: int) -> Path:
    """A flat directory of so many projects with so many small wheels each, kept for the next time."""
    directory = home / "corpus" / f"{projects}x{versions}"
    done = directory.with_suffix(".made")
    if not done.exists():
        directory.mkdir(parents=True, exist_ok=True)
        for distribution in _small_wheels(projects, versions):
            (directory / distribution.filename).write_bytes(distribution.content)
        done.touch()
    return directory


def _small_wheels(projects: int, versions: int) -> Iterator[Distribution]:
    for project in range(projects):
        for version in range(versions):
            yield build_wheel(name_project(project), f"1.{version}")


def encode_upload(distribution: Distribution) -> tuple[str, bytes]:
    """The content type and the body of the POST that an upload tool sends."""
    name, version = distribution.filename.split("-")[:2]
    fields = {
        ":action": "file_upload",
        "protocol_version": "1",
        "metadata_version": "2.2",
        "name": name,
        "version": version,
        "filetype": "bdist_wheel",
        "pyversion": "py3",
        "sha256_digest": distribution.sha256,
        "blake2_256_digest": hashlib.blake2b(distribution.content, digest_size=32).hexdigest(),
    }
    return encode_form(fields, distribution)


def encode_form(fields: Mapping[str, str], distribution: Distribution | None = None) -> tuple[str, bytes]:
    """The content type and the body of a form, with a file in it or without."""
    boundary = "b" * 32
    start = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    parts = [f'{start}{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
    if distribution is not None:
        kind = "Content-Type: application/octet-stream"
        parts.append(f'{start}content"; filename="{distribution.filename}"\r\n{kind}\r\n\r\n'.encode())
        parts += [distribution.content, b"\r\n"]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return f"multipart/form-data; boundary={boundary}", body


def _zip(files: Mapping[str, bytes]) -> bytes:
    members, directory, offset = [], [], 0
    for path, data in files.items():
        name = path.encode()
        # Version, flags and method, time and date, checksum, sizes and the name's length: the same in both places.
        common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(name), 0)
        members += [b"PK\x03\x04", common, name, data]
        directory += [
            b"PK\x01\x02",
            struct.pack("<H", 3 << 8 | 20),
            common,
            struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, offset),
            name,
        ]
        offset += 30 + len(name) + len(data)
    listing = b"".join(directory)
    count = len(files)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(listing), offset, 0)
    return b"".join([*members, listing, end])
