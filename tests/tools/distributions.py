"""Small distributions that really install, made with the standard library and the same bytes every time.

It knows the archive formats and nothing of servers or clients: what the program under test reads is made
by other code than the program's own.
"""

import base64
import gzip
import hashlib
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypedDict, Unpack

_EPOCH = (2020, 2, 2, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution in memory."""

    filename: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Lower-case hex."""
        return hashlib.sha256(self.content).hexdigest()

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / self.filename
        path.write_bytes(self.content)
        return path


class CommonOptions(TypedDict, total=False):
    """What wheels and sdists have in common. `extra_files` are paths in the archive and their bytes."""

    requires: Iterable[str]
    requires_python: str | None
    extra_files: Mapping[str, bytes]
    description: str


class WheelOptions(CommonOptions, total=False):
    """`build` is the build number, such as ``"1"``; `tags` the last three parts of the filename."""

    build: str | None
    tags: str


class SdistOptions(CommonOptions, total=False):
    """`suffix` is ``.tar.gz`` or ``.zip``."""

    suffix: str


def make_wheel(directory: Path, name: str, version: str, **options: Unpack[WheelOptions]) -> Path:
    """A wheel in `directory` (made if missing) whose one module carries its version."""
    return build_wheel(name, version, **options).write(directory)


def make_sdist(directory: Path, name: str, version: str, **options: Unpack[SdistOptions]) -> Path:
    """An sdist in `directory` (made if missing) that brings its own build backend and needs no other."""
    return build_sdist(name, version, **options).write(directory)


def date_file(path: Path, day: str) -> Path:
    """Make the file as old as noon of the day (``2024-03-01``, UTC): an index goes by it for the upload time."""
    noon = datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp()
    os.utime(path, (noon, noon))
    return path


def build_wheel(name: str, version: str, **options: Unpack[WheelOptions]) -> Distribution:
    """A wheel; the name in its filename is escaped as the binary distribution format asks, `version` as given."""
    tags, build = options.get("tags", "py3-none-any"), options.get("build")
    module = escape_name(name)
    stem = f"{module}-{version}"
    info = f"{stem}.dist-info"
    files = {
        f"{module}/__init__.py": _module(version),
        **options.get("extra_files", {}),
        f"{info}/METADATA": core_metadata(name, version, options),
        f"{info}/WHEEL": _wheel_file(tags, build),
    }
    record = "".join(f"{path},sha256={_record_digest(data)},{len(data)}\n" for path, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    parts = [stem, build, tags] if build else [stem, tags]
    return Distribution(f"{'-'.join(parts)}.whl", _zip(files))


def build_sdist(name: str, version: str, **options: Unpack[SdistOptions]) -> Distribution:
    """An sdist with one top directory, ``PKG-INFO``, and a backend in its own tree."""
    suffix, module = options.get("suffix", ".tar.gz"), escape_name(name)
    top = f"{module}-{version}"
    files = {
        f"{top}/PKG-INFO": core_metadata(name, version, options),
        f"{top}/pyproject.toml": _PYPROJECT,
        f"{top}/tiny_backend.py": _BACKEND,
        f"{top}/{module}/__init__.py": _module(version),
    }
    files |= {f"{top}/{path}": data for path, data in options.get("extra_files", {}).items()}
    return Distribution(top + suffix, _zip(files) if suffix == ".zip" else _tar_gz(files))


def escape_name(name: str) -> str:
    """The name as it stands in filenames: normalized, with ``_`` in place of ``-``."""
    return re.sub(r"[-_.]+", "_", name).lower()


def core_metadata(name: str, version: str, options: CommonOptions) -> bytes:
    lines = ["Metadata-Version: 2.2", f"Name: {name}", f"Version: {version}", f"Summary: {name} for tests"]
    requires_python = options.get("requires_python")
    if requires_python:
        lines.append(f"Requires-Python: {requires_python}")
    lines += [f"Requires-Dist: {requirement}" for requirement in options.get("requires", ())]
    lines += ["Description-Content-Type: text/markdown", "", options.get("description", f"# {name}\n")]
    return "\n".join(lines).encode()


def _module(version: str) -> bytes:
    return f'__version__ = "{version}"\n'.encode()


def _wheel_file(tags: str, build: str | None) -> bytes:
    python, abi, platform = tags.split("-")
    lines = ["Wheel-Version: 1.0", "Generator: tests", "Root-Is-Purelib: true"]
    lines += [f"Build: {build}"] if build else []
    lines += [f"Tag: {one}-{abi}-{platform}" for one in python.split(".")]
    return "\n".join([*lines, ""]).encode()


def _record_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            member = zipfile.ZipInfo(path, date_time=_EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
    return buffer.getvalue()


def _tar_gz(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


_PYPROJECT = b"""\
[build-system]
requires = []
build-backend = "tiny_backend"
backend-path = ["."]
"""

#: Packs what lies beside it; PKG-INFO is already the metadata of the wheel.
_BACKEND = b'''\
"""A build backend for the one pure Python project in whose source tree it lies."""

import base64
import email
import hashlib
import pathlib
import re
import zipfile


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    here = pathlib.Path(__file__).resolve().parent
    metadata = here.joinpath("PKG-INFO").read_bytes()
    fields = email.message_from_bytes(metadata)
    stem = re.sub("[-_.]+", "_", fields["Name"]).lower() + "-" + fields["Version"]
    files = {source.relative_to(here).as_posix(): source.read_bytes() for source in sorted(here.glob("*/*.py"))}
    files[stem + ".dist-info/METADATA"] = metadata
    files[stem + ".dist-info/WHEEL"] = b"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    record = "".join(f"{path},sha256={digest(data)},{len(data)}\\n" for path, data in files.items())
    files[stem + ".dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\\n".encode()
    filename = stem + "-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, filename), "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return filename


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
'''
