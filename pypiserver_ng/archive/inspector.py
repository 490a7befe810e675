"""Has archives read by processes with limits, so that none can take the server's memory, its time or its life.

Two processes, started when they are needed, that each read one archive at a time. Knows nothing of archives itself.
"""

import contextlib
import errno
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pypiserver_ng.archive.found import Found
from pypiserver_ng.archive.wire import Broken, Job, Late, Result, Untouched, receive_answer, receive_ready, send_job
from pypiserver_ng.errors import Invalid, Unavailable
from pypiserver_ng.model import ParsedFilename

_log = logging.getLogger(__name__)

_PROCESSES = 2
_START_SECONDS = 10.0
_END_SECONDS = 1.0
_RETRY_SECONDS = 5
#: How long one archive waits for others.
_PATIENCE_SECONDS = 10.0

_LATE = "The archive takes too long to read"
_BEYOND = "The archive cannot be read within the limits of memory and time"

#: What an interpreter without `site` needs to find this program and its libraries: they may lie in a checkout or
#: beside a console script. At the end, or a neighbour could pass for a module of the standard library.
_PROGRAM = "import sys; sys.path += sys.argv[3:]; from pypiserver_ng.archive.child import main; main()"
_HOME = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may take: bytes of memory beyond an idle process, seconds of processor and of clock."""

    memory: int = 64 * 2**20
    processor: int = 4
    clock: float = 5.0


class Inspector:
    """Safe to use from several threads at once. `close` ends the processes."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        #: A place for each process, None where it was not started yet or is gone; the last used is the next used.
        self._places: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(_PROCESSES):
            self._places.put(None)
        self._lock = threading.Lock()
        self._running: set[_Process] = set()
        self._closed = threading.Event()

    def inspect_upload(self, path: Path, parsed: ParsedFilename) -> bytes:
        """The raw METADATA or PKG-INFO of an uploaded file whose name was read by `filenames.parse_upload`.

        Raises Invalid with the first thing that is wrong, OSError where the file cannot be read, and Unavailable
        where no process can be had.
        """
        with path.open("rb") as file:
            try:
                result = self._ask(Job(file.fileno(), parsed, strict=True))
            except OSError as fault:
                _log.warning("no process to read archives can be had: %s", fault)
                raise Unavailable("archives cannot be read just now", retry_after=_RETRY_SECONDS) from fault
        if isinstance(result, bytes):
            return result
        assert not isinstance(result, Found)
        raise result

    def inspect_found(self, fd: int, parsed: ParsedFilename) -> Found:
        """Look into an open file whose name was read by `filenames.parse_found`; its offset stays where it is.

        Raises OSError where the file cannot be read, or cannot be read now: the same file may have another answer
        in a moment.
        """
        result = self._ask(Job(fd, parsed, strict=False))
        if isinstance(result, Found):
            return result
        if isinstance(result, Invalid):
            return Found(None, complete=True, problem=result.message)
        assert isinstance(result, OSError)
        raise result

    def close(self) -> None:
        """End the processes at once; who waits for one gets an error as if there were none."""
        with self._lock:
            self._closed.set()
            for process in self._running:
                process.kill()
        for _ in range(_PROCESSES):
            self._retire(self._places.get())
        for _ in range(_PROCESSES):
            self._places.put(None)

    def _ask(self, job: Job) -> Result:
        """Raises OSError where no process can be had."""
        try:
            process = self._places.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            raise BlockingIOError(errno.EAGAIN, "too many archives are waiting") from None
        spent = True
        try:
            process = process or self._start()
            try:
                result, spent = process.ask(job, self._limits.clock)
            except Untouched:
                # It ended while it was idle, which says nothing of this archive.
                self._retire(process)
                process = self._start()
                result, spent = process.ask(job, self._limits.clock)
        except (Broken, Late) as fault:
            result = self._judge(job, fault, process)
        finally:
            if spent:
                self._retire(process)
            self._places.put(None if spent else process)
        return result

    def _judge(self, job: Job, fault: Broken | Late, process: "_Process | None") -> Invalid:
        """What it says of the archive that there is no answer. Raises OSError where it says nothing."""
        if self._closed.is_set():
            raise InterruptedError("the server stops")
        if isinstance(fault, Broken) and process is not None and process.was_killed():
            # Not by its limits: somebody else, or a machine without memory, ended it.
            raise InterruptedError("a process to read archives was killed")
        reason = _LATE if isinstance(fault, Late) else _BEYOND
        _log.warning("%s: %s", job.parsed.filename, reason)
        return Invalid(reason)

    def _start(self) -> "_Process":
        """Raises OSError."""
        if not self._closed.is_set():
            process = _Process(self._limits)
            with self._lock:
                self._running.add(process)
                if self._closed.is_set():
                    process.kill()
            return process
        raise InterruptedError("the server stops")

    def _retire(self, process: "_Process | None") -> None:
        if process is not None:
            with self._lock:
                self._running.discard(process)
            process.end()


class _Process:
    """One process; used by one thread at a time."""

    def __init__(self, limits: Limits) -> None:
        """Blocks until it can take jobs. Raises OSError."""
        paths = [path for path in dict.fromkeys((_HOME, *sys.path)) if os.path.isabs(path)]  # noqa: PTH117 - texts for a command
        flags = ("-I", "-S", "-B")
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            self._channel = ours
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [sys.executable, *flags, "-c", _PROGRAM, str(limits.memory), str(limits.processor), *paths],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # What finds shared libraries; it needs nothing else, secrets least of all.
                env={name: value for name, value in os.environ.items() if name.startswith(("LD_", "DYLD_"))},
                # Ctrl-C is for the server, which tells this process by closing the socket.
                start_new_session=True,
            )
            theirs.close()
            undo.callback(self.end)
            receive_ready(ours, _START_SECONDS)
            undo.pop_all()

    def ask(self, job: Job, seconds: float) -> tuple[Result, bool]:
        """The result, and whether the process is spent. Raises Untouched, Broken and Late."""
        send_job(self._channel, job)
        return receive_answer(self._channel, time.monotonic() + seconds)

    def was_killed(self) -> bool:
        """Whether it ended by a signal that its limits never send. Only after it broke off."""
        try:
            return self._process.wait(_END_SECONDS) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False

    def kill(self) -> None:
        """From any thread: whoever waits for an answer sees that there will be none."""
        self._process.kill()

    def end(self) -> None:
        self._channel.close()
        self._process.kill()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            # Even a killed process waits for a disk that does not answer. Nobody waits for it in turn: `subprocess`
            # collects what is left behind when it starts the next.
            _log.warning("a process to read archives does not end: it waits for the disk")
