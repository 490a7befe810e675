"""The page of all projects: the first time, after a change, and from memory."""

import time
from pathlib import Path
from statistics import median

from benchmarks import catalogs, peers
from benchmarks.bench import Bench
from benchmarks.corpus import build_wheel
from benchmarks.load import Connection, LoadFailedError, write_request
from benchmarks.processes import Contestant, all_cpus
from benchmarks.table import Aim, Line, Section, write_amount

_SIZES = {10_000: 0.05, 600_000: 1.5}
_AGAIN = 20


def measure(bench: Bench) -> Section:
    lines = [line for projects, aim in _SIZES.items() for line in _measure_root(bench, projects, aim)]
    notes = (
        "One file each, as rows of the catalog and sparse files; JSON without compression; the server was at rest.",
        "After an upload: the first page after a project was added, which it must name.",
    )
    return Section("Root page", lines, notes)


def _measure_root(bench: Bench, projects: int, aim: float) -> list[Line]:
    packages, state = provide(bench.home / "catalogs" / f"root-{projects}", projects)
    cold, changed, warm = [], [], []
    for number in range(bench.rounds):
        with bench.turn(), peers.ours(packages, state, cpus=all_cpus()) as own:
            own.settle()
            cold.append(time_root(own))
            added = f"bench-added-{time.time_ns()}-{number}"
            peers.upload(own, build_wheel(added, "1.0"))
            changed.append(time_root(own, added))
            warm += [time_root(own) for _ in range(_AGAIN)]
    work = f"root page of {projects:,} projects"
    return [
        _write_line(f"{work}, cold", median(cold), aim),
        _write_line(f"{work}, after an upload", median(changed), aim),
        _write_line(f"{work}, from memory", median(warm)),
    ]


def _write_line(work: str, seconds: float, aim: float | None = None) -> Line:
    milliseconds = seconds * 1000
    limit = None if aim is None else Aim(aim * 1000, at_most=True)
    return Line(work, write_amount(milliseconds, "ms"), "", milliseconds, "ms", limit)


def time_root(own: Contestant, name: str = "") -> float:
    """Seconds for the whole page, which must name this project."""
    connection = Connection(own.port)
    start = time.perf_counter()
    answer = connection.ask(write_request("/simple/", own.headers))
    seconds = time.perf_counter() - start
    connection.close()
    if answer.status != 200 or name.encode() not in answer.body:
        raise LoadFailedError(f"the root page was answered {answer.status} without {name!r}")
    return seconds


def provide(home: Path, projects: int, versions: int = 1) -> tuple[Path, Path]:
    """A filled catalog that is kept for the next time: its packages and its state."""
    packages, state = home / "packages", home / "state"
    if not (home / ".made").exists():
        peers.empty(home)
        packages.mkdir()
        catalogs.fill(state, packages, range(projects), versions)
        (home / ".made").touch()
    return packages, state
