"""Archives given as bytes, put on the disk and inspected in this process."""

from pathlib import Path

from pypiserver_ng.archive.found import Found, inspect_found
from pypiserver_ng.archive.uploads import inspect_upload
from pypiserver_ng.filenames import parse_found, parse_upload


def inspect(tmp_path: Path, filename: str, content: bytes) -> bytes:
    """What the strict inspection says of an upload with this name and content."""
    path = tmp_path / "scratch"
    path.write_bytes(content)
    with path.open("rb") as file:
        return inspect_upload(file, parse_upload(filename))


def find(tmp_path: Path, filename: str, content: bytes) -> Found:
    """What the lenient inspection says of a file with this name and content."""
    path = tmp_path / "found"
    path.write_bytes(content)
    parsed = parse_found(filename)
    assert parsed is not None
    with path.open("rb") as file:
        return inspect_found(file, parsed)
