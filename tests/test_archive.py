"""Zip archives are opened within limits: real layouts pass, hostile ones (made here, never stored) are refused."""

import base64
import gzip
import hashlib
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pypiserver_ng.archive import uploads
from pypiserver_ng.archive.found import Found
from pypiserver_ng.errors import Invalid
from tests.tools.inspections import find, inspect
from tests.tools.raw_archives import Member, add_zip64_end, deflate, make_zip, put_before, seal, zip_of

WHEEL = "demo-1.0-py3-none-any.whl"
ZIP_SDIST = "demo-1.0.zip"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
INFO = "demo-1.0.dist-info"


def record(files: dict[str, bytes], info: str = INFO) -> bytes:
    """RECORD of these files."""
    rows = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*rows, f"{info}/RECORD,,\n"]).encode()


def wheel_files(extra: dict[str, bytes] | None = None, info: str = INFO) -> dict[str, bytes]:
    """The files of a wheel that is in order."""
    files = {
        "demo/__init__.py": b"x = 1\n" * 100,
        **(extra or {}),
        f"{info}/METADATA": METADATA,
        f"{info}/WHEEL": b"Wheel-Version: 1.0\n",
    }
    return files | {f"{info}/RECORD": record(files, info)}


def make_wheel(*more: Member, info: str = INFO, **options: Any) -> bytes:
    """A wheel in order but for the members added to it (RECORD names them) and the `options` of `make_zip`."""
    named = {member.name.decode(errors="replace"): member.data for member in more if member.name[-1:] != b"/"}
    files = wheel_files(named, info)
    members = [Member(name.encode(), data, 8) for name, data in files.items() if name not in named]
    return make_zip([*more, *members], **options)


def wheel_without(name: str) -> bytes:
    files = wheel_files()
    del files[f"{INFO}/{name}"]
    rows = record({path: data for path, data in files.items() if not path.endswith("RECORD")})
    return zip_of({path: rows if path.endswith("RECORD") else data for path, data in files.items()})


def wheel_with_record(old: bytes, new: bytes) -> bytes:
    files = wheel_files()
    rows = files[f"{INFO}/RECORD"]
    assert old in rows
    return zip_of(files | {f"{INFO}/RECORD": rows.replace(old, new, 1)})


def zip_that_is_a_tar() -> bytes:
    """The first member's extra field completes a tar header."""
    extra = struct.pack("<2H", 0x9999, 472) + bytes(472)
    content = bytearray(make_wheel(Member(b"demo/x", local={"extra": extra})))
    content[124:136] = b"%011o\0" % 0
    content[257:265] = b"ustar\x0000"
    return seal(content[:512]) + bytes(content[512:])


