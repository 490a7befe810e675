"""Two processes of ours beside one.

Two servers and their clients do not fit on two processors, so the gain is counted, not timed: one processor is kept
busy by one and by two processes with small downloads, which cost a server more than its client, and the requests for
each second of processor are compared, times two. How even the shares are is seen where both processors may be used.
"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.corpus import build_wheel
from benchmarks.load import ask, measure_requests
from benchmarks.processes import Contestant, all_cpus, read_cpu_seconds, server_cpus
from benchmarks.table import Aim, Line, Section, write_amount

_OPEN = ("-P", ".", "-a", ".")
_AIM = 1.9


def measure(bench: Bench) -> Section:
    packages = bench.scratch("workers")
    path = f"/packages/{build_wheel('bench-small', '1.0').write(packages).name}"
    share = _measure_share(bench, packages, path)
    notes = (str(__doc__).partition("\n\n")[2].replace("\n", " ").strip(),)
    busier = Line("two workers: the busier one's share", f"{share:.0%}", "", share, "", Aim(1 / _AIM, at_most=True))
    return Section("Workers", [_compare(bench, packages, path), busier], notes)


def _compare(bench: Bench, packages: Path, path: str) -> Line:
    with ExitStack() as stack:
        contestants = [_start(stack, bench, packages, path, count, server_cpus()) for count in (1, 2)]
        speeds = bench.compare(contestants, lambda one: measure_requests(one, bench.seconds))
    one, two = speeds["1 worker"].per_cpu_second, speeds["2 workers"].per_cpu_second
    beside = f"one: {write_amount(one, '/CPU s')}"
    return Line("two workers, by CPU", write_amount(two, "/CPU s"), beside, 2 * two / one, "×", Aim(_AIM))


def _measure_share(bench: Bench, packages: Path, path: str) -> float:
    def measure_share() -> float:
        before = {pid: read_cpu_seconds(pid) for pid in two.pids()}
        measure_requests(two, bench.seconds)
        used = [read_cpu_seconds(pid) - start for pid, start in before.items()]
        return max(used) / sum(used)

    with ExitStack() as stack:
        two = _start(stack, bench, packages, path, 2, all_cpus())
        return bench.repeat(measure_share)


def _start(stack: ExitStack, bench: Bench, packages: Path, path: str, workers: int, cpus: set[int]) -> Contestant:
    name = f"{workers} worker{'s' if workers > 1 else ''}"
    options = (*_OPEN, "--workers", str(workers))
    own = stack.enter_context(peers.ours(packages, bench.scratch(f"{workers}-state"), *options, name=name, cpus=cpus))
    for _ in range(10 * workers):
        ask(own, "/simple/bench-small/")
    return replace(own, path=path)
