"""A server that may open few files, or write only short ones: it refuses, neither spins nor dies, and recovers."""

import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path

import httpx2
import pytest

from tests.faults.answers import ask, connect, limited_server, list_files
from tests.faults.expected import LARGE, NEW, OLD, OTHER, expect_reads, expect_recovery, expect_refusal, names_in
from tests.tools.distributions import Distribution, build_wheel
from tests.tools.server import OPEN, Serve, Server, wait_until
from tests.tools.uploads import upload

needs_prlimit = pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is missing")


def cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share_of_a_core(server: Server, seconds: float) -> float:
    before, start = cpu_seconds(server), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(server) - before) / (time.monotonic() - start)


@contextmanager
def crowd(server: Server, count: int) -> Iterator[None]:
    """So many connections, each with a request that never ends."""
    with ExitStack() as connections:
        for _ in range(count):
            try:
                connection = connect(server.url)
                connections.callback(connection.close)
                connection.sock.sendall(b"GET /simple/ HTTP/1.1\r\nhost: x\r\n")
            except OSError:
                continue
        yield


def answers_or_refuses(server: Server) -> bool:
    """Whether a further client is answered in time: with the page, with 503, or by closing."""
    try:
        return ask(server.url, "/simple/demo/").status in {200, 503}
    except (ConnectionError, HTTPException):
        return True


def is_taken(server: Server, built: Distribution) -> bool:
    """Whether an upload finds a place; the last client's may not be free yet."""
    try:
        return upload(server.url, built).status_code == 200
    except httpx2.HTTPError:
        return False


def test_descriptors_run_out(packages: Path, serve: Serve) -> None:
    """A limit that came after the start: connections find no descriptor, and the server neither spins nor dies."""
    server = serve(*OPEN, "--disable-fallback")
    assert upload(server.url, OLD).status_code == 200
    pid = server.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, limits[1]))
    with crowd(server, 150):
        assert share_of_a_core(server, 1.5) < 0.5
        assert answers_or_refuses(server)
    wait_until(lambda: is_taken(server, NEW), within=20)
    expect_recovery(server, OTHER)


@needs_prlimit
def test_few_descriptors(packages: Path, environment: dict[str, str]) -> None:
    """Started with 64: a crowd is refused with 503 or by closing, one client after the other is served."""
    with limited_server(["--nofile=64:64"], packages, environment) as server:
        assert upload(server.url, OLD).status_code == 200
        with crowd(server, 150):
            for _ in range(5):
                assert answers_or_refuses(server)
            assert share_of_a_core(server, 1.5) < 0.5
        wait_until(lambda: is_taken(server, NEW), within=20)
        wait_until(lambda: ask(server.url, f"/packages/{NEW.filename}").content == NEW.content, within=20)


@needs_prlimit
def test_file_size_limit(packages: Path, environment: dict[str, str]) -> None:
    """A file that may not be as large as it is: refused, and nothing is left; smaller ones are taken."""
    with limited_server(["--fsize=400000:unlimited"], packages, environment) as server:
        assert upload(server.url, OLD).status_code == 200
        expect_refusal(server, LARGE, 503, 507)
        assert (names_in(packages / ".pypiserver-ng" / "scratch"), names_in(packages)) == (set(), {OLD.filename})
        expect_reads(server, OLD)
        expect_recovery(server, NEW)


@needs_prlimit
def test_catalog_that_may_not_grow(packages: Path, environment: dict[str, str]) -> None:
    """Refused uploads leave no file; when the limit goes they are taken."""
    with limited_server(["--fsize=180000:unlimited"], packages, environment) as server:
        told: dict[str, int] = {}
        for number in range(400):
            built = build_wheel("demo", f"1.{number}")
            told[built.filename] = upload(server.url, built).status_code
            if list(told.values())[-3:] in ([503] * 3, [507] * 3):
                break
        stored = {filename for filename, status in told.items() if status == 200}
        assert 0 < len(stored) < len(told)
        assert {file.filename for file in list_files(server.url, "demo")} == names_in(packages) == stored
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        expect_recovery(server, OTHER if OTHER.filename not in told else build_wheel("demo", "5000"))