GOOD: dict[str, tuple[str, bytes]] = {
    "a wheel": (WHEEL, zip_of(wheel_files())),
    "names beyond ASCII": (WHEEL, zip_of(wheel_files({"demo/smörbröd \N{SNOWMAN}.py": b"x"}))),
    "directories": (WHEEL, make_wheel(Member(b"demo/sub/", mode=0o040755), Member(b"demo/other/", mode=0))),
    "a link inside": (WHEEL, make_wheel(Member(b"demo/lib.so", b"../demo/lib.so.1", mode=0o120777))),
    "a dist-info in another spelling": (
        "Foo.Bar-1.0.post1-py3-none-any.whl",
        zip_of(wheel_files(info="foo_bar-1.0_1.dist-info")),
    ),
    "a vendored dist-info": (WHEEL, zip_of(wheel_files({"demo/_vendor/x-1.0.dist-info/METADATA": b"x"}))),
    "a comment": (WHEEL, make_wheel(comment=b"by hand")),
    "a zip64 end": (WHEEL, add_zip64_end(make_wheel())),
    "redundant zip64 fields": (
        WHEEL,
        make_wheel(Member(b"demo/z.py", b"zzzz", extra=struct.pack("<2H2Q", 1, 16, 4, 4))),
    ),
    "a zip64 local header": (
        WHEEL,
        make_wheel(
            Member(
                b"demo/z.py",
                b"zzzz",
                local={"size": 2**32 - 1, "packed": 2**32 - 1, "extra": struct.pack("<2H2Q", 1, 16, 4, 4)},
            )
        ),
    ),
    "another extra field": (WHEEL, make_wheel(Member(b"demo/z.py", extra=struct.pack("<2HBL", 0x5455, 5, 1, 0)))),
    "a RECORD without hashes": (
        WHEEL,
        zip_of(wheel_files() | {f"{INFO}/RECORD": "".join(f"{name},,\n" for name in wheel_files()).encode()}),
    ),
    "a RECORD with padding, quotes and another algorithm": (
        WHEEL,
        wheel_with_record(
            record({"demo/__init__.py": b"x = 1\n" * 100}).splitlines()[0],
            b'"demo/__init__.py",sha512='
            + base64.urlsafe_b64encode(hashlib.sha512(b"x = 1\n" * 100).digest())
            + b",600\r\n",
        ),
    ),
    "a signature of RECORD": (WHEEL, zip_of(wheel_files() | {f"{INFO}/RECORD.jws": b"{}"})),
    "scripts": (
        WHEEL,
        zip_of(wheel_files({f"{INFO}/entry_points.txt": b"[console_scripts]\ndemo = demo:f\n[x]\na/b = c:d\n"})),
    ),
    "a zip sdist": (ZIP_SDIST, zip_of({"demo-1.0/PKG-INFO": METADATA, "demo-1.0/src/x.egg-info/PKG-INFO": b"x"})),
}


@pytest.mark.parametrize(("filename", "content"), GOOD.values(), ids=GOOD)
def test_an_archive_as_tools_build_it_passes(tmp_path: Path, filename: str, content: bytes) -> None:
    """Its metadata comes back byte for byte, from the strict and from the lenient look."""
    assert inspect(tmp_path, filename, content) == METADATA
    assert find(tmp_path, filename, content) == Found(METADATA, complete=True, problem=None)


