"""Which heads are requests: what the parser lets pass, and others on the way may read in another way.

Where two on the way of a connection read it differently, one client's bytes become another's request (RFC 9112, 11.2).
It must not know connections.
"""

import re
from collections.abc import Sequence

Header = tuple[bytes, bytes]

#: RFC 3986, 3.2.2 without user; an empty one is that of a request for no host in particular (RFC 9112, 3.2).
_AUTHORITY = rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?"
_HOST = re.compile(rb"\A" + _AUTHORITY + rb"[ \t]*\Z")
_ABSOLUTE = re.compile(rb"\Ahttps?://(" + _AUTHORITY + rb")/", re.IGNORECASE)


def check_head(method: bytes, target: bytes, version: str, headers: Sequence[Header]) -> None:
    """Raises ValueError where it is none. The parser has seen to lengths: one at most, and none beside a coding."""
    if version not in {"1.1", "1.0"}:
        raise ValueError("not a version that is spoken here")
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    if hosts != 1 and (hosts or version == "1.1"):
        raise ValueError("not one host")
    if hosts and not _HOST.match(headers[names.index(b"host")][1]):
        raise ValueError("not a host")
    if b"transfer-encoding" in names:
        codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
        if codings != [b"chunked"] or version == "1.0":
            raise ValueError("not a coding that is spoken here")
    if target == b"*" and method != b"OPTIONS":
        raise ValueError("not a target of this method")


def read_authority(target: bytes) -> bytes:
    """The host of a target in absolute form. Raises ValueError where it has none that could be this server's."""
    match = _ABSOLUTE.match(target)
    if match is None or not match[1].partition(b":")[0]:
        raise ValueError("not a target of a server")
    return match[1]
