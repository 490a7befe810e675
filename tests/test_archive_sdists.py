"""Sdists in tar files are opened within limits: real layouts pass, hostile ones are refused."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pypiserver_ng.archive import found as found_archives
from pypiserver_ng.archive.found import Found
from pypiserver_ng.errors import Invalid
from tests.tools.inspections import find, inspect
from tests.tools.raw_archives import Member, block, entry, make_zip, pax, zip_of

SDIST = "demo-1.0.tar.gz"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
PKG_INFO = entry(b"demo-1.0/PKG-INFO", METADATA)
ZEROS = bytes(1024)


def make_sdist(*entries: bytes, end: bytes = ZEROS) -> bytes:
    """A tar in order but for the entries added to it."""
    return gzip.compress(entry(b"demo-1.0/", kind=b"5") + PKG_INFO + b"".join(entries) + end, mtime=0)


def tar_of(files: dict[str, bytes], format_: int, **fields: str) -> bytes:
    """What the standard library writes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=format_) as archive:
        top = tarfile.TarInfo("demo-1.0")
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        for name, data in files.items():
            info = tarfile.TarInfo(f"demo-1.0/{name}")
            info.size = len(data)
            info.uid = info.gid = 2**31
            info.uname = "zoë"
            info.pax_headers = fields
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


SDIST_FILES = {
    "PKG-INFO": METADATA,
    "pyproject.toml": b"[project]\n",
    "src/demo.egg-info/PKG-INFO": METADATA + b"Summary: not this one\n",
    "src/" + "deep/" * 40 + "n" * 120 + ".py": b"long",
    "tests/data/smörbröd \N{SNOWMAN}.txt": b"x" * 70_000,
}


GOOD: dict[str, tuple[str, bytes]] = {
    "pax": (SDIST, tar_of(SDIST_FILES, tarfile.PAX_FORMAT, mtime="1700000000.123456", **{"SCHILY.xattr.a": "b"})),
    "GNU": (SDIST, tar_of(SDIST_FILES, tarfile.GNU_FORMAT)),
    "ustar with a prefix": (SDIST, make_sdist(entry(b"x.py", b"x", prefix=b"demo-1.0/" + b"p" * 120))),
    "before ustar": (SDIST, make_sdist(entry(b"demo-1.0/x.py", b"x", b"\0", magic=bytes(8)))),
    "a size in base 256": (SDIST, make_sdist(entry(b"demo-1.0/x.py", b"x", raw_size=b"\x80".ljust(11, b"\0") + b"\1"))),
    "a pax size that agrees": (SDIST, make_sdist(pax(size=b"1"), entry(b"demo-1.0/x.py", b"x"))),
    "a long name and a long link": (
        SDIST,
        make_sdist(
            entry(b"L", b"demo-1.0/" + b"n" * 200 + b"\0", b"L"),
            entry(b"K", b"m" * 200 + b"\0", b"K"),
            entry(b"demo-1.0/n", kind=b"2", target=b"m"),
        ),
    ),
    "a global comment": (SDIST, gzip.compress(pax(b"g", comment=b"1" * 40) + PKG_INFO + ZEROS)),
    "a directory twice": (SDIST, make_sdist(entry(b"demo-1.0/a/", kind=b"5"), entry(b"demo-1.0/a", kind=b"5"))),
    "dots before the names": (SDIST, gzip.compress(entry(b"./demo-1.0/PKG-INFO", METADATA) + ZEROS)),
    "links inside": (
        SDIST,
        make_sdist(
            entry(b"demo-1.0/docs/README", kind=b"2", target=b"../README"),
            entry(b"demo-1.0/copy", kind=b"1", target=b"demo-1.0/PKG-INFO"),
        ),
    ),
    "a top directory in another spelling": (
        "foo_bar-1.0.post1.tar.gz",
        gzip.compress(entry(b"Foo.Bar-1.0-1/PKG-INFO", METADATA) + ZEROS),
    ),
}


