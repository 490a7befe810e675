"""Starts: the first with 100,000 files and later ones, what they leave in memory, and the command that only helps."""

import hashlib
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.corpus import name_project, provide_wheels
from benchmarks.load import Connection, LoadFailedError, ask, write_request
from benchmarks.processes import Contestant, all_cpus
from benchmarks.table import Aim, Line, Section, write_amount

_PROJECTS, _VERSIONS = 10_000, 10
_FILES = _PROJECTS * _VERSIONS
_PATIENCE_SECONDS = 600


def measure(bench: Bench) -> Section:
    wheels = provide_wheels(bench.home, _PROJECTS, _VERSIONS)
    lines = [*_start_first(bench, wheels), *_start_again(bench, wheels), _measure_empty(bench), _measure_help(bench)]
    for old in (bench.home / "data").glob("start-state-*"):
        shutil.rmtree(old)
    notes = (
        f"{_FILES:,} wheels of 1 KB in one directory, {_PROJECTS:,} projects, in the page cache; both processors.",
        "That all is read was measured once.",
        "The floor opens, reads and hashes the same files in two processes of Python, and takes their metadata.",
        "Seconds count from the start of the program; the first page is one of ten files.",
        "Memory after pages: every project's page was asked for once.",
    )
    return Section("Starts and memory", lines, notes)


def _start_first(bench: Bench, wheels: Path) -> list[Line]:
    """With an empty catalog, until the first page and until everything was read."""
    waits = []
    for _ in range(bench.rounds):
        state = _leave_behind(bench)
        with bench.turn():
            start = time.perf_counter()
            with peers.ours(wheels, state, cpus=all_cpus()) as own:
                waits.append(_await_page(own) - start)
    with bench.turn():
        state, start = _leave_behind(bench), time.perf_counter()
        with peers.ours(wheels, state, cpus=all_cpus()) as own:
            seconds, cores = _await_reading(own, state, start)
        floor = _measure_floor(wheels)
    work = f"first start with {_FILES:,} files"
    first = median(waits)
    return [
        Line(f"{work}: first page", write_amount(first, "s"), "", first, "s", Aim(2, at_most=True)),
        Line(
            f"{work}: all read", write_amount(seconds, "s"), f"floor: {write_amount(floor, 's')}", floor / seconds, "×"
        ),
        Line(
            f"{work}: processors used meanwhile", f"{cores:.2f}", f"of {len(all_cpus())}", cores / len(all_cpus()), "×"
        ),
    ]


def _leave_behind(bench: Bench) -> Path:
    """Where nothing is, and nothing was deleted just now: ext4 is slow to make files for minutes after that."""
    state = bench.home / "data" / "start-state"
    if state.exists():
        state.rename(state.with_name(f"start-state-{time.time_ns()}"))
    return state


def _start_again(bench: Bench, wheels: Path) -> list[Line]:
    waits, resident, after = [], [], []
    for number in range(bench.rounds):
        with bench.turn():
            start = time.perf_counter()
            with peers.ours(wheels, bench.home / "data" / "start-state", cpus=all_cpus()) as own:
                waits.append(_await_page(own) - start)
                if number == bench.rounds - 1:
                    _ask(own, "/simple/")
                    resident.append(own.resident())
                    _ask_every_page(own)
                    after.append(own.resident())
    empty, again = _measure_resident(bench), median(waits)
    work = f"start with {_FILES:,} files again"
    lines = [Line(f"{work}: first page", write_amount(again, "s"), "", again, "s", Aim(1, at_most=True))]
    for name, held in (("memory per 1,000 files", resident), ("the same after all pages", after)):
        each = (median(held) - empty) * 1024 / (_FILES / 1000)
        lines.append(Line(name, write_amount(each, "KiB"), "", each, "KiB", Aim(600, at_most=True)))
    return lines


def _measure_empty(bench: Bench) -> Line:
    resident = _measure_resident(bench)
    return Line("memory, empty", write_amount(resident, "MiB"), "", resident, "MiB", Aim(70, at_most=True))


def _measure_resident(bench: Bench) -> float:
    with peers.ours(bench.scratch("empty"), bench.scratch("empty-state"), path="/simple/") as own:
        _await_page(own)
        return own.resident()


def _measure_help(bench: Bench) -> Line:
    program = str(Path(sys.executable).with_name("pypiserver-ng"))
    seconds = bench.repeat(lambda: _time_command(program, "--help"))
    bare = bench.repeat(lambda: _time_command(sys.executable, "-c", "pass"))
    beside = f"Python alone: {write_amount(bare, 's')}"
    return Line("`pypiserver-ng --help`", write_amount(seconds, "s"), beside, seconds, "s", Aim(0.25, at_most=True))


def _time_command(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _await_page(own: Contestant) -> float:
    """When the first page was here."""
    path = own.path if own.path != "/" else f"/simple/{name_project(0)}/"
    deadline = time.perf_counter() + _PATIENCE_SECONDS
    while time.perf_counter() < deadline:
        if _ask(own, path) == 200:
            return time.perf_counter()
        time.sleep(0.005)
    raise LoadFailedError(f"no {path} in {_PATIENCE_SECONDS} s")


def _await_reading(own: Contestant, state: Path, start: float) -> tuple[float, float]:
    """The seconds until every file was read, and how many processors were busy with it."""
    while not _is_read(state):
        if time.perf_counter() > start + _PATIENCE_SECONDS:
            raise LoadFailedError(f"not all is read in {_PATIENCE_SECONDS} s")
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    return seconds, own.cpu_seconds() / seconds


def _is_read(state: Path) -> bool:
    """Asked of indexes and small tables only: who looks must not be what is measured."""
    with closing(sqlite3.connect(f"file:{state / 'catalog.sqlite'}?mode=ro", uri=True, timeout=60)) as connection:
        (known,) = connection.execute("SELECT sum(files) FROM projects").fetchone()
        unread = connection.execute("SELECT id FROM files WHERE sha256 IS NULL LIMIT 1").fetchone()
    return known == _FILES and unread is None


def _ask_every_page(own: Contestant) -> None:
    connection = Connection(own.port)
    for number in range(_PROJECTS):
        answer = connection.ask(write_request(f"/simple/{name_project(number)}/", own.headers), keep=False)
        if answer.status != 200:
            raise LoadFailedError(f"{name_project(number)} was answered {answer.status}")
    connection.close()


def _ask(own: Contestant, path: str) -> int:
    return ask(own, path).status


def _measure_floor(wheels: Path) -> float:
    names = sorted(path.name for path in wheels.iterdir())
    parts = [names[start :: len(all_cpus())] for start in all_cpus()]
    start = time.perf_counter()
    with ProcessPoolExecutor(len(parts)) as processes:
        list(processes.map(_read_wheels, [wheels] * len(parts), parts))
    return time.perf_counter() - start


def _read_wheels(wheels: Path, names: list[str]) -> None:
    for name in names:
        with (wheels / name).open("rb") as file:
            content = file.read()
            for algorithm in ("sha256", "md5", "blake2b"):
                hashlib.new(algorithm, content).hexdigest()
            with zipfile.ZipFile(file) as archive:
                archive.read(next(member for member in archive.namelist() if member.endswith(".dist-info/METADATA")))
