"""Several processes that serve one socket; one that dies is replaced.

Knows processes and signals only. The supervisor serves nothing itself and starts no thread, so that it can fork.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NoReturn

_log = logging.getLogger(__name__)

#: Seconds for requests in flight and for closing the index; then what is left is killed.
_GRACE_SECONDS = 24.5
#: A worker that died is replaced at most this often, in seconds.
_RESPAWN_SECONDS = 1.0
_STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_WATCHED = {signal.SIGCHLD, signal.SIGALRM, signal.SIGUSR1, *_STOPPING}

#: Serves at a seat until it is told to stop; calls its second argument with a line for people once it can answer.
Serve = Callable[[int, Callable[[str], None]], None]


def supervise(count: int, serve: Serve, on_ready: Callable[[str], None], on_end: Callable[[int], None]) -> int:
    """Run `serve` in `count` processes until SIGTERM or SIGINT; returns the exit code.

    Each has a seat, from 0 on; who replaces it takes the same one. The first starts alone: what keeps it from starting
    is said once, and what has to be made is made once. When all can answer, `on_ready` gets the line of the last. When
    one has ended, `on_end` gets its seat, before another takes it.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        return _Supervisor(count, serve, on_ready, on_end).run()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class _Supervisor:
    def __init__(
        self, count: int, serve: Serve, on_ready: Callable[[str], None], on_end: Callable[[int], None]
    ) -> None:
        self._count = count
        self._serve = serve
        self._on_ready = on_ready
        self._on_end = on_end
        #: Process ids, and of each its seat and when it was started (monotonic).
        self._workers: dict[int, tuple[int, float]] = {}
        self._ready = 0
        self._reports, self._report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Nobody writes into it: its end tells the workers that the supervisor is gone.
        self._life, self._living = os.pipe2(os.O_CLOEXEC)

    def run(self) -> int:
        self._start()
        while True:
            match signal.sigwait(_WATCHED):
                case signal.SIGTERM | signal.SIGINT | signal.SIGHUP:
                    return self._stop()
                case signal.SIGUSR1:
                    self._hear()
                case signal.SIGCHLD:
                    code = self._bury()
                    if code is not None:
                        self._stop()
                        return code
                case _:
                    self._fill()

    def _start(self) -> None:
        supervisor = os.getpid()
        seat = min(set(range(self._count)) - {taken for taken, _ in self._workers.values()})
        try:
            pid = os.fork()
        except OSError as fault:
            if not self._workers:
                raise
            _log.warning("no process can be started now: %s", fault.strerror)
            signal.setitimer(signal.ITIMER_REAL, _RESPAWN_SECONDS)
            return
        if pid == 0:
            self._work(supervisor, seat)
        self._workers[pid] = (seat, time.monotonic())

    def _work(self, supervisor: int, seat: int) -> NoReturn:
        """The life of a worker, from the fork to its end."""
        os.close(self._living)
        threading.Thread(target=self._outlive_nobody, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)

        def report(line: str) -> None:
            os.write(self._report, line.encode()[:500] + b"\n")
            os.kill(supervisor, signal.SIGUSR1)

        self._serve(seat, report)
        # Back through the whole stack of the command, so that everything is closed.
        raise SystemExit(0)

    def _outlive_nobody(self) -> None:
        os.read(self._life, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _hear(self) -> None:
        try:
            lines = os.read(self._reports, 1 << 16).decode().splitlines()
        except BlockingIOError:
            return
        was_ready = self._ready >= self._count
        self._ready += len(lines)
        if self._ready >= self._count and not was_ready:
            self._on_ready(lines[-1])
        self._fill()

    def _fill(self) -> None:
        """Start what is missing; a worker that died a moment ago has to wait."""
        if not self._ready:
            return
        missing = self._count - len(self._workers)
        for _ in range(missing):
            self._start()

    def _bury(self) -> int | None:
        """Take note of workers that ended. Returns the exit code if the first could not even start."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid not in self._workers:
                continue
            seat, started = self._workers.pop(pid)
            self._on_end(seat)
            if not self._ready:
                return os.waitstatus_to_exitcode(status) or 1
            _log.warning("worker %d ended (%s) and is replaced", pid, _describe(status))
            pause = max(started + _RESPAWN_SECONDS - time.monotonic(), 0.001)
            signal.setitimer(signal.ITIMER_REAL, pause)

    def _stop(self) -> int:
        """End all workers; those that do not in time are killed."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in _WATCHED - {signal.SIGCHLD}:
            # Told twice is told: what is pending must not end this process when it is let through.
            signal.signal(number, signal.SIG_IGN)
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._workers:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid:
                self._workers.pop(pid, None)
            elif time.monotonic() > deadline:
                for left in self._workers:
                    os.kill(left, signal.SIGKILL)
                deadline += _GRACE_SECONDS
            else:
                time.sleep(0.02)
        return 0


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit code {code}"