@pytest.mark.parametrize(("filename", "content"), GOOD.values(), ids=GOOD)
def test_an_sdist_as_tools_build_it_passes(tmp_path: Path, filename: str, content: bytes) -> None:
    """Its metadata comes back byte for byte, from the strict and from the lenient look."""
    assert inspect(tmp_path, filename, content) == METADATA
    assert find(tmp_path, filename, content) == Found(METADATA, complete=True, problem=None)


BAD_SDISTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "not a gzip"),
    "a zip": (lambda: make_zip([Member(b"x")]), "not a gzip"),
    "a plain tar": (lambda: gzip.decompress(make_sdist()), "not a gzip"),
    "a bzip2": (lambda: bz2.compress(b"x"), "not a gzip"),
    "a gzip of text": (lambda: gzip.compress(b"text" * 1000), "not a tar"),
    "a gzip of nothing": (lambda: gzip.compress(b""), "cut short"),
    "an empty tar": (lambda: gzip.compress(ZEROS), "agree with its filename"),
    "a truncated gzip": (lambda: make_sdist()[:-20], "cut short"),
    "a gzip without its trailer": (lambda: make_sdist()[:-8], "cut short"),
    "a gzip without its last byte": (lambda: make_sdist()[:-1], "cut short"),
    "a gzip with a wrong checksum": (lambda: make_sdist()[:-8] + bytes(8), "damaged"),
    "bytes after the gzip": (lambda: make_sdist() + b"\n", "after the end of its compressed stream"),
    "zeros after the gzip": (lambda: make_sdist() + bytes(512), "after the end of its compressed stream"),
    "two gzips": (lambda: make_sdist(end=b"") + gzip.compress(ZEROS), "after the end of its compressed stream"),
    "a tar without an end": (lambda: make_sdist(end=b""), "no end-of-archive"),
    "a tar that ends in a member": (lambda: make_sdist(block(b"demo-1.0/x", 9999), end=b""), "cut short"),
    "members after the end": (lambda: make_sdist(end=ZEROS + entry(b"demo-1.0/x")), "after its end"),
    "a tar that is a zip too": (
        lambda: gzip.compress(gzip.decompress(make_sdist()) + zip_of({"x": b"x"}), compresslevel=0),
        "a zip at once",
    ),
    "a wrong header checksum": (lambda: make_sdist(b"x" + entry(b"demo-1.0/x")[1:]), "checksum"),
    "an unknown format": (lambda: make_sdist(entry(b"demo-1.0/x", magic=b"rustar00")), "unknown format"),
    "a malformed size": (lambda: make_sdist(entry(b"demo-1.0/x", raw_size=b"0000000-001\0")), "malformed number"),
    "a negative size": (lambda: make_sdist(entry(b"demo-1.0/x", raw_size=b"\xff" * 12)), "malformed number"),
    "an endless size": (lambda: make_sdist(entry(b"demo-1.0/x", raw_size=b"\x80" + b"\xff" * 11)), "cut short"),
    "a file by its long name, a directory by its own": (
        lambda: make_sdist(pax(path=b"demo-1.0/data.bin"), entry(b"demo-1.0/data/", b"x" * 512, b"\0")),
        "a file and a directory",
    ),
    "a directory of old with content": (
        lambda: make_sdist(entry(b"demo-1.0/data/", b"x" * 512, b"\0")),
        "a file and a directory",
    ),
    "a prefix without ustar": (
        lambda: make_sdist(entry(b"demo-1.0/x.py", b"x", prefix=b"demo-1.0/../..", magic=b"ustar  \0")),
        "in two parts",
    ),
    "an empty zip in what is not compressed": (
        lambda: gzip.compress(
            gzip.decompress(make_sdist(entry(b"demo-1.0/x", b"PK\5\6" + bytes(18)))), compresslevel=0
        ),
        "a tar and a zip at once",
    ),
    "a traversal": (lambda: make_sdist(entry(b"../x")), "leaves it"),
    "a traversal inside": (lambda: make_sdist(entry(b"demo-1.0/../../x")), "leaves it"),
    "an absolute name": (lambda: make_sdist(entry(b"/etc/x")), "leaves it"),
    "a traversal in a pax header": (lambda: make_sdist(pax(path=b"demo-1.0/../x"), entry(b"demo-1.0/x")), "leaves"),
    "a traversal in a long name": (
        lambda: make_sdist(entry(b"././@LongLink", b"demo-1.0/../x\0", b"L"), entry(b"demo-1.0/x")),
        "leaves it",
    ),
    "a NUL in a pax path": (
        lambda: make_sdist(pax(path=b"demo-1.0/a\0b"), entry(b"demo-1.0/x")),
        "forbidden character",
    ),
    "a control character": (lambda: make_sdist(entry(b"demo-1.0/\x1b[2J")), "forbidden character"),
    "a backslash": (lambda: make_sdist(entry(b"demo-1.0/..\\x")), "forbidden character"),
    "a name beyond all measure": (lambda: make_sdist(pax(path=b"demo-1.0/" + b"x" * 5000), entry(b"x")), "longer"),
    "a link out": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"2", target=b"../x")), "link that leaves"),
    "an absolute link": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"2", target=b"/etc")), "link that leaves"),
    "a top directory that is a link": (
        lambda: make_sdist(entry(b"demo-1.0", kind=b"2", target=b"x")),
        "link that leaves",
    ),
    "a link through another": (
        lambda: make_sdist(
            entry(b"demo-1.0/a", kind=b"2", target=b"sub"), entry(b"demo-1.0/b", kind=b"2", target=b"a/..")
        ),
        "link that leaves",
    ),
    "a member behind a link": (
        lambda: make_sdist(entry(b"demo-1.0/a", kind=b"2", target=b"sub"), entry(b"demo-1.0/a/b/c", b"x")),
        "behind the link",
    ),
    "a hard link out": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"1", target=b"../x")), "leaves it"),
    "a hard link beside": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"1", target=b"y/x")), "more than one top"),
    "a hard link to a link": (
        lambda: make_sdist(
            entry(b"demo-1.0/a/b/l", kind=b"2", target=b"../../x"),
            entry(b"demo-1.0/l", kind=b"1", target=b"demo-1.0/a/b/l"),
        ),
        "behind the link",
    ),
    "a character device": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"3")), "no file, directory or link"),
    "a block device": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"4")), "no file, directory or link"),
    "a pipe": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"6")), "no file, directory or link"),
    "a vendor's member": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"V")), "no file, directory or link"),
    "a GNU sparse member": (lambda: make_sdist(entry(b"demo-1.0/x", kind=b"S")), "sparse"),
    "a pax sparse member": (
        lambda: make_sdist(pax(GNU__sparse__major=b"1", GNU__sparse__realsize=b"99"), entry(b"demo-1.0/x", b"x")),
        "sparse",
    ),
    "a directory with content": (lambda: make_sdist(entry(b"demo-1.0/x/", b"x", kind=b"5")), "with content"),
    "a link with content": (lambda: make_sdist(entry(b"demo-1.0/x", b"x", b"2", b"y")), "with content"),
    "another size in the pax header": (
        lambda: make_sdist(pax(size=b"0"), entry(b"demo-1.0/x", entry(b"demo-1.0/hidden"))),
        "two sizes",
    ),
    "a pax header over 64 KiB": (lambda: make_sdist(pax(comment=b"x" * 70_000), entry(b"demo-1.0/x")), "too long"),
    "a long name over 64 KiB": (
        lambda: make_sdist(entry(b"././@LongLink", b"x" * 70_000, b"L"), entry(b"demo-1.0/x")),
        "too long",
    ),
    "a pax header that declares a GiB": (lambda: make_sdist(block(b"x", 2**30, b"x")), "too long"),
    "a pax header cut short": (lambda: make_sdist(block(b"x", 999, b"x"), end=b""), "cut short"),
    "a pax header without a member": (lambda: make_sdist(pax(comment=b"x")), "after an extension header"),
    "two pax headers": (
        lambda: make_sdist(pax(path=b"demo-1.0/a"), pax(path=b"demo-1.0/b"), entry(b"demo-1.0/x")),
        "two extension headers",
    ),
    "a pax header and a long name": (
        lambda: make_sdist(pax(path=b"demo-1.0/a"), entry(b"L", b"demo-1.0/b\0", b"L"), entry(b"demo-1.0/x")),
        "two extension headers",
    ),
    "a pax keyword twice": (
        lambda: make_sdist(entry(b"x", b"10 path=a\n10 path=b\n", b"x"), entry(b"demo-1.0/x")),
        "repeated keyword",
    ),
    "a pax record with a wrong length": (
        lambda: make_sdist(entry(b"x", b"99 path=a\n", b"x"), entry(b"demo-1.0/x")),
        "malformed pax",
    ),
    "one name for all": (lambda: make_sdist(pax(b"g", path=b"demo-1.0/x"), entry(b"demo-1.0/y")), "one name for all"),
    "two top directories": (lambda: make_sdist(entry(b"other/x")), "more than one top directory"),
    "a file beside the top directory": (lambda: make_sdist(entry(b"README")), "more than one top directory"),
    "another project": (lambda: gzip.compress(entry(b"x-1.0/PKG-INFO", METADATA) + ZEROS), "agree with its filename"),
    "another version": (lambda: gzip.compress(entry(b"demo-2/PKG-INFO", METADATA) + ZEROS), "agree with its filename"),
    "no PKG-INFO": (lambda: gzip.compress(entry(b"demo-1.0/setup.py") + ZEROS), "no demo-1.0/PKG-INFO"),
    "a file twice": (lambda: make_sdist(entry(b"demo-1.0/x"), entry(b"demo-1.0/x")), "'demo-1.0/x' twice"),
    "a file and a link of one name": (
        lambda: make_sdist(entry(b"demo-1.0/x"), entry(b"demo-1.0/x", kind=b"2", target=b"y")),
        "'demo-1.0/x' twice",
    ),
    "a file that is a directory too": (
        lambda: make_sdist(entry(b"demo-1.0/x"), entry(b"demo-1.0/x/y")),
        "'demo-1.0/x' as a file and as a directory",
    ),
    "a directory that was a file": (
        lambda: make_sdist(entry(b"demo-1.0/x"), entry(b"demo-1.0/x", kind=b"5")),
        "'demo-1.0/x' as a file and as a directory",
    ),
    "links without end": (
        lambda: make_sdist(
            *(pax(path=b"demo-1.0/%04000d" % i) + entry(b"x", kind=b"2", target=b"y") for i in range(600))
        ),
        "names of directories and links",
    ),
    "PKG-INFO twice": (lambda: make_sdist(PKG_INFO), "twice"),
    "PKG-INFO that is a link": (
        lambda: gzip.compress(entry(b"demo-1.0/PKG-INFO", kind=b"2", target=b"x") + ZEROS),
        "no file",
    ),
    "names without end": (
        lambda: make_sdist(*(pax(path=b"demo-1.0/%04000d/x" % i) + entry(b"x") for i in range(2200))),
        "names of directories and links",
    ),
    "a bomb": (lambda: make_sdist(entry(b"demo-1.0/x", bytes(80 * 2**20))), "unpacks to more than"),
}


