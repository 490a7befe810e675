"""The facts of the machine and of what ran on it, without which a figure says little."""

import os
import platform
import re
import sqlite3
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.environments import PEERS, find_program, read_version

ROOT = Path(__file__).parents[1]
_FSYNCS = 100


def describe(home: Path) -> dict[str, str]:
    return {
        "Processor": f"{_read_processor()}, {os.cpu_count()} cores",
        "Memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Disk": f"{measure_fsyncs(home):.0f} fsync/s of 4 KiB",
        "Load before": f"{os.getloadavg()[0]:.1f}",
        "Python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "pypiserver-ng": describe_commit(),
        "Libraries": ", ".join(f"{name} {version(name)}" for name in ("starlette", "uvicorn", "httptools", "uvloop")),
        "nginx": _run(find_program("nginx") or "nginx", "-v").rpartition("/")[2],
        "wrk": _run("wrk", "-v").split(" ")[1],
        **{name: read_version(name, home) for name in PEERS},
        "Measured": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def describe_commit() -> str:
    """The program's version, and the commit where this is a clone."""
    if not (ROOT / ".git").exists():
        return version("pypiserver-ng")
    commit = _run("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _run("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "pypiserver_ng")
    return f"{version('pypiserver-ng')}, commit {commit}{' and changes' if changed else ''}"


def measure_fsyncs(home: Path) -> float:
    """How often a second the disk says that 4 KiB are safe."""
    path = home / "fsync"
    start = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(_FSYNCS):
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    path.unlink()
    return _FSYNCS / (time.perf_counter() - start)


def _read_processor() -> str:
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()


def _run(*command: str) -> str:
    """What it says in its first line, on whichever stream."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]