BAD_WHEELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "not a zip"),
    "text": (lambda: b"not an archive", "not a zip"),
    "a gzip": (lambda: gzip.compress(b"x"), "not a zip"),
    "a truncated zip": (lambda: make_wheel()[:-30], "cut short"),
    "a zip without its last byte": (lambda: make_wheel(comment=b"comment")[:-1], "cut short"),
    "an empty zip": (lambda: make_zip([]), "not a zip"),
    "bytes before": (lambda: b"#!/bin/sh\n" + make_wheel(), "not a zip"),
    "bytes before, offsets corrected": (lambda: put_before(zip_of({"a": b""}), make_wheel()), "no member"),
    "bytes after": (lambda: make_wheel(suffix=b"\n"), "after its end"),
    "a zip after the zip": (lambda: make_wheel() + make_wheel(), "after its end"),
    "an end record that begins in the comment's length": (
        lambda: make_wheel(comment=b"\5\6" + b"\0" * (0x4B50 - 2)),
        "after its end",
    ),
    "an end record in the comment": (lambda: make_wheel(comment=make_zip([])), "after its end"),
    "a tar at once": (zip_that_is_a_tar, "a zip and a tar at once"),
    "a gap before the directory": (lambda: make_wheel(gap=b"hidden"), "no member"),
    "a gap before a member": (lambda: make_wheel(Member(b"demo/w"), Member(b"demo/x", before=b"hidden")), "no member"),
    "a member twice": (lambda: make_wheel(Member(b"demo/x"), Member(b"demo/x")), "twice"),
    "a file that is a directory too": (
        lambda: make_wheel(Member(b"demo/x"), Member(b"demo/x/y/z")),
        "'demo/x' as a file and as a directory",
    ),
    "overlapping members": (lambda: make_wheel(Member(b"demo/w"), Member(b"demo/x", central={"offset": 0})), "two"),
    "another name in the local header": (
        lambda: make_wheel(Member(b"demo/x", local={"name": b"demo/y"})),
        "two different headers",
    ),
    "another size in the local header": (
        lambda: make_wheel(Member(b"demo/x", b"x", local={"size": 2})),
        "two different headers",
    ),
    "another method in the local header": (
        lambda: make_wheel(Member(b"demo/x", b"x", local={"method": 8})),
        "two different headers",
    ),
    "an encrypted member": (lambda: make_wheel(Member(b"demo/x", b"x", flags=1)), "encrypted"),
    "a data descriptor": (lambda: make_wheel(Member(b"demo/x", b"x", flags=8)), "data descriptor"),
    "a bzip2 member": (lambda: make_wheel(Member(b"demo/x", b"x", method=12)), "neither stored"),
    "an lzma member": (lambda: make_wheel(Member(b"demo/x", b"x", method=14)), "neither stored"),
    "a stored member with two sizes": (lambda: make_wheel(Member(b"demo/x", b"xx", packed=b"x")), "two sizes"),
    "a wrong checksum": (
        lambda: make_wheel(Member(b"demo/x", b"x", local={"crc": 1}, central={"crc": 1})),
        "damaged member",
    ),
    "a member larger than it says": (
        lambda: make_wheel(Member(b"demo/x", b"x" * 10, method=8, packed=deflate(bytes(10**6)))),
        "damaged member",
    ),
    "a damaged member": (lambda: make_wheel(Member(b"demo/x", b"x", method=8, packed=b"\xff\xff")), "damaged"),
    "bytes after a member's data": (
        lambda: make_wheel(Member(b"demo/x", b"x", method=8, packed=deflate(b"x") + b"hidden")),
        "does not end where it should",
    ),
    "a traversal": (lambda: make_wheel(Member(b"../x")), "leaves it"),
    "a traversal inside": (lambda: make_wheel(Member(b"demo/../../x")), "leaves it"),
    "an absolute name": (lambda: make_wheel(Member(b"/etc/x")), "leaves it"),
    "a drive": (lambda: make_wheel(Member(b"C:/x")), "leaves it"),
    "an empty name": (lambda: make_wheel(Member(b"")), "leaves it"),
    "a doubled separator": (lambda: make_wheel(Member(b"demo//x")), "leaves it"),
    "a backslash": (lambda: make_wheel(Member(b"demo\\..\\x")), "forbidden character"),
    "a NUL": (lambda: make_wheel(Member(b"demo/x\0.py")), "forbidden character"),
    "a newline": (lambda: make_wheel(Member(b"demo/x\n.py")), "forbidden character"),
    "a name that is not UTF-8": (lambda: make_wheel(Member(b"demo/\xff", flags=0x800)), "not UTF-8"),
    "a name without an encoding": (lambda: make_wheel(Member("demo/ö".encode())), "not UTF-8"),
    "a second name in an extra field": (
        lambda: make_wheel(Member(b"demo/x", extra=struct.pack("<2HBL", 0x7075, 6, 1, 0) + b"y")),
        "extra field",
    ),
    "a malformed extra field": (lambda: make_wheel(Member(b"demo/x", extra=b"\1\0\x20\0")), "extra field"),
    "an extra field cut short": (lambda: make_wheel(Member(b"demo/x", extra=b"\0")), "extra field"),
    "more members than any wheel has": (
        lambda: add_zip64_end(make_wheel(here=0xFFFF, total=0xFFFF), here=200_000, total=200_000),
        "more than 50000 members",
    ),
    "a directory beyond all measure": (
        lambda: make_wheel(*(Member(b"demo/%d" % number + b"n" * 60_000) for number in range(140))),
        "directory is larger than 8 MiB",
    ),
    "a zip64 field that contradicts": (
        lambda: make_wheel(Member(b"demo/x", b"x", extra=struct.pack("<2HQ", 1, 8, 9))),
        "contradict",
    ),
    "a link out": (lambda: make_wheel(Member(b"demo/x", b"../../x", mode=0o120777)), "link that leaves"),
    "an absolute link": (lambda: make_wheel(Member(b"demo/x", b"/etc/passwd", mode=0o120777)), "link that leaves"),
    "a member behind a link": (
        lambda: make_wheel(Member(b"demo/x", b"sub", mode=0o120777), Member(b"demo/x/y")),
        "behind the link",
    ),
    "a device": (lambda: make_wheel(Member(b"demo/x", mode=0o060644)), "no file, directory or link"),
    "a directory with content": (lambda: make_wheel(Member(b"demo/x/", b"x")), "directory with content"),
    "several disks": (lambda: make_wheel(disk=1), "cut short"),
    "fewer entries than the directory": (lambda: make_wheel(here=3, total=3), "another length"),
    "more entries than the directory": (lambda: make_wheel(here=9, total=9), "damaged"),
    "a zip64 end that contradicts": (lambda: add_zip64_end(make_wheel(), total=3, here=3), "cut short"),
    "a bomb by what it declares": (
        lambda: make_wheel(Member(b"demo/x", method=8, local={"size": 2**31}, central={"size": 2**31})),
        "times its size",
    ),
    "a bomb": (lambda: make_wheel(Member(b"demo/x", bytes(80 * 2**20), method=8)), "times its size"),
    "no dist-info": (lambda: zip_of({"demo.py": b""}), "exactly one .dist-info"),
    "two dist-infos": (lambda: make_wheel(Member(b"other-1.0.dist-info/METADATA")), "exactly one .dist-info"),
    "another project's dist-info": (lambda: make_wheel(info="other-1.0.dist-info"), "agree with its filename"),
    "another version's dist-info": (lambda: make_wheel(info="demo-1.1.dist-info"), "agree with its filename"),
    "no METADATA": (lambda: wheel_without("METADATA"), "has no demo-1.0.dist-info/METADATA"),
    "no WHEEL": (lambda: wheel_without("WHEEL"), "has no demo-1.0.dist-info/WHEEL"),
    "no RECORD": (lambda: wheel_without("RECORD"), "has no demo-1.0.dist-info/RECORD"),
    "an empty RECORD": (
        lambda: zip_of(wheel_files() | {f"{INFO}/RECORD": b""}),
        "does not name 'demo/__init__.py'",
    ),
    "a RECORD that names too much": (
        lambda: wheel_with_record(b"demo/", b"gone.py,,\ndemo/"),
        "'gone.py', which is not there",
    ),
    "a RECORD with another hash": (lambda: wheel_with_record(b"sha256=", b"sha256=A"), "another hash"),
    "a RECORD with another size": (lambda: wheel_with_record(b",600\n", b",601\n"), "another size"),
    "a RECORD with a weak hash": (lambda: wheel_with_record(b"sha256=", b"md5="), "not permitted"),
    "a RECORD with two rows for a file": (lambda: wheel_with_record(b"demo/", b"demo/__init__.py,,\ndemo/"), "twice"),
    "a RECORD that is no table": (lambda: wheel_with_record(b"demo/", b"x\ndemo/"), "malformed"),
    "a RECORD with a line beyond all measure": (lambda: wheel_with_record(b"demo/", b"," * 10_000), "malformed"),
    "a RECORD with a name over two lines": (lambda: wheel_with_record(b"demo/", b'"de\nmo",,\ndemo/'), "malformed"),
    "a RECORD that is not UTF-8": (lambda: wheel_with_record(b"demo/", b"\xff"), "malformed"),
    "METADATA that is a link": (
        lambda: make_zip(
            [
                Member(name.encode(), data, mode=0o120777 if name.endswith("METADATA") else 0)
                for name, data in (wheel_files() | {f"{INFO}/METADATA": b"WHEEL"}).items()
            ]
        ),
        "has no demo-1.0.dist-info/METADATA|another",
    ),
    "a script that is a path": (
        lambda: make_wheel(Member(f"{INFO}/entry_points.txt".encode(), b"[gui_scripts]\n ../x = demo:f\n")),
        "script whose name is a path",
    ),
}


