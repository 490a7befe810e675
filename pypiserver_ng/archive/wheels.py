"""What has to be in a wheel: the ``.dist-info`` directory and a RECORD that tells the truth.

Follows the binary distribution format and "Recording installed projects". Knows nothing of the metadata's fields.
"""

import base64
import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

from pypiserver_ng.archive import zips
from pypiserver_ng.archive.tree import is_called, quote
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import ParsedFilename

#: Largest RECORD, entry_points.txt and WHEEL in bytes.
_MAX_RECORD = 8 * 2**20
_MAX_SMALL = 2**20
#: Most lines of RECORD, twice as many as a zip may have members, and the longest of them in characters.
_MAX_LINES = 100_000
_MAX_LINE = 8 * 2**10
_SUFFIX = ".dist-info"
#: "RECORD.jws", "RECORD.p7s": signatures of RECORD cannot be recorded in it.
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
#: "sha256 or better; specifically, md5, sha1 and sha224 are not permitted".
_PERMITTED = ("sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "blake2b", "blake2s")
#: One text for all rows.
_ALGORITHMS = {name: name for name in _PERMITTED}


class Row(NamedTuple):
    """What RECORD says of one file; empty where it says nothing."""

    algorithm: str
    digest: str
    size: str


def find_dist_info(members: list[zips.Member], parsed: ParsedFilename) -> str:
    """The one top directory ``{name}-{version}.dist-info``. Raises Invalid."""
    tops = {member.name.partition("/")[0] for member in members}
    found = sorted(top for top in tops if top.lower().endswith(_SUFFIX))
    if len(found) != 1:
        raise Invalid(f"A wheel has exactly one .dist-info directory, this one has {len(found)}")
    if not found[0].endswith(_SUFFIX) or not is_called(found[0].removesuffix(_SUFFIX), parsed):
        raise Invalid(f"The wheel's {quote(found[0])} does not agree with its filename")
    return found[0]


def read_record(file: BinaryIO, members: list[zips.Member], dist_info: str) -> dict[str, Row]:
    """RECORD by path, after it was seen to name exactly the archive's files. Raises Invalid."""
    files = {member.name: member for member in members if not member.name.endswith("/")}
    for name in ("METADATA", "WHEEL", "RECORD"):
        if f"{dist_info}/{name}" not in files:
            raise Invalid(f"The wheel has no {dist_info}/{name}")
    unrecorded = {f"{dist_info}/{name}": f"{dist_info}/{name}" for name in _UNRECORDED}
    record = _parse_record(
        zips.read(file, files[f"{dist_info}/RECORD"], _MAX_RECORD), unrecorded | {name: name for name in files}
    )
    for name in files:
        if name not in record and name not in unrecorded:
            raise Invalid(f"The wheel's RECORD does not name {quote(name)}")
    return record


def _parse_record(raw: bytes, names: Mapping[str, str]) -> dict[str, Row]:
    """RECORD by path. Raises Invalid at the first path that is none of `names`: a hostile RECORD may have millions."""
    rows: dict[str, Row] = {}
    try:
        for line in _read_lines(raw):
            # Line by line: no name holds a newline, and one row may not have more columns than a line.
            columns = next(csv.reader((line,)), None)
            if not columns:
                continue
            path, digest, size = columns
            if path not in names:
                raise Invalid(f"The wheel's RECORD names {quote(path)}, which is not there")
            algorithm, _, value = digest.partition("=")
            row = Row(_ALGORITHMS.get(algorithm, algorithm), value.rstrip("="), size)
            if rows.setdefault(names[path], row) != row:
                raise Invalid(f"The wheel's RECORD names {quote(path)} twice")
    except (csv.Error, ValueError) as error:
        raise Invalid("The wheel's RECORD is malformed") from error
    return rows


def _read_lines(raw: bytes) -> Iterator[str]:
    """Raises ValueError where a line is too long, or is not UTF-8, or there are too many."""
    text = io.TextIOWrapper(io.BytesIO(raw), "utf-8", newline="")
    for _ in range(_MAX_LINES):
        line = text.readline(_MAX_LINE)
        if not line:
            return
        if len(line) == _MAX_LINE:
            raise ValueError
        yield line
    raise ValueError


def check_member(file: BinaryIO, member: zips.Member, row: Row | None) -> None:
    """Unpack a member and compare it with its row of RECORD, as far as that says anything. Raises Invalid."""
    algorithm = row.algorithm if row else ""
    if algorithm and algorithm not in _ALGORITHMS:
        raise Invalid(f"The wheel's RECORD has a hash of an algorithm that is not permitted for {quote(member.name)}")
    digest = hashlib.new(algorithm) if algorithm else None
    for piece in zips.unpack(file, member):
        if digest:
            digest.update(piece)
    if row and row.size not in {"", str(member.size)}:
        raise Invalid(f"The wheel's RECORD has another size for {quote(member.name)}")
    if row and digest and _encode(digest.digest()) != row.digest:
        raise Invalid(f"The wheel's RECORD has another hash for {quote(member.name)}")


def _encode(digest: bytes) -> str:
    # RECORD has base64 in the alphabet for URLs, without padding.
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def check_entry_points(file: BinaryIO, members: list[zips.Member], dist_info: str) -> None:
    """Raise Invalid where a script would be written outside of the directory of scripts."""
    for member in members:
        if member.name == f"{dist_info}/entry_points.txt":
            text = zips.read(file, member, _MAX_SMALL).decode(errors="replace")
            for name in _find_scripts(text):
                if "/" in name or "\\" in name or name in {".", ".."}:
                    raise Invalid(f"The wheel has a script whose name is a path: {quote(name)}")


def _find_scripts(text: str) -> Iterator[str]:
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[] \t")
        elif section in {"console_scripts", "gui_scripts"} and line[:1] not in {"", "#", ";"}:
            yield line.partition("=")[0].strip()
