"""What the server and a process that reads archives say to each other, over a pair of stream sockets.

A job is one message with an open descriptor; an answer is a fixed head and at most two texts. Whoever receives an
answer trusts none of it: hostile bytes made it.
"""

import socket
import struct
import time
from typing import NamedTuple

from pypiserver_ng.archive.found import Found
from pypiserver_ng.archive.tree import MAX_METADATA
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Kind, NormalizedName, ParsedFilename

#: The first byte of all, once the process can take jobs.
READY = b"+"

#: What became of a job: the metadata of an upload, what a found file is, or why there is neither.
Result = bytes | Found | Invalid | OSError

_JOB = struct.Struct("!?I")
#: Longer than five fields that come from one filename ever are.
_MAX_JOB = 16 * 2**10
#: Which result, whether the process should end, a number, and the lengths of metadata and text.
_ANSWER = struct.Struct("!c?iII")
_NONE = 0xFFFF_FFFF
_MAX_TEXT = 4096
_UPLOAD, _FOUND, _INVALID, _FAULT = b"u", b"f", b"i", b"e"


class Job(NamedTuple):
    """A descriptor whose offset is not ours to move, the file's name, and whether it is inspected as an upload."""

    fd: int
    parsed: ParsedFilename
    strict: bool


class Broken(Exception):  # noqa: N818 - an outcome, as in `errors`
    """The other end is gone, or talks nonsense."""


class Untouched(ConnectionError):  # noqa: N818
    """The other end is gone, and never took the job."""


class Late(Exception):  # noqa: N818
    """There was no answer in time."""


def receive_ready(channel: socket.socket, seconds: float) -> None:
    """Wait until the process can take jobs. Raises OSError where it ends before."""
    channel.settimeout(seconds)
    try:
        ready = channel.recv(len(READY))
    except TimeoutError:
        ready = b""
    if ready != READY:
        raise ChildProcessError("a process to read archives does not start")


def send_job(channel: socket.socket, job: Job) -> None:
    """Raises Untouched."""
    parsed = job.parsed
    body = f"{parsed.filename}\0{parsed.display_name}\0{parsed.name}\0{parsed.version}\0{parsed.kind}".encode()
    try:
        socket.send_fds(channel, [_JOB.pack(job.strict, len(body)) + body], [job.fd])
    except OSError:
        raise Untouched("the process ended before it took the job") from None


def receive_job(channel: socket.socket) -> Job | None:
    """The next job, or None when there will be none."""
    message, fds, _, _ = socket.recv_fds(channel, _MAX_JOB, 1)
    if not message:
        return None
    strict, length = _JOB.unpack_from(message)
    body = message[_JOB.size :]
    assert len(body) == length
    filename, display_name, name, version, kind = body.decode().split("\0")
    return Job(fds[0], ParsedFilename(filename, display_name, NormalizedName(name), version, Kind(kind)), strict)


def send_answer(channel: socket.socket, result: Result, *, spent: bool) -> None:
    """`spent`: this process takes no more jobs."""
    kind, number, metadata, text = _flatten(result)
    line = text.encode(errors="backslashreplace")[:_MAX_TEXT]
    length = _NONE if metadata is None else len(metadata)
    # At once, or the other end would be woken for the head alone.
    channel.sendall(_ANSWER.pack(kind, spent, number, length, len(line)) + line + (metadata or b""))


def _flatten(result: Result) -> tuple[bytes, int, bytes | None, str]:
    match result:
        case bytes():
            return _UPLOAD, 0, result, ""
        case Found():
            return _FOUND, result.complete, result.metadata, result.problem or ""
        case Invalid():
            return _INVALID, 0, None, result.message
        case OSError():
            return _FAULT, result.errno or 0, None, result.strerror or ""


def receive_answer(channel: socket.socket, deadline: float) -> tuple[Result, bool]:
    """The result, and whether the process is spent; `deadline` is monotonic.

    Raises Untouched, Broken and Late.
    """
    kind, spent, number, length, line_length = _ANSWER.unpack(_receive(channel, _ANSWER.size, deadline))
    if line_length > _MAX_TEXT or MAX_METADATA < length != _NONE:
        raise Broken
    text = _receive(channel, line_length, deadline).decode(errors="replace")
    metadata = None if length == _NONE else bytes(_receive(channel, length, deadline))
    if kind == _UPLOAD and metadata is not None:
        return metadata, spent
    if kind == _FOUND:
        return Found(metadata, complete=bool(number), problem=text or None), spent
    if kind == _INVALID:
        return Invalid(text), spent
    if kind == _FAULT:
        return OSError(number, text), spent
    raise Broken


def _receive(channel: socket.socket, size: int, deadline: float) -> bytearray:
    data = bytearray(size)
    at = 0
    while at < size:
        # Zero would mean not to wait at all, which is another error.
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            count = channel.recv_into(memoryview(data)[at:])
        except TimeoutError:
            raise Late from None
        except ConnectionResetError:
            # The other end closed with our message unread.
            raise Untouched("the process ended before it took the job") from None
        except OSError:
            raise Broken from None
        if not count:
            raise Broken
        at += count
    return data
