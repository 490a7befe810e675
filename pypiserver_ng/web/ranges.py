"""Byte ranges and the conditions of a file download (RFC 9110, 13 and 14). Pure: header values in, decisions out."""

import re
from email.utils import parsedate_to_datetime

_RANGE = re.compile(rb"\A\s*bytes\s*=\s*(?:(\d{1,40})\s*-\s*(\d{0,40})|-\s*(\d{1,40}))\s*\Z", re.IGNORECASE)


class Unsatisfiable(Exception):  # noqa: N818 - the specification's word
    """416: the range lies outside the file."""


def choose_range(value: bytes | None, size: int) -> tuple[int, int] | None:
    """(first, end) of a single satisfiable range, or None for the whole file. Raises Unsatisfiable.

    A unit we do not know, several ranges, or nonsense: "a server MAY ignore the Range header field".
    """
    match = _RANGE.match(value) if value else None
    if match is None:
        return None
    if match[3] is not None:
        length = int(match[3])
        if length == 0 or size == 0:
            raise Unsatisfiable
        return max(size - length, 0), size
    first = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    if first >= size:
        raise Unsatisfiable
    return first, min(last, size - 1) + 1


def may_resume(if_range: bytes | None, etag: bytes, modified: bytes) -> bool:
    """Whether a range may be sent: "a client MUST NOT use a weak entity tag", and dates must be the same."""
    return if_range is None or if_range.strip() in {etag, modified}


def may_proceed(if_match: bytes | None, if_unmodified_since: bytes | None, etag: bytes, mtime: int) -> bool:
    """Whether what the client holds to be true is (RFC 9110, 13.2.2, steps 1 and 2); else the answer is 412."""
    if if_match is not None:
        # Strong comparison: a weak tag never matches.
        return any(tag.strip() in {etag, b"*"} for tag in if_match.split(b","))
    moment = _read_date(if_unmodified_since)
    return moment is None or mtime <= moment


def is_unmodified_since(if_modified_since: bytes | None, mtime: int) -> bool:
    """Whether the file (seconds since 1970) is not newer than the date; nonsense counts as absent."""
    moment = _read_date(if_modified_since)
    return moment is not None and mtime <= moment


def _read_date(value: bytes | None) -> float | None:
    if value is None:
        return None
    try:
        return parsedate_to_datetime(value.decode("ascii")).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
