"""Servers as processes that are held to their processors: started, watched through /proc, set aside and ended.

Knows no server in particular.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

#: Where a large catalog must be read from a slow disk, a start takes minutes.
_START_SECONDS = 600
_STOP_SECONDS = 30
_SETTLE_SECONDS = 120
#: Of one processor.
_REST_SHARE = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


def server_cpus() -> set[int]:
    """Where what is measured runs: the first processor of this machine."""
    return {0}


def load_cpus() -> set[int]:
    """Where its clients run: the second, if there is one."""
    return {min(1, (os.cpu_count() or 1) - 1)}


def all_cpus() -> set[int]:
    return set(range(os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Contestant:
    """A running server, and how it is asked for what is compared."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def cpu_seconds(self) -> float:
        """What it and its children used so far."""
        return sum(map(read_cpu_seconds, self.pids()))

    def resident(self) -> float:
        """MiB that it and its children hold."""
        return self._memory("VmRSS")

    def peak(self) -> float:
        """The most MiB that they held since `forget_peak`."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def settle(self, within: float = _SETTLE_SECONDS) -> None:
        """Wait until it has done what it does after its start, as far as it ever rests."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(1)
            if self.cpu_seconds() - before < _REST_SHARE:
                return

    def pids(self) -> list[int]:
        children = _read_children()
        found = [self.process.pid]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found

    def _memory(self, line: str) -> float:
        return sum(_read_kib(pid, line) for pid in self.pids()) / 1024

    @contextmanager
    def alone(self, others: Sequence["Contestant"]) -> Iterator[None]:
        """The others stand still meanwhile, so that what they do at rest is not measured."""
        resting = [other for other in others if other.process is not self.process]
        for other in resting:
            os.killpg(other.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in resting:
                os.killpg(other.process.pid, signal.SIGCONT)


def read_cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _read_kib(pid: int, line: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(one.split()[1]) for one in status.splitlines() if one.startswith(f"{line}:")), 0)


def _read_children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(directory.name))
    return children


def find_free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def launch(
    command: Sequence[str | Path], log: Path, *, cpus: set[int], env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, on these processors, with what it says in `log`."""
    before = os.sched_getaffinity(0)
    log.parent.mkdir(parents=True, exist_ok=True)
    # What a process may run on is inherited: threads that it starts at once included.
    os.sched_setaffinity(0, cpus)
    try:
        with log.open("wb") as output:
            return subprocess.Popen(
                [str(part) for part in command],
                env=None if env is None else {**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    port: int,
    *,
    cpus: set[int],
    env: Mapping[str, str] | None = None,
) -> Iterator[Contestant]:
    """The server for the length of a block, once its port takes connections."""
    process = launch(command, log, cpus=cpus, env=env)
    try:
        wait_for_port(process, port, log)
        yield Contestant(name, process, port)
    finally:
        end(process)


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{process.args!r} did not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.01)
        else:
            return


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, and insist."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
