"""One entry of another index's page becomes an `UpstreamFile`, or nothing.

Everything in an entry is a stranger's word: what cannot be read safely costs the entry, never the page. Both forms of
the simple API arrive here in the shape of the JSON one. No I/O, no HTTP.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from pypiserver_ng.filenames import MAX_LENGTH, parse_found
from pypiserver_ng.model import Kind, NormalizedName, Status, UpstreamFile, UpstreamPage
from pypiserver_ng.upstream.addresses import clean_url

#: What is shown of a reason.
_LONGEST_REASON = 1000
#: A longer Requires-Python costs the file: one that is ignored would let the wrong file be chosen.
_LONGEST_REQUIRES_PYTHON = 2**10
_LONGEST_TIME = 64
#: Larger integers are not the same number in every JSON reader.
_MOST_BYTES = 2**53

#: Hex digits of each digest but sha256, the strongest first.
_OTHER_DIGESTS = {"sha512": 128, "sha384": 96, "blake2b_256": 64, "sha224": 56, "md5": 32}
_STATUSES = {marker.value: marker for marker in Status}
_HEX = re.compile(r"\A[0-9a-f]+\Z")
#: A time without its hour could be any moment of that day, and a cooldown counts from it.
_TIME = re.compile(r"\A\d{4}-\d\d-\d\d[T ]\d\d:?\d\d", re.ASCII)


class Entry(msgspec.Struct, rename="kebab", gc=False):
    """A file as the JSON form lists it. What is `Any` may be malformed without harm, and counts as absent then."""

    filename: str
    url: str
    hashes: dict[str, Any] | None = None
    requires_python: str | None = None
    yanked: bool | str | None = None
    size: Any = None
    upload_time: Any = None
    core_metadata: Any = None
    dist_info_metadata: Any = None
    data_dist_info_metadata: Any = None
    gpg_sig: Any = None
    provenance: Any = None


class Collector:
    """Takes the entries of one page: the first with a sha256 of each filename stays."""

    def __init__(self, name: NormalizedName, base: str) -> None:
        self._name = name
        self._base = base
        self._files: dict[str, UpstreamFile] = {}

    def take(self, entry: Entry) -> None:
        file = self._read(entry)
        if file is None:
            return
        known = self._files.get(file.filename)
        if known is None or (known.sha256 is None and file.sha256 is not None):
            self._files[file.filename] = file

    def finish(self, status: object, reason: object) -> UpstreamPage:
        marker = _STATUSES.get(status.strip().lower(), Status.ACTIVE) if isinstance(status, str) else Status.ACTIVE
        return UpstreamPage(tuple(self._files.values()), marker, read_reason(reason))

    def _read(self, entry: Entry) -> UpstreamFile | None:
        parsed = parse_found(entry.filename)
        if parsed is None or parsed.name != self._name or parsed.kind is Kind.SIGNATURE:
            return None
        if not entry.filename.isascii() and len(entry.filename.encode()) > MAX_LENGTH:
            return None
        url = clean_url(entry.url, self._base)
        sha256, other = _read_digests(entry.hashes or {})
        requires_python = (entry.requires_python or "").strip()
        if url is None or sha256 == _MALFORMED or not _is_requirement(requires_python):
            return None
        return UpstreamFile(
            filename=parsed.filename,
            project=self._name,
            display_name=parsed.display_name,
            version=parsed.version,
            kind=parsed.kind,
            url=url,
            sha256=sha256,
            other_digest=other,
            size=_read_size(entry.size),
            upload_time=_read_time(entry.upload_time),
            requires_python=requires_python or None,
            metadata_sha256=_read_metadata(entry),
            # An empty text is no yank in JSON: "if the yanked key is present and is a truthy value".
            yanked=bool(entry.yanked),
            yanked_reason=read_reason(entry.yanked),
            has_signature=entry.gpg_sig is True,
            provenance_url=clean_url(entry.provenance, self._base) if _is_text(entry.provenance) else None,
        )


def read_reason(value: object) -> str | None:
    """A text for people, of bounded length and on one line."""
    if not isinstance(value, str) or not value.strip():
        return None
    return "".join(letter if letter.isprintable() else "?" for letter in value.strip()[:_LONGEST_REASON])


_MALFORMED = "malformed"


def _read_digests(hashes: dict[str, Any]) -> tuple[str | None, str | None]:
    """The sha256, else the strongest other digest; `_MALFORMED` is a sha256 that must not count as absent."""
    given = hashes.get("sha256")
    if given is not None and given != "":
        return _read_hex(given, 64) or _MALFORMED, None
    return None, next(_find_others(hashes), None)


def _find_others(hashes: dict[str, Any]) -> Iterator[str]:
    for algorithm, length in _OTHER_DIGESTS.items():
        if digest := _read_hex(hashes.get(algorithm), length):
            yield f"{algorithm}={digest}"


def _read_hex(value: object, length: int) -> str | None:
    if not isinstance(value, str) or len(value) != length:
        return None
    digest = value.lower()
    return digest if _HEX.match(digest) else None


def _read_metadata(entry: Entry) -> str | None:
    """PEP 714: the new name first, then the old ones; the first that is there decides."""
    given = (entry.core_metadata, entry.dist_info_metadata, entry.data_dist_info_metadata)
    value = next((each for each in given if each is not None), None)
    if not isinstance(value, dict):
        return "" if value is True else None
    digest = value.get("sha256")
    return "" if digest is None else _read_hex(digest, 64)


def _read_size(value: object) -> int | None:
    # A bool is an int to `isinstance`.
    return value if type(value) is int and 0 <= value < _MOST_BYTES else None


def _read_time(value: object) -> datetime | None:
    if not isinstance(value, str) or len(value) > _LONGEST_TIME or not _TIME.match(value):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _is_requirement(text: str) -> bool:
    return len(text) <= _LONGEST_REQUIRES_PYTHON and text.isprintable()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""
