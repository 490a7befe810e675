"""Byte ranges and the conditions of a file download (RFC 9110, 13 and 14). Pure: header values in, decisions out."""

import re
from email.utils import parsedate_to_datetime

_RANGE = re.compile(rb"\A\s*bytes\s*=\s*(?:(\d{1,18})\s*-\s*(\d{0,18})|-\s*(\d{1,18}))\s*\Z", re.IGNORECASE)


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


def is_unmodified_since(if_modified_since: bytes | None, mtime: int) -> bool:
    """Whether the file (seconds since 1970) is not newer than the date; nonsense counts as absent."""
    if if_modified_since is None:
        return False
    try:
        return mtime <= parsedate_to_datetime(if_modified_since.decode("ascii")).timestamp()
    except (ValueError, OverflowError, TypeError):
        return False
