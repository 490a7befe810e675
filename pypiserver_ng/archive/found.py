"""A file that lies in a served directory: its metadata where it can be read, and whether the file is whole."""

import re
from dataclasses import dataclass
from typing import BinaryIO

from pypiserver_ng.archive import tars, zips
from pypiserver_ng.archive.streams import BZIP2, GZIP, XZ, Stream, Truncated
from pypiserver_ng.archive.tree import MAX_METADATA, is_called
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Kind, ParsedFilename

#: Most bytes that are unpacked to see whether a tar is whole: what takes about two seconds.
_LIMITS = {GZIP: 512 * 2**20, BZIP2: 32 * 2**20, XZ: 128 * 2**20}
_MAGICS = (
    (re.compile(r"\.(?:whl|egg|zip)\Z", re.IGNORECASE), zips.LOCAL, "a zip archive"),
    (re.compile(r"\.(?:tar\.gz|tgz)\Z", re.IGNORECASE), GZIP, "a gzip archive"),
    (re.compile(r"\.tar\.bz2\Z", re.IGNORECASE), BZIP2, "a bzip2 archive"),
    (re.compile(r"\.tar\.xz\Z", re.IGNORECASE), XZ, "an xz archive"),
)
_METADATA = {
    Kind.WHEEL: re.compile(r"([^/]+)\.dist-info/METADATA"),
    Kind.EGG: re.compile(r"(EGG-INFO)/PKG-INFO"),
    Kind.SDIST: re.compile(r"([^/]+)/PKG-INFO"),
}

#: Members that may be a file's metadata and are compared with its name.
_MOST_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class Found:
    """What a file that lies in a served directory turned out to be."""

    #: METADATA of a wheel, PKG-INFO of an sdist or an egg, where it could be read.
    metadata: bytes | None
    #: False for what looks like a copy in progress: it is empty, or begins as its kind does and the end is missing.
    complete: bool
    #: One line; None where nothing is wrong.
    problem: str | None = None


def inspect_found(file: BinaryIO, parsed: ParsedFilename) -> Found:
    """Look into an open file, from its beginning, whose name was read by `filenames.parse_found`.

    The file is open already, so that what is learnt is of the same bytes that its caller hashes. Quick for zip
    files, of which the end and the metadata are read; a tar is unpacked once, up to a limit. Installers and signatures
    are not looked into. Raises OSError where the file cannot be read, and nothing on its content.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if size == 0:
        return Found(None, complete=False, problem="The file is empty")
    for suffix, magic, title in _MAGICS:
        if suffix.search(parsed.filename):
            head = file.read(len(magic))
            if not magic.startswith(head):
                return Found(None, complete=True, problem=f"The file is not {title}")
            return _inspect(file, size, parsed, magic)
    return Found(None, complete=True)


def _inspect(file: BinaryIO, size: int, parsed: ParsedFilename, magic: bytes) -> Found:
    try:
        if magic == zips.LOCAL:
            return _inspect_zip(file, size, parsed)
        return _inspect_tar(file, magic)
    except Truncated as error:
        return Found(None, complete=False, problem=error.message)
    except Invalid as error:
        return Found(None, complete=True, problem=error.message)


def _inspect_zip(file: BinaryIO, size: int, parsed: ParsedFilename) -> Found:
    directory = zips.read_directory(file, size)
    problem = None if directory.end == size else "The archive has bytes after its end"
    member = _choose_member(directory, parsed)
    if member is None:
        return Found(None, complete=True, problem=problem or "The archive has no metadata")
    return Found(zips.read(file, member, MAX_METADATA), complete=True, problem=problem)


def locate_metadata(file: BinaryIO, size: int, parsed: ParsedFilename) -> tuple[int, int] | None:
    """The first and the last byte of a wheel's metadata, or None where it has none that could be read.

    For a file of which not everything is here: only its zip directory is read. Raises Invalid where that is not here.
    """
    member = _choose_member(zips.read_directory(file, size), parsed)
    if member is None or member.packed > MAX_METADATA:
        return None
    return member.offset, min(member.offset + zips.LONGEST_LOCAL + member.packed, size) - 1


def _choose_member(directory: zips.Directory, parsed: ParsedFilename) -> zips.Member | None:
    """What is most likely the archive's own metadata."""
    matches = [(member, _METADATA[parsed.kind].fullmatch(member.name)) for member in directory.members]
    # A hostile archive may hold thousands of them, and a look at each takes time.
    found = [(member, match[1]) for member, match in matches if match][:_MOST_CANDIDATES]
    return min(found, key=lambda pair: not is_called(pair[1], parsed))[0] if found else None


def _inspect_tar(file: BinaryIO, magic: bytes) -> Found:
    stream = Stream(file, magic=magic, limit=_LIMITS[magic])
    metadata = problem = None
    try:
        for entry in tars.walk(stream):
            is_metadata = entry.type is tars.Type.FILE and _METADATA[Kind.SDIST].fullmatch(entry.path)
            if is_metadata and metadata is None and entry.size <= MAX_METADATA:
                metadata = stream.read(entry.size)
    except Truncated:
        raise
    except Invalid as error:
        problem = error.message
    try:
        stream.drain()
    except Truncated:
        raise
    except Invalid as error:
        problem = problem or error.message
    if metadata is None:
        problem = problem or "The archive has no metadata"
    return Found(metadata, complete=True, problem=problem)
