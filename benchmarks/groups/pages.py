"""Project pages: small and large, changed and not, with passwords, and in a large catalog."""

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import bcrypt

from benchmarks import catalogs, peers
from benchmarks.bench import Bench, line_up
from benchmarks.corpus import build_wheel
from benchmarks.load import Answer, LoadFailedError, Speed, ask, measure_requests
from benchmarks.processes import Contestant
from benchmarks.table import Bars, Line, Section
from tests.tools.distributions import Distribution

_PROJECT = "bench-page"
_PATH = f"/simple/{_PROJECT}/"
_UNIT = "/s"
#: Contestant to what ours is to be times as fast as.
_AIMS = {"nginx": 1.3, "pypiron": 1.3, "pypiserver": 100.0, "devpi": 50.0, "proxpi": None}


def measure(bench: Bench) -> Section:
    small, bars = _compare_peers(bench)
    more = [*_compare_credentials(bench), _compare_large(bench), _compare_catalogs(bench)]
    lines = [*small, *_compare_unchanged(bench), *more]
    notes = [f"{name}: {settings}" for name, settings in peers.SETTINGS.items()]
    wrk = f"`wrk -t1 -c32 -d{bench.seconds:g}s`, keep-alive, medians of {bench.rounds} runs in turn, the others stopped"
    return Section("Project pages", lines, [wrk, *notes], [bars])


def _compare_peers(bench: Bench) -> tuple[list[Line], Bars]:
    files = _small_files()
    packages = _write(bench.scratch("small"), files)
    with ExitStack() as stack:
        own = stack.enter_context(peers.ours(packages, bench.scratch("small-state"), path=_PATH))
        page = _expect(own, files)
        contestants = [
            own,
            stack.enter_context(peers.nginx_beside(bench.scratch("small-nginx"), page)),
            stack.enter_context(peers.pypiron(bench.home, files, _PROJECT)),
            stack.enter_context(peers.pypiserver(bench.home, packages, _PATH)),
            stack.enter_context(peers.devpi(bench.home, files, _PROJECT)),
            stack.enter_context(peers.proxpi(bench.home, own, _PROJECT)),
        ]
        for contestant in contestants:
            _expect(contestant, files)
        speeds = _measure(bench, contestants)
    work = f"page of 10 files as JSON, {len(page.body):,} bytes"
    lines = [line_up(work, speeds, "ours", other, _UNIT, aim) for other, aim in _AIMS.items()]
    amounts = {name: speed.per_second for name, speed in speeds.items()}
    return lines, Bars("Requests per second for a small project page", amounts)


def _compare_unchanged(bench: Bench) -> list[Line]:
    """A 304 beside the page itself, and beside nginx's."""
    packages = _write(bench.scratch("small"), _small_files())
    with ExitStack() as stack:
        own = stack.enter_context(peers.ours(packages, bench.scratch("small-state"), path=_PATH, name="page"))
        other = stack.enter_context(peers.nginx_beside(bench.scratch("small-nginx"), ask(own)))
        contestants = [own, _make_conditional(own, "304"), _make_conditional(other, "nginx")]
        speeds = _measure(bench, contestants)
    return [
        line_up("304 of it", speeds, "304", "page", _UNIT, 1.0),
        line_up("304 of it", speeds, "304", "nginx", _UNIT),
    ]


def _make_conditional(contestant: Contestant, name: str) -> Contestant:
    tag = ask(contestant).headers["etag"]
    conditional = replace(contestant, name=name, headers={**contestant.headers, "If-None-Match": tag})
    if ask(conditional).status != 304:
        raise LoadFailedError(f"{contestant.url} does not answer 304")
    return conditional


def _compare_credentials(bench: Bench) -> list[Line]:
    """The same page for who has a password that bcrypt guards, for who has a token, and for everybody."""
    packages = _write(bench.scratch("small"), _small_files())
    passwords = bench.home / "data" / "htpasswd"
    passwords.write_text(f"alice:{bcrypt.hashpw(b'password', bcrypt.gensalt(12)).decode()}\n")
    closed = ("-P", str(passwords), "-a", "update,download,list")
    with ExitStack() as stack:
        own = stack.enter_context(peers.ours(packages, bench.scratch("small-state"), path=_PATH, name="without"))
        guarded_state = bench.scratch("guarded-state")
        guarded = stack.enter_context(peers.ours(packages, guarded_state, *closed, path=_PATH, name="password"))
        credentials = {"password": ("alice", "password"), "token": ("__token__", _make_token(packages, guarded_state))}
        contestants = [own]
        for name, pair in credentials.items():
            headers = {**guarded.headers, **peers.basic(*pair)}
            contestants.append(replace(guarded, name=name, headers=headers))
            _expect(contestants[-1], _small_files())
        speeds = _measure(bench, contestants)
    return [
        line_up("it with Basic auth (bcrypt)", speeds, "password", "without", _UNIT, 0.9),
        line_up("it with a token", speeds, "token", "without", _UNIT, 0.9),
    ]


def _make_token(packages: Path, state: Path) -> str:
    command = [sys.executable, "-m", "pypiserver_ng", "token", "create", "bench", "--state-dir"]
    return subprocess.run([*command, state, packages], capture_output=True, text=True, check=True).stdout.strip()


def _compare_large(bench: Bench) -> Line:
    files = [build_wheel(_PROJECT, f"1.{number}") for number in range(2000)]
    packages = _write(bench.scratch("large"), files)
    with ExitStack() as stack:
        own = stack.enter_context(peers.ours(packages, bench.scratch("large-state"), path=_PATH))
        _expect(own, files)
        own = replace(own, headers={**own.headers, "Accept-Encoding": "gzip"})
        answer = ask(own)
        other = stack.enter_context(peers.nginx_beside(bench.scratch("large-nginx"), answer))
        if ask(other).body != answer.body:
            raise LoadFailedError("nginx does not send the same bytes")
        speeds = _measure(bench, [own, other])
    return line_up(f"page of 2,000 files, gzip, {len(answer.body):,} bytes", speeds, "ours", "nginx", _UNIT, 0.95)


def _compare_catalogs(bench: Bench) -> Line:
    """The same small page where nothing else is and where 100,000 files are."""
    with ExitStack() as stack:
        contestants = []
        for name, projects in (("10 files", 0), ("100,000 files", 10_000)):
            packages, state = bench.scratch(f"{name}-files"), bench.scratch(f"{name}-state")
            _write(packages, _small_files())
            catalogs.fill(state, packages, range(projects), 10)
            own = stack.enter_context(peers.ours(packages, state, path=_PATH, name=name))
            _expect(own, _small_files())
            contestants.append(own)
        speeds = _measure(bench, contestants)
    return line_up("it in a catalog of 100,000 files", speeds, "100,000 files", "10 files", _UNIT, 0.95)


def _measure(bench: Bench, contestants: list[Contestant]) -> dict[str, Speed]:
    return bench.compare(contestants, lambda one: measure_requests(one, bench.seconds))


def _small_files() -> list[Distribution]:
    return [build_wheel(_PROJECT, f"1.{number}") for number in range(10)]


def _write(packages: Path, files: list[Distribution]) -> Path:
    for file in files:
        file.write(packages)
    return packages


def _expect(contestant: Contestant, files: list[Distribution]) -> Answer:
    # Twice: the first answer may be a special one.
    names = [file.filename for file in files]
    peers.expect_page(contestant, names)
    return peers.expect_page(contestant, names)