@pytest.mark.parametrize(("make", "reason"), BAD_SDISTS.values(), ids=BAD_SDISTS)
def test_a_hostile_sdist_is_refused(tmp_path: Path, make: Callable[[], bytes], reason: str) -> None:
    """The refusal says what is wrong; a lenient look at the same bytes raises nothing."""
    with pytest.raises(Invalid, match=reason) as refused:
        inspect(tmp_path, SDIST, make())
    assert refused.value.message.isprintable()
    find(tmp_path, SDIST, make())


PLAIN = gzip.decompress(make_sdist())
CUT = Found(None, complete=False, problem="The archive is cut short: its compressed stream does not end")
FOUND = {
    "tgz": ("demo-1.0.tgz", make_sdist(), Found(METADATA, complete=True)),
    "bz2": ("demo-1.0.tar.bz2", bz2.compress(PLAIN), Found(METADATA, complete=True)),
    "xz": ("demo-1.0.TAR.XZ", lzma.compress(PLAIN), Found(METADATA, complete=True)),
    "half a tgz": ("demo-1.0.tgz", make_sdist()[:50], CUT),
    "half a bz2": ("demo-1.0.tar.bz2", bz2.compress(PLAIN)[:-1], CUT),
    "half an xz": ("demo-1.0.tar.xz", lzma.compress(PLAIN)[:-1], CUT),
    "one byte": (SDIST, b"\x1f", CUT),
    "an empty file": (SDIST, b"", Found(None, complete=False, problem="The file is empty")),
    "garbage": (SDIST, b"garbage", Found(None, complete=True, problem="The file is not a gzip archive")),
    "a plain tar": ("demo-1.0.tar.bz2", PLAIN, Found(None, complete=True, problem="The file is not a bzip2 archive")),
    "a damaged stream": (
        SDIST,
        make_sdist()[:60] + bytes(300),
        Found(None, complete=True, problem="The archive's compressed stream is damaged"),
    ),
    "a stream that needs too much memory": (
        "demo-1.0.tar.xz",
        lzma.compress(PLAIN, preset=9),
        Found(None, complete=True, problem="The archive needs more than 40 MiB of memory to be unpacked"),
    ),
    "several streams": (SDIST, gzip.compress(PLAIN[:700]) + gzip.compress(PLAIN[700:]), Found(METADATA, complete=True)),
    "several streams, the last cut short": (SDIST, gzip.compress(PLAIN[:700]) + gzip.compress(PLAIN[700:])[:-1], CUT),
    "zeros after the end": (SDIST, make_sdist() + bytes(512), Found(METADATA, complete=True)),
    "a hostile member": (SDIST, make_sdist(entry(b"../x")), Found(METADATA, complete=True)),
    "a tar without an end": (
        SDIST,
        make_sdist(end=b""),
        Found(METADATA, complete=True, problem="The archive is cut short: it has no end-of-archive block"),
    ),
    "no metadata": (
        SDIST,
        gzip.compress(entry(b"demo-1.0/setup.py") + ZEROS),
        Found(None, complete=True, problem="The archive has no metadata"),
    ),
}


