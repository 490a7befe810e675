"""What is counted of a real server's answers: all of them, once, by whichever process gave them."""

import os
import signal
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.tools.distributions import build_wheel, make_wheel
from tests.tools.metrics import read
from tests.tools.server import OPEN, Serve, Server, wait_until
from tests.tools.uploads import upload
from tests.web.forms import Wire

ANSWER = "pypiserver_ng_http_requests_total"
MEMORY = "pypiserver_ng_http_answers_from_memory_total"


def ask(server: Server) -> dict[str, float]:
    """The numbers, over a connection of its own: any worker may answer."""
    return read(httpx2.get(f"{server.url}/-/metrics").text)


def list_workers(server: Server) -> set[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return {int(pid) for pid in children.read_text().split()}


def tell_difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """By how much the answers became more; the first look at them is one."""
    grown = {name.partition(" ")[2]: after[name] - before.get(name, 0) for name in after if name.startswith(ANSWER)}
    grown["GET 200"] -= 1
    return {name: number for name, number in grown.items() if number}


@pytest.fixture(params=("1", "2"))
def server(serve: Serve, packages: Path, request: pytest.FixtureRequest) -> Server:
    make_wheel(packages, "demo", "1.0")
    return serve(*OPEN, "--disable-fallback", "--workers", request.param)


def test_every_answer_counts_once(server: Server) -> None:
    """Pages, conditions, redirects, uploads, and what is refused."""
    before = ask(server)
    for _ in range(7):
        etag = httpx2.get(f"{server.simple}demo/").headers["etag"]
    for _ in range(5):
        assert httpx2.get(f"{server.simple}demo/", headers={"if-none-match": etag}).status_code == 304
    for _ in range(3):
        httpx2.head(f"{server.simple}demo/")
        httpx2.get(f"{server.url}/simple/nothing/")
        httpx2.get(f"{server.url}/demo")
        httpx2.request("PURGE", f"{server.simple}demo/")
        httpx2.delete(f"{server.simple}demo/")
    assert upload(server.url, build_wheel("demo", "2.0")).status_code == 200
    assert upload(server.url, build_wheel("demo", "2.0", requires_python=">=3.9")).status_code == 409
    assert tell_difference(before, ask(server)) == {
        "GET 200": 7,
        "GET 304": 5,
        "HEAD 200": 3,
        "GET 404": 3,
        "GET 302": 3,
        "other 405": 6,
        "POST 200": 1,
        "POST 409": 1,
    }


def test_answers_from_memory_count(server: Server) -> None:
    """They are answers like others, and counted a second time as what they are."""
    before = ask(server)
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    for _ in range(50):
        connection.request("GET", "/simple/demo/")
        assert connection.getresponse().read()
    connection.close()
    after = ask(server)
    assert tell_difference(before, after) == {"GET 200": 50}
    assert 40 <= after[MEMORY] - before[MEMORY] < 50


@pytest.mark.parametrize(
    ("request_bytes", "counted"),
    (
        (b"nonsense\r\n\r\n", "other 400"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", "other 414"),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", "other 431"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n", "other 400"),
    ),
)
def test_refusals_of_the_connection_count(server: Server, request_bytes: bytes, counted: str) -> None:
    """Where there was no request, there is no method."""
    before = ask(server)
    assert Wire(server.url).ask(request_bytes).status == int(counted[-3:])
    assert tell_difference(before, ask(server)) == {counted: 1}


def test_connections_that_are_open(server: Server) -> None:
    """In all processes; the one that asks is one of them."""
    parts = urlsplit(server.url)
    connections = [HTTPConnection(parts.netloc, timeout=30) for _ in range(9)]
    for connection in connections:
        connection.request("GET", "/health")
        connection.getresponse().read()
    assert ask(server)["pypiserver_ng_http_connections"] == 10
    for connection in connections:
        connection.close()
    wait_until(lambda: ask(server)["pypiserver_ng_http_connections"] == 1)


def test_nothing_goes_back_when_a_worker_dies(serve: Serve, packages: Path) -> None:
    """Who replaces it counts on."""
    make_wheel(packages, "demo", "1.0")
    server = serve(*OPEN, "--disable-fallback", "--workers", "2")
    before = ask(server)
    assert before["pypiserver_ng_workers"] == 2
    for _ in range(20):
        httpx2.get(f"{server.simple}demo/")
    pids = list_workers(server)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(list_workers(server) - pids) == 2, within=15)
    after = ask(server)
    assert tell_difference(before, after) == {"GET 200": 20}
    assert after["process_cpu_seconds_total"] >= before["process_cpu_seconds_total"]
    assert after["process_start_time_seconds"] == before["process_start_time_seconds"]
    wait_until(lambda: ask(server)["pypiserver_ng_workers"] == 2, within=15)
