"""The program of a process that reads archives: it takes jobs from the socket on standard input until that ends.

It holds nothing but what it was sent, and gives up what it could do harm with: it writes no file, starts no process
and gets memory and processor for one archive at a time. Whatever goes wrong here ends the process, and whoever asked
sees that.
"""

import io
import itertools
import os
import resource
import signal
import socket
import sys
import time

from pypiserver_ng.archive.found import inspect_found
from pypiserver_ng.archive.uploads import inspect_upload
from pypiserver_ng.archive.wire import READY, Job, Result, receive_job, send_answer
from pypiserver_ng.errors import Invalid

#: After so many jobs a process asks to be replaced by a fresh one,
_MOST_JOBS = 5000
#: and so it does when they left it larger by so many bytes: every job gets the same on top of what is there.
_MOST_GROWTH = 16 * 2**20
#: Few: the socket, the null device twice, the archive, and /proc.
_MOST_FILES = 16
_BUFFER = 16 * 2**10


class _Archive(io.RawIOBase):
    """A descriptor read at positions of its own: its offset is shared with the process that sent it."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._fd).st_size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # any buffer will do
        count = os.preadv(self._fd, [buffer], self._at)
        self._at += count
        return count


class _Memory:
    """How large this process is, where the system says so."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        try:
            self._fd = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._fd = -1

    def size(self) -> int | None:
        """Bytes of address space."""
        return int(os.pread(self._fd, 32, 0).split()[0]) * self._page if self._fd >= 0 else None


def _limit(kind: int, most: int) -> None:
    """Lower the soft limit; what may be raised again for the next job is the hard one, which stays."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _give_up() -> None:
    # A signal to all processes of the server ends the server, which then ends this one; not a job halfway.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
    ):
        resource.setrlimit(kind, (most, most))


def _inspect(job: Job) -> Result:
    with io.BufferedReader(_Archive(job.fd), _BUFFER) as file:
        try:
            return inspect_upload(file, job.parsed) if job.strict else inspect_found(file, job.parsed)
        except (Invalid, OSError) as error:
            return error.with_traceback(None)


def main() -> None:
    """Arguments: bytes of memory and whole seconds of processor that one job may take."""
    allowance, seconds = int(sys.argv[1]), int(sys.argv[2])
    channel = socket.socket(fileno=sys.stdin.fileno())
    memory = _Memory()
    _give_up()
    channel.sendall(READY)
    first = memory.size() or 0
    for number in itertools.count(1):
        job = receive_job(channel)
        if job is None:
            return
        if (size := memory.size()) is not None:
            _limit(resource.RLIMIT_AS, size + allowance)
        _limit(resource.RLIMIT_CPU, int(time.process_time()) + seconds)
        result = _inspect(job)
        os.close(job.fd)
        grown = (memory.size() or 0) - first > _MOST_GROWTH
        send_answer(channel, result, spent=grown or number == _MOST_JOBS)
        del job, result
