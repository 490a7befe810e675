"""Growth: the same work in catalogs of 10,000, 100,000 and 1,000,000 files, ten to a project.

Run as ``python -m benchmarks.scale``. What is asked of one project must cost the same in all of them; what is asked of
all projects may grow with their number. Prints a table, and writes it into the documentation.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import machine, peers, table
from benchmarks.bench import Bench
from benchmarks.corpus import build_wheel, encode_form, name_project
from benchmarks.groups.roots import provide, time_root
from benchmarks.load import Connection, LoadFailedError, write_request
from benchmarks.processes import Contestant, all_cpus
from benchmarks.table import write_amount
from tests.tools.distributions import Distribution

_SIZES = (10_000, 100_000, 1_000_000)
_VERSIONS = 10
_TIMES = 20
_REST_SECONDS = 10
_SETTLE_SECONDS = 300
_PAGE = machine.ROOT / "docs" / "performance.md"


class _Client:
    """One connection to the server; seconds are those of whole answers."""

    def __init__(self, own: Contestant) -> None:
        self.own = own
        self._connection = Connection(own.port)

    def time(self, *request: bytes) -> float:
        start = time.perf_counter()
        answer = self._connection.ask(*request)
        if answer.status != 200:
            raise LoadFailedError(f"{request[0][:80]!r} was answered {answer.status} {answer.body[:200]!r}")
        return time.perf_counter() - start

    def time_page(self, name: str) -> float:
        return self.time(write_request(f"/simple/{name}/", self.own.headers))

    def time_upload(self, distribution: Distribution) -> float:
        return self.time(*peers.write_upload(distribution))

    def time_first_upload(self) -> float:
        """Until one was taken, however often it was turned away: the server may have much to do just now."""
        start, name = time.perf_counter(), f"bench-first-{time.time_ns()}"
        while True:
            try:
                self.time_upload(build_wheel(name, "1.0"))
            except LoadFailedError:
                if time.perf_counter() > start + _SETTLE_SECONDS:
                    raise
            else:
                break
        seconds = time.perf_counter() - start
        self.time_removal(name, "1.0")
        return seconds

    def time_removal(self, name: str, version: str) -> float:
        kind, body = encode_form({":action": "remove_pkg", "name": name, "version": version})
        fields = {"Content-Type": kind, "Content-Length": str(len(body))}
        return self.time(write_request("/", fields, "POST"), body)


def measure(bench: Bench, size: int) -> dict[str, tuple[float, str]]:
    """What was measured to an amount and its unit."""
    projects = size // _VERSIONS
    packages, state = provide(bench.home / "catalogs" / f"scale-{size}", projects, _VERSIONS)
    found: dict[str, tuple[float, str]] = {}
    catalog = state / "catalog.sqlite"
    with bench.turn():
        _forget(catalog)
        start = time.perf_counter()
        with peers.ours(packages, state, cpus=all_cpus()) as own:
            _Client(own).time_page(name_project(projects // 2))
            found["start, to the first page, the catalog on the disk only"] = (time.perf_counter() - start, "s")
        catalog.read_bytes()
        start = time.perf_counter()
        with peers.ours(packages, state, cpus=all_cpus()) as own:
            client = _Client(own)
            client.time_page(name_project(projects // 2))
            found["start, to the first page, the catalog in memory"] = (time.perf_counter() - start, "s")
            found["processor at rest after the start"] = (_measure_rest(own), "% of a core")
            found["memory after the start"] = (own.resident(), "MiB")
            found["first upload after the start"] = (client.time_first_upload(), "s")
            own.settle(_SETTLE_SECONDS)
            # An idle connection is closed meanwhile.
            client = _Client(own)
            found |= _measure_projects(client, projects)
            found |= _measure_roots(client)
            found |= _measure_surfaces(client, name_project(3))
            found["memory at the end"] = (own.resident(), "MiB")
            found["yank and unyank by command, each"] = (_measure_commands(packages, state, name_project(1)), "ms")
    return found


def _forget(path: Path) -> None:
    """Have the system forget what it holds of a file, as after a start of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _measure_rest(own: Contestant) -> float:
    before = own.cpu_seconds()
    time.sleep(_REST_SECONDS)
    return (own.cpu_seconds() - before) / _REST_SECONDS * 100


