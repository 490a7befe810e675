"""The program under test as a real process on a free port of loopback.

It knows the command line, the `ready` line and SIGTERM; nothing of the program's insides.
"""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

#: Everything is open: no password file, no action that needs credentials.
OPEN = ("-P", ".", "-a", ".")

_READY = re.compile(r"\bready\b.*?(?P<url>https?://\S+)")
_START_SECONDS = 60
#: The program promises to finish what is in flight within 25 seconds.
_STOP_SECONDS = 30


class ServerFailedError(AssertionError):
    """The program did not start, did not stop, or ended badly; the message carries its log."""


class Server:
    """A started server. `url` is the root without a trailing slash, any prefix included."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = ""
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def simple(self) -> str:
        """The URL of the simple API, for `--index-url`."""
        return f"{self.url}/simple/"

    @property
    def log(self) -> str:
        """Everything that came on stderr so far."""
        with self._changed:
            return "".join(self._lines)

    def with_credentials(self, user: str, password: str) -> str:
        """The URL of the simple API with the credentials in it."""
        parts = urlsplit(self.simple)
        return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))

    def wait_for_log(self, pattern: str, within: float = 10) -> re.Match[str]:
        """The first match of the pattern in a line of the log, now or within so many seconds."""
        seen: list[re.Match[str]] = []

        def found() -> bool:
            seen.extend(match for line in self._lines if (match := re.search(pattern, line)))
            return bool(seen) or self._ended

        with self._changed:
            self._changed.wait_for(found, timeout=within)
        if not seen:
            raise ServerFailedError(f"no {pattern!r} in its log\n{self.describe()}")
        return seen[0]

    def wait_until_ready(self) -> None:
        self.url = self.wait_for_log(_READY.pattern, _START_SECONDS)["url"].rstrip("/").removesuffix("/simple")

    def stop(self) -> int:
        """Ask it to stop as an init system does and return the exit status; no effect on one that ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailedError(f"still running {_STOP_SECONDS} s after SIGTERM\n{self.describe()}") from None
        self._reader.join(_STOP_SECONDS)
        return self.process.returncode

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()
        self._reader.join(_STOP_SECONDS)

    def describe(self) -> str:
        return f"{self.process.args!r}\nexit status {self.process.poll()}\n--- its log ---\n{self.log}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Serve(Protocol):
    """The fixture `serve`."""

    def __call__(self, *args: str, packages: Path | None = None, env: dict[str, str] | None = None) -> Server:
        """Start a server on `packages` (default: the fixture of that name); `args` follow the directory."""


def start_server(*args: str, packages: Path, cwd: Path, env: Mapping[str, str]) -> Server:
    """Start it and wait until it is ready. `packages` is the first directory; `args` may name more."""
    command = [sys.executable, "-m", "pypiserver_ng", "run", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [*command, str(packages), *args],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
    )
    server = Server(process)
    try:
        server.wait_until_ready()
    except ServerFailedError:
        server.kill()
        raise
    return server


@contextmanager
def running_server(*args: str, packages: Path, cwd: Path, env: Mapping[str, str]) -> Iterator[Server]:
    """A server for the length of a block.

    A status other than 0 at the end, or a traceback in the log, fails the test that used it.
    """
    server = start_server(*args, packages=packages, cwd=cwd, env=env)
    try:
        yield server
    finally:
        status = server.stop()
    if status or "Traceback (most recent call last)" in server.log:
        raise ServerFailedError(f"the server ended badly\n{server.describe()}")


def wait_until(condition: Callable[[], bool], within: float = 2.0) -> None:
    """Return as soon as the condition holds; fail when it does not within so many seconds.

    The default is what the program promises for files that come and go by hand.
    """
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not so within {within} s"
        time.sleep(0.02)
