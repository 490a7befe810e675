"""Downloads: one large file to one client, ours alone and behind nginx, and a thousand small ones at once."""

import hashlib
from contextlib import ExitStack
from dataclasses import replace

from benchmarks import peers
from benchmarks.bench import Bench, line_up
from benchmarks.corpus import build_wheel, make_payload
from benchmarks.load import LoadFailedError, Speed, ask, download_together, measure_download
from benchmarks.processes import Contestant
from benchmarks.table import Aim, Bars, Line, Section, write_amount
from pypiserver_ng.config.settings import SETTINGS

_LARGE, _SMALL = 100 * 10**6, 10**6
_CLIENTS = 1000
_BEHIND = """\
location / {{
    proxy_pass http://127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $remote_addr;
}}
location /direct/ {{ internal; alias /; }}
"""


def measure(bench: Bench) -> Section:
    stream, bars = _compare_streams(bench)
    notes = (
        "The client reads into one buffer of a mebibyte and throws it away; files are in the page cache.",
        "Behind nginx: both on one processor; nginx sends the file, ours decides (`--accel-redirect`).",
        f"The {_CLIENTS:,} downloads go through {_CLIENTS:,} connections of one client, which checks every byte.",
    )
    return Section("Downloads", [*stream, *_download_together(bench)], notes, [bars])


def _compare_streams(bench: Bench) -> tuple[list[Line], Bars]:
    packages = bench.scratch("stream")
    file = build_wheel("bench-large", "1.0", make_payload(_LARGE)).write(packages)
    size, path = file.stat().st_size, f"/packages/{file.name}"
    with ExitStack() as stack:
        own = stack.enter_context(peers.ours(packages, bench.scratch("stream-state"), path=path))
        ask(own, "/simple/bench-large/")
        kind = "application/octet-stream"
        home = bench.scratch("stream-nginx")
        contestants = [own, stack.enter_context(peers.nginx(home, packages, kind=kind, path=f"/{file.name}"))]
        contestants.append(stack.enter_context(peers.pypiserver(bench.home, packages, path)))
        speeds = bench.compare(contestants, lambda one: measure_download(one, size, bench.seconds))
    work = "100 MB to one client"
    lines = [line_up(work, speeds, "ours", "nginx", "MB/s", 1.0), line_up(work, speeds, "ours", "pypiserver", "MB/s")]
    bars = Bars("Megabytes per second of one download", {name: speed.per_second for name, speed in speeds.items()})
    if any(setting.name == "accel-redirect" for setting in SETTINGS):
        lines.append(_compare_behind(bench))
    return lines, bars


def _compare_behind(bench: Bench) -> Line:
    """Where nginx stands before ours and sends what ours allows, beside nginx that asks nobody."""
    packages = bench.home / "data" / "stream"
    (file,) = packages.glob("*.whl")
    size, path = file.stat().st_size, f"/packages/{file.name}"
    options = ("-P", ".", "-a", ".", "--trusted-proxy", "127.0.0.1", "--accel-redirect", "/direct")
    kind, own_path = "application/octet-stream", f"/{file.name}"
    with ExitStack() as stack:
        behind = stack.enter_context(peers.ours(packages, bench.scratch("behind-state"), *options, path=path))
        _expect_no_body(behind)
        front = stack.enter_context(
            peers.nginx(
                bench.scratch("front-nginx"),
                bench.scratch("empty"),
                kind=kind,
                path=path,
                extra=_BEHIND.format(port=behind.port),
                name="behind nginx",
            )
        )
        alone = stack.enter_context(
            peers.nginx(bench.scratch("stream-nginx"), packages, kind=kind, path=own_path, name="nginx alone")
        )
        speeds = bench.compare([front, alone], lambda one: measure_download(one, size, bench.seconds))
    return line_up("it by X-Accel-Redirect", speeds, "behind nginx", "nginx alone", "MB/s", 1.0)


def _expect_no_body(behind: Contestant) -> None:
    """What nginx will be told: where the file is, not its bytes."""
    ask(behind, "/simple/bench-large/")
    asked = replace(behind, headers={**behind.headers, "X-Forwarded-For": "127.0.0.1"})
    answer = ask(asked)
    if "x-accel-redirect" not in answer.headers or answer.body:
        raise LoadFailedError(f"{behind.url} answered {answer.headers}")


def _download_together(bench: Bench) -> list[Line]:
    """A thousand clients at once: how long it takes, beside nginx, and what memory it takes."""
    packages = bench.scratch("together")
    file = build_wheel("bench-small", "1.0", make_payload(_SMALL)).write(packages)
    content = file.read_bytes()
    size, digest, path = len(content), hashlib.sha256(content).hexdigest(), f"/packages/{file.name}"
    growth = list[float]()

    def download(contestant: Contestant) -> Speed:
        before, cpu = contestant.resident(), contestant.cpu_seconds()
        contestant.forget_peak()
        seconds = download_together(contestant, _CLIENTS, size, digest)
        if contestant.name == "ours":
            growth.append(contestant.peak() - before)
        return Speed(_CLIENTS / seconds, _CLIENTS / max(contestant.cpu_seconds() - cpu, 0.01))

    with ExitStack() as stack:
        own = stack.enter_context(peers.ours(packages, bench.scratch("together-state"), path=path))
        ask(own, "/simple/bench-small/")
        home, kind = bench.scratch("together-nginx"), "application/octet-stream"
        other = stack.enter_context(peers.nginx(home, packages, kind=kind, path=f"/{file.name}"))
        speeds = bench.compare([own, other], download)
    work = f"{_CLIENTS:,} downloads of 1 MB at once"
    most = max(growth)
    return [
        line_up(work, speeds, "ours", "nginx", "/s"),
        Line(f"{work}: memory more than before", write_amount(most, "MiB"), "", most, "MiB", Aim(100, at_most=True)),
    ]
