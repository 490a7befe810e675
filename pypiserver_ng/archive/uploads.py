"""An uploaded wheel or sdist is in order in every respect that installers rely on, or refused with the reason."""

from collections.abc import Iterator
from typing import BinaryIO

from pypiserver_ng.archive import tars, wheels, zips
from pypiserver_ng.archive.streams import GZIP, Stream
from pypiserver_ng.archive.tree import MAX_METADATA, Tree, is_called, quote
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Kind, ParsedFilename

#: Up to so many bytes an archive may unpack to at any ratio.
FREE = 64 * 2**20
#: Beyond that, an archive may not unpack to more than this many times its own size.
MAX_RATIO = 50
#: Most bytes a tar may unpack to: it has no directory, so all of it has to be unpacked to see its members, which
#: takes about two seconds.
MAX_TAR = 512 * 2**20
#: Most bytes of a zip that are unpacked and compared with RECORD, the smallest members first; of the others only the
#: names are compared.
MAX_UNPACKED = 256 * 2**20

_TYPE, _UNKNOWN, _DIRECTORY, _FILE, _SYMLINK = 0o170000, 0, 0o040000, 0o100000, 0o120000
_MAX_TARGET = 4096


def inspect_upload(file: BinaryIO, parsed: ParsedFilename) -> bytes:
    """The raw METADATA or PKG-INFO of an uploaded file whose name was read by `filenames.parse_upload`.

    Raises Invalid with the first thing that is wrong, and OSError where the file cannot be read.
    """
    size = file.seek(0, 2)
    if parsed.kind is Kind.WHEEL:
        return _inspect_wheel(file, size, parsed)
    if parsed.filename.endswith(".zip"):
        return _inspect_zip(file, size, parsed)
    return _inspect_tar(file, size, parsed)


def _inspect_wheel(file: BinaryIO, size: int, parsed: ParsedFilename) -> bytes:
    members, _ = _read_members(file, size, depth=0)
    dist_info = wheels.find_dist_info(members, parsed)
    record = wheels.read_record(file, members, dist_info)
    wheels.check_entry_points(file, members, dist_info)
    for member in _choose_checked(members):
        wheels.check_member(file, member, record.get(member.name))
    return _read_metadata(file, members, f"{dist_info}/METADATA")


def _inspect_zip(file: BinaryIO, size: int, parsed: ParsedFilename) -> bytes:
    members, top = _read_members(file, size, depth=1)
    _check_top(top, parsed)
    for member in _choose_checked(members):
        for _ in zips.unpack(file, member):
            pass
    return _read_metadata(file, members, f"{top}/PKG-INFO")


def _read_members(file: BinaryIO, size: int, depth: int) -> tuple[list[zips.Member], str]:
    """The members of a zip that has one reading only, and their first top directory. Raises Invalid."""
    file.seek(0)
    if not (head := file.read(512)).startswith(zips.LOCAL):
        raise Invalid("The file is not a zip archive")
    if tars.is_header(head):
        raise Invalid("The archive is a zip and a tar at once")
    directory = zips.read_directory(file, size)
    zips.check_framing(file, size, directory)
    if sum(member.size for member in directory.members) > max(FREE, MAX_RATIO * size):
        raise Invalid(f"The archive unpacks to more than {MAX_RATIO} times its size")
    tree = Tree(depth)
    for member in directory.members:
        _add_member(file, tree, member)
    tree.finish()
    return directory.members, tree.top


def _add_member(file: BinaryIO, tree: Tree, member: zips.Member) -> None:
    kind = member.mode & _TYPE
    if kind == _SYMLINK:
        target = zips.read(file, member, _MAX_TARGET).decode(errors="surrogateescape")
        tree.add_symlink(member.name, target)
    elif kind not in {_UNKNOWN, _DIRECTORY, _FILE}:
        raise Invalid(f"The archive has a member that is no file, directory or link: {quote(member.name)}")
    elif member.name.endswith("/") and member.size:
        raise Invalid(f"The archive has a directory with content: {quote(member.name)}")
    else:
        tree.add(member.name)


def _choose_checked(members: list[zips.Member]) -> Iterator[zips.Member]:
    """The smallest members, as many as can be unpacked in time: whatever a person would write by hand is among them."""
    total = 0
    for member in sorted(members, key=lambda member: member.size):
        total += member.size
        if total > MAX_UNPACKED:
            return
        yield member


def _read_metadata(file: BinaryIO, members: list[zips.Member], name: str) -> bytes:
    for member in members:
        if member.name == name and member.mode & _TYPE in {_UNKNOWN, _FILE}:
            return zips.read(file, member, MAX_METADATA)
    raise Invalid(f"The archive has no {name}")


def _inspect_tar(file: BinaryIO, size: int, parsed: ParsedFilename) -> bytes:
    file.seek(0)
    if file.read(len(GZIP)) != GZIP:
        raise Invalid("The file is not a gzip archive")
    if zips.is_zip(file, size):
        raise Invalid("The archive is a tar and a zip at once")
    stream = Stream(file, magic=GZIP, limit=min(MAX_TAR, max(FREE, MAX_RATIO * size)), single=True)
    tree = Tree(depth=1)
    metadata = None
    for entry in tars.walk(stream):
        _add_entry(tree, entry)
        if entry.path == f"{tree.top}/PKG-INFO":
            if metadata is not None or entry.type is not tars.Type.FILE or entry.size > MAX_METADATA:
                raise Invalid(f"The archive's {quote(entry.path)} is there twice, no file, or too large")
            metadata = stream.read(entry.size)
    if not stream.drain():
        raise Invalid("The archive has bytes after its end")
    tree.finish()
    _check_top(tree.top, parsed)
    if metadata is None:
        raise Invalid(f"The archive has no {tree.top}/PKG-INFO")
    return metadata


def _add_entry(tree: Tree, entry: tars.Entry) -> None:
    if entry.type is tars.Type.SYMLINK:
        tree.add_symlink(entry.path, entry.target)
    elif entry.type is tars.Type.HARDLINK:
        tree.add_hardlink(entry.path, entry.target)
    elif entry.type is tars.Type.DIRECTORY:
        tree.add(entry.path.removesuffix("/") + "/")
    else:
        tree.add(entry.path)


def _check_top(top: str, parsed: ParsedFilename) -> None:
    if not is_called(top, parsed):
        raise Invalid(f"The archive's top directory {quote(top)} does not agree with its filename")