@pytest.mark.parametrize(("filename", "content", "expected"), FOUND.values(), ids=FOUND)
def test_a_found_tar_is_whole_or_a_copy_in_progress(
    tmp_path: Path, filename: str, content: bytes, expected: Found
) -> None:
    """A stream that does not end may be a copy in progress; garbage and damage are not."""
    assert expected == find(tmp_path, filename, content)


@pytest.mark.parametrize("compress", (gzip.compress, bz2.compress, lzma.compress))
def test_a_found_tar_is_unpacked_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Callable[[bytes], bytes]
) -> None:
    """Beyond the limit it counts as whole, with the metadata that was seen before."""
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[compress]
    for magic in found_archives._LIMITS:
        monkeypatch.setitem(found_archives._LIMITS, magic, 2**20)
    content = compress(PKG_INFO + entry(b"demo-1.0/x", bytes(3 * 2**20)) + ZEROS)
    expected = Found(METADATA, complete=True, problem="The archive unpacks to more than 1 MiB")
    assert expected == find(tmp_path, f"demo-1.0.tar.{suffix}", content)


def test_every_beginning_of_an_sdist_is_a_copy_in_progress(tmp_path: Path) -> None:
    """Wherever a copy stands, the file is pending and never listed as damaged."""
    content = make_sdist()
    assert not [size for size in range(len(content)) if find(tmp_path, SDIST, content[:size]).complete]


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A header that declares a GiB, and a member of 60 MiB, are not read into memory."""
    bomb = make_sdist(entry(b"demo-1.0/x", bytes(60 * 2**20)), block(b"x", 2**30, b"L"))
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="too long an extension header"):
            inspect(tmp_path, SDIST, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
