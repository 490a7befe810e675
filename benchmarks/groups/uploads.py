"""Uploads: a large one beside what the disk and the processor need at least, and many small ones."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from benchmarks import peers
from benchmarks.bench import Bench, line_up, take_median
from benchmarks.corpus import build_wheel, make_payload
from benchmarks.load import Speed, measure_uploads
from benchmarks.processes import Contestant, read_cpu_seconds, server_cpus
from benchmarks.table import Aim, Bars, Line, Section, write_amount

_LARGE = 100 * 10**6
_CLIENTS = 8
_UPLOADS = 400
_BLOCK = 2**20


def measure(bench: Bench) -> Section:
    small, bars = _compare_small(bench)
    notes = (
        "The floor: one process hashes the same bytes with sha256, writes them by the mebibyte and flushes them.",
        f"Small uploads: {_UPLOADS} wheels of 1 KB, {_CLIENTS} clients, bodies made before.",
        "Ours flushes each to the disk, its directory and the catalog too; pypiserver flushes, hashes, reads nothing.",
        "Memory is the whole tree of processes, with those that read archives.",
    )
    return Section("Uploads", [*_measure_large(bench), *small], notes, [bars])


def _measure_large(bench: Bench) -> list[Line]:
    packages, payload, numbers = bench.scratch("large-upload"), make_payload(_LARGE), count()
    own_speeds, floors, growth = list[Speed](), list[Speed](), list[float]()
    with peers.ours(packages, bench.scratch("large-upload-state")) as own:
        # The first upload starts the process that reads archives.
        peers.upload(own, build_wheel("bench-first", "1.0"))
        for _ in range(bench.rounds):
            request = peers.write_upload(build_wheel("bench-large", f"1.{next(numbers)}", payload))
            with bench.turn():
                floors.append(_measure_floor(packages.parent / "floor", payload))
                before = own.resident()
                own.forget_peak()
                speed = measure_uploads(own, [request], 1)
                growth.append(own.peak() - before)
            own_speeds.append(Speed(speed.per_second * _LARGE / 10**6, speed.per_cpu_second * _LARGE / 10**6))
    speeds = {"ours": take_median(own_speeds), "the floor": take_median(floors)}
    most = max(growth)
    return [
        line_up("upload of 100 MB", speeds, "ours", "the floor", "MB/s", 0.5),
        Line("it: memory more than before", write_amount(most, "MiB"), "", most, "MiB", Aim(50, at_most=True)),
    ]


def _measure_floor(path: Path, content: bytes) -> Speed:
    """What nobody who keeps a file safely and knows its hash can do without."""
    before_cpus, view = os.sched_getaffinity(0), memoryview(content)
    os.sched_setaffinity(0, server_cpus())
    cpu, start = time.process_time(), time.perf_counter()
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for offset in range(0, len(content), _BLOCK):
            block = view[offset : offset + _BLOCK]
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    os.sched_setaffinity(0, before_cpus)
    path.unlink()
    return Speed(len(content) / 10**6 / wall, len(content) / 10**6 / cpu)


def _compare_small(bench: Bench) -> tuple[list[Line], Bars]:
    numbers = count()
    shares = list[float]()

    def upload(contestant: Contestant) -> Speed:
        requests = list(_write_requests(next(numbers)))
        before, start = read_cpu_seconds(os.getpid()), time.perf_counter()
        speed = measure_uploads(contestant, requests, _CLIENTS)
        shares.append((read_cpu_seconds(os.getpid()) - before) / (time.perf_counter() - start))
        return speed

    with ExitStack() as stack:
        contestants = [
            stack.enter_context(peers.ours(bench.scratch("small-uploads"), bench.scratch("small-uploads-state"))),
            stack.enter_context(peers.pypiserver(bench.home, bench.scratch("pypiserver-uploads"), "/")),
        ]
        speeds = bench.compare(contestants, upload)
    work = f"small uploads, {_CLIENTS} clients"
    lines = [
        line_up(work, speeds, "ours", "pypiserver", "/s", 3.0),
        Line(f"{work}: the clients' processor", f"{max(shares):.0%} busy", "", max(shares) * 100, "%"),
    ]
    return lines, Bars("Small uploads per second", {name: speed.per_second for name, speed in speeds.items()})


def _write_requests(number: int) -> Iterator[tuple[bytes, bytes]]:
    """Forty projects with ten files each, other ones for each number."""
    for upload in range(_UPLOADS):
        yield peers.write_upload(build_wheel(f"bench-{number}-{upload // 10}", f"1.{upload % 10}"))