def _measure_projects(client: _Client, projects: int) -> dict[str, tuple[float, str]]:
    """Work on one project at a time, spread over the catalog."""
    chosen = [name_project(number) for number in range(0, projects, projects // _TIMES)][:_TIMES]
    # Never used before in this catalog, or its name would be buried.
    version = f"2.{time.time_ns()}"
    new = [f"bench-new-{time.time_ns()}-{number}" for number in range(_TIMES)]

    def repeat(work: Callable[[str], float], names: list[str]) -> tuple[float, str]:
        return median(work(name) for name in names) * 1000, "ms"

    return {
        "page of a project, cold": repeat(client.time_page, chosen),
        "page of a project, from memory": repeat(client.time_page, chosen),
        "upload to a project": repeat(lambda name: client.time_upload(build_wheel(name, version)), chosen),
        "its page after the upload": repeat(client.time_page, chosen),
        "upload of a new project": repeat(lambda name: client.time_upload(build_wheel(name, version)), new),
        "delete a release": repeat(lambda name: client.time_removal(name, version), chosen),
        "delete a project": repeat(lambda name: client.time_removal(name, version), new),
    }


def _measure_roots(client: _Client) -> dict[str, tuple[float, str]]:
    cold = time_root(client.own)
    warm = median(time_root(client.own) for _ in range(_TIMES))
    name = f"bench-new-{time.time_ns()}"
    client.time_upload(build_wheel(name, "1.0"))
    changed = time_root(client.own, name)
    client.time_removal(name, "1.0")
    return {
        "root page, cold": (cold * 1000, "ms"),
        "root page, from memory": (warm * 1000, "ms"),
        "root page after a new project": (changed * 1000, "ms"),
    }


def _measure_surfaces(client: _Client, name: str) -> dict[str, tuple[float, str]]:
    """What people and monitors ask for, each the first time and then again."""
    file = f"/packages/0000/{name.replace('-', '_')}-1.0-py3-none-any.whl"
    paths = {
        "home page": "/",
        "search": f"/-/search?q={name}",
        "a project's page for people": f"/project/{name}/",
        "a project as JSON": f"/pypi/{name}/json",
        "metrics": "/-/metrics",
        "readiness": "/-/ready",
        "explanation": f"/-/why/{name}",
        "download of a small file": file,
    }
    found: dict[str, tuple[float, str]] = {}
    for work, path in paths.items():
        times = [client.time(write_request(path, {})) * 1000 for _ in range(_TIMES)]
        found[f"{work}, first"] = (times[0], "ms")
        found[f"{work}, again"] = (median(times[1:]), "ms")
    return found


def _measure_commands(packages: Path, state: Path, name: str) -> float:
    start = time.perf_counter()
    for command in ("yank", "unyank"):
        line = [sys.executable, "-m", "pypiserver_ng", command, "--state-dir", str(state), name, "1.0", str(packages)]
        done = subprocess.run(line, cwd=machine.ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoadFailedError(f"{command} failed: {done.stderr}")
    return (time.perf_counter() - start) / 2 * 1000


def write_growth(found: dict[int, dict[str, tuple[float, str]]]) -> str:
    """A column for each size."""
    works = {work: unit for columns in found.values() for work, (_, unit) in columns.items()}
    head = "".join(f" {size:,} files |" for size in found)
    rows = [f"| work |{head}", f"|---|{'---|' * len(found)}"]
    for work, unit in works.items():
        cells = "".join(f" {write_amount(columns[work][0], unit)} |" for columns in found.values())
        rows.append(f"| {work} |{cells}")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=_SIZES, metavar="FILES")
    parser.add_argument("--home", type=Path, default=machine.ROOT / ".bench", help="where the catalogs are kept")
    parser.add_argument("--lock", type=Path, help="a file that is locked while something is measured")
    parser.add_argument("--keep-docs", action="store_true", help="print only; leave the documentation as it is")
    options = parser.parse_args()
    bench = Bench(options.home.resolve(), rounds=1, seconds=1, lock=options.lock)
    found: dict[int, dict[str, tuple[float, str]]] = {}
    for size in options.sizes:
        print(f"measuring {size:,} files …", file=sys.stderr)
        found[size] = measure(bench, size)
    load = f"load of the machine {os.getloadavg()[0]:.1f}"
    growth = f"Measured once with {machine.describe_commit()}; {load}.\n\n{write_growth(found)}"
    print(growth)
    if not options.keep_docs:
        _PAGE.write_text(table.replace_figures(_PAGE.read_text(), growth, "growth"))


if __name__ == "__main__":
    main()