@pytest.mark.parametrize(("make", "reason"), BAD_WHEELS.values(), ids=BAD_WHEELS)
def test_a_hostile_wheel_is_refused(tmp_path: Path, make: Callable[[], bytes], reason: str) -> None:
    """The refusal says what is wrong; a lenient look at the same bytes raises nothing."""
    with pytest.raises(Invalid, match=reason) as refused:
        inspect(tmp_path, WHEEL, make())
    assert refused.value.message.isprintable()
    find(tmp_path, WHEEL, make())


BAD_ZIP_SDISTS: dict[str, tuple[dict[str, bytes], str]] = {
    "two top directories": ({"demo-1.0/PKG-INFO": METADATA, "other/x": b""}, "more than one top directory"),
    "no top directory": ({"PKG-INFO": METADATA}, "agree with its filename"),
    "another top directory": ({"demo-2.0/PKG-INFO": METADATA}, "agree with its filename"),
    "no PKG-INFO": ({"demo-1.0/setup.py": b""}, "has no demo-1.0/PKG-INFO"),
    "PKG-INFO too deep": ({"demo-1.0/src/PKG-INFO": METADATA}, "has no demo-1.0/PKG-INFO"),
}


@pytest.mark.parametrize(("files", "reason"), BAD_ZIP_SDISTS.values(), ids=BAD_ZIP_SDISTS)
def test_a_zip_that_is_no_sdist_is_refused(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    """One top directory of the sdist's name, with PKG-INFO directly in it."""
    with pytest.raises(Invalid, match=reason):
        inspect(tmp_path, ZIP_SDIST, zip_of(files))


def test_a_zip_sdist_with_a_damaged_member_is_refused(tmp_path: Path) -> None:
    """Sdists have no RECORD, but the zip's own checksums hold."""
    damaged = Member(b"demo-1.0/x", b"x", local={"crc": 1}, central={"crc": 1})
    with pytest.raises(Invalid, match="damaged member"):
        inspect(tmp_path, ZIP_SDIST, make_zip([Member(b"demo-1.0/PKG-INFO", METADATA), damaged]))


FOUND = {
    "an empty file": (WHEEL, b"", Found(None, complete=False, problem="The file is empty")),
    "one byte of a zip": (WHEEL, b"P", None),
    "half a wheel": (WHEEL, make_wheel()[:300], None),
    "a wheel without its last byte": (WHEEL, make_wheel()[:-1], None),
    "a wheel that is filled up with zeros": (WHEEL, make_wheel()[:400].ljust(100_000, b"\0"), None),
    "half a wheel with a whole zip in it": (
        WHEEL,
        make_wheel(Member(b"demo/data.zip", make_wheel()))[: len(make_wheel()) + 50],
        None,
    ),
    "half an egg": ("demo-1.0-py3.11.egg", make_wheel()[:300], None),
    "garbage": (WHEEL, b"garbage", Found(None, complete=True, problem="The file is not a zip archive")),
    "zeros": (WHEEL, bytes(99), Found(None, complete=True, problem="The file is not a zip archive")),
    "a wheel with a line after its end": (
        WHEEL,
        make_wheel(suffix=b"\n"),
        Found(METADATA, complete=True, problem="The archive has bytes after its end"),
    ),
    "a wheel of another name": (WHEEL, make_wheel(info="x-2.dist-info"), Found(METADATA, complete=True)),
    "a wheel with two dist-infos": (
        WHEEL,
        zip_of({"a-1.dist-info/METADATA": b"a", f"{INFO}/METADATA": METADATA, "z-1.dist-info/METADATA": b"z"}),
        Found(METADATA, complete=True),
    ),
    "a wheel without metadata": (
        WHEEL,
        zip_of({"demo.py": b""}),
        Found(None, complete=True, problem="The archive has no metadata"),
    ),
    "a bomb for metadata": (
        WHEEL,
        zip_of({f"{INFO}/METADATA": bytes(5 * 2**20)}),
        Found(
            None,
            complete=True,
            problem="The archive has a member larger than 4 MiB: 'demo-1.0.dist-info/METADATA'",
        ),
    ),
    "an encrypted METADATA": (
        WHEEL,
        make_zip([Member(f"{INFO}/METADATA".encode(), METADATA, flags=1)]),
        Found(
            None,
            complete=True,
            problem="The archive has a member that cannot be read: 'demo-1.0.dist-info/METADATA'",
        ),
    ),
    "an egg": ("demo-1.0-py3.11.egg", zip_of({"EGG-INFO/PKG-INFO": METADATA}), Found(METADATA, complete=True)),
    "an installer": ("demo-1.0.win32-py2.7.exe", b"MZ", Found(None, complete=True)),
    "a signature": ("demo-1.0.tar.gz.asc", b"-----BEGIN", Found(None, complete=True)),
    "an empty signature": ("demo-1.0.zip.asc", b"", Found(None, complete=False, problem="The file is empty")),
}


@pytest.mark.parametrize(("filename", "content", "expected"), FOUND.values(), ids=FOUND)
def test_a_found_file_is_whole_or_a_copy_in_progress(
    tmp_path: Path, filename: str, content: bytes, expected: Found | None
) -> None:
    """What begins well and lacks its end may be a copy in progress (None here); garbage is not."""
    found = find(tmp_path, filename, content)
    if expected is None:
        expected = Found(None, complete=False, problem="The archive is cut short: it has no zip directory at its end")
    assert expected == found


def test_every_beginning_of_a_wheel_is_a_copy_in_progress(tmp_path: Path) -> None:
    """Wherever a copy stands, the file is pending and never listed as damaged."""
    content = make_wheel()
    assert not [size for size in range(len(content)) if find(tmp_path, WHEEL, content[:size]).complete]


def test_a_large_wheel_is_not_unpacked_whole(tmp_path: Path) -> None:
    """Above 256 MiB names decide: a member that is not what it declares is seen below that only."""

    def declare(size: int) -> bytes:
        lie = Member(b"demo/lib.so", method=8, local={"size": size}, central={"size": size})
        return make_wheel(lie, Member(b"demo/filler", bytes(6 * 2**20)))

    assert inspect(tmp_path, WHEEL, declare(257 * 2**20)) == METADATA
    with pytest.raises(Invalid, match="damaged member"):
        inspect(tmp_path, WHEEL, declare(200 * 2**20))


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A member that unpacks to 60 MiB is hashed in pieces."""
    content = make_wheel(Member(b"demo/big", bytes(60 * 2**20), method=8), Member(b"demo/filler", os.urandom(2**21)))
    tracemalloc.start()
    try:
        inspect(tmp_path, WHEEL, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


def test_a_member_with_a_name_of_dashes_is_passed_over(tmp_path: Path) -> None:
    """Such a name would be split at each of them; the file is listed without metadata at once."""
    members = [Member(b"x" + b"-a" * 15_000 + b"%d.dist-info/METADATA" % number) for number in range(200)]
    assert find(tmp_path, WHEEL, make_zip(members)).complete


def test_a_large_wheel_is_compared_as_far_as_there_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest members first: a program whose bytes RECORD does not know cannot hide behind a large file."""
    monkeypatch.setattr(uploads, "MAX_UNPACKED", 5_000)
    files = wheel_files({"demo/big.bin": b"x" * 9_000})
    rows = files[f"{INFO}/RECORD"]
    assert inspect(tmp_path, WHEEL, zip_of(files | {f"{INFO}/RECORD": rows.replace(b",9000", b",9001")})) == METADATA
    changed = rows.replace(b"demo/__init__.py,sha256=", b"demo/__init__.py,sha256=A")
    assert changed != rows
    with pytest.raises(Invalid, match="another hash"):
        inspect(tmp_path, WHEEL, zip_of(files | {f"{INFO}/RECORD": changed}))
