"""Clients that are slow, greedy or gone quiet: each is given up in time, and nobody else notices.

The server has deadlines of a second or two (`tests/tools/impatient.py`); a test waits for what they bring about.
"""

import contextlib
import http.client
import itertools
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.tools import impatient
from tests.tools.distributions import build_wheel
from tests.tools.environment import clean_environment
from tests.tools.server import Server, wait_until
from tests.web.forms import CONTENT_TYPE, Wire, read_answer, scratch, stored, upload_form

HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
#: Seconds after which a deadline of a second or two has certainly passed.
GENEROUS = 20
WHEEL = build_wheel("demo", "1.0", extra_files={"data.bin": os.urandom(500_000)})
LARGE = "large-1.0.zip"
LARGE_SIZE = 60_000_000


@contextmanager
def hasty_server(home: Path, files: tuple[int, int]) -> Iterator[Server]:
    """A server that waits for nobody, with a soft and a hard limit of open files."""
    (home / "packages").mkdir()
    command = [sys.executable, impatient.__file__, str(home / "packages"), *map(str, files)]
    environment = clean_environment(home / "home") | {"PYTHONPATH": str(Path(__file__).parents[2])}
    server = Server(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        server.wait_until_ready()
        yield server
    finally:
        status = server.stop()
    assert status == 0, server.describe()
    assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hasty")


@pytest.fixture(scope="module")
def packages(home: Path) -> Path:
    return home / "packages"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with hasty_server(home, (4096, 4096)) as server:
        yield server


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """Raw connections to the server; afterwards it must still answer others."""
    wire = Wire(server.url)
    yield wire
    assert wire.get("/health").body == b"Ok"


def upload_head(length: int, *lines: str) -> bytes:
    head = ["POST / HTTP/1.1", "host: x", f"content-type: {CONTENT_TYPE}", f"content-length: {length}", *lines]
    return "".join(f"{line}\r\n" for line in (*head, "")).encode()


def trickle(connections: list[socket.socket]) -> None:
    """Send each a byte now and then until it is answered."""
    waiting = set(connections)
    deadline = time.monotonic() + GENEROUS
    while waiting:
        assert time.monotonic() < deadline, "nothing was answered"
        for connection in waiting:
            connection.sendall(b"E")
        waiting -= set(select.select(waiting, [], [], 0.2)[0])


def assert_given_up(connection: socket.socket, status: int, says: str) -> None:
    """One line of text, and the end."""
    answer = read_answer(connection)
    assert (status, "close") == (answer.status, answer.headers["connection"])
    assert answer.body.decode().rstrip("\n").isprintable()
    assert says in answer.body.decode()
    with contextlib.suppress(ConnectionError):
        assert connection.recv(1) == b""


def memory(server: Server) -> float:
    """MiB that the server has now."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("/proc is missing")
    return int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0]) / 1024


def count_open(server: Server) -> int:
    """Files and sockets that the server has open."""
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    if not descriptors.exists():
        pytest.skip("/proc is missing")
    return len(list(descriptors.iterdir()))


def test_head_that_does_not_come(wire: Wire) -> None:
    """A new connection has to deliver a whole head."""
    with ExitStack() as stack:
        late = [stack.enter_context(wire.connect()) for _ in range(5)]
        for connection, sent in zip(late, (b"", b"GET /he", HEALTH[:-2], b"\r\n", b"POST / HTTP/1.1\r\n"), strict=True):
            connection.sendall(sent)
        for connection in late:
            assert_given_up(connection, 408, "did not arrive in time")


def test_second_head_that_does_not_come(wire: Wire) -> None:
    """So has one that asked before, also when the beginning came together with the last request."""
    with ExitStack() as stack:
        late = [stack.enter_context(wire.connect()) for _ in range(6)]
        sent = (b"GET /he", HEALTH[:-2], b"\r\n")
        for connection, more in zip(late[:3], sent, strict=True):
            connection.sendall(HEALTH + more)
            assert read_answer(connection).body == b"Ok"
        for connection, more in zip(late[3:], sent, strict=True):
            connection.sendall(HEALTH)
            assert read_answer(connection).body == b"Ok"
            connection.sendall(more)
        assert late[2].recv(1) == b"", "an empty line in the same bytes is no beginning"
        for connection in (*late[:2], *late[3:]):
            assert_given_up(connection, 408, "did not arrive in time")


def test_head_that_trickles(wire: Wire) -> None:
    """A byte now and then wins no time."""
    with ExitStack() as stack:
        late = [stack.enter_context(wire.connect()) for _ in range(2)]
        for connection, sent in zip(late, (b"GET /", b"GET / HTTP/1.1\r\nx: "), strict=True):
            connection.sendall(sent)
        trickle(late)
        assert {read_answer(connection).status for connection in late} == {408}


def test_idle_connection(wire: Wire) -> None:
    """Between requests a connection is closed without a word."""
    with wire.connect() as connection:
        for _ in range(3):
            connection.sendall(HEALTH)
            assert read_answer(connection).body == b"Ok"
        assert connection.recv(1) == b""


def test_body_that_stops(wire: Wire, packages: Path) -> None:
    """The upload is answered, closed, and leaves nothing."""
    body = upload_form(WHEEL)
    with wire.connect() as connection:
        connection.sendall(upload_head(len(body)) + body[:300_000])
        wait_until(lambda: bool(scratch(packages)), within=GENEROUS)
        assert_given_up(connection, 408, "did not arrive in time")
        wait_until(lambda: not scratch(packages), within=GENEROUS)
    assert WHEEL.filename not in stored(packages)


def test_body_that_trickles(wire: Wire, packages: Path) -> None:
    """A body may take longer than the deadline, as long as something comes."""
    body = upload_form(WHEEL)
    with wire.connect() as connection, wire.connect() as silent:
        connection.sendall(upload_head(len(body)))
        silent.sendall(upload_head(len(body)))
        start = 0
        while not select.select([silent], [], [], 0.2)[0]:
            connection.sendall(body[start : start + 10])
            start += 10
        assert read_answer(silent).status == 408
        connection.sendall(body[start:])
        assert read_answer(connection).status == 200
    assert WHEEL.content == stored(packages)[WHEEL.filename]


def test_reader_that_stops(server: Server, wire: Wire, packages: Path) -> None:
    """Who takes nothing of a download for long loses it; who takes some keeps it."""
    content = os.urandom(LARGE_SIZE)
    (packages / LARGE).write_bytes(content)
    wait_until(lambda: wire.get(f"/packages/{LARGE}", method="HEAD").status == 200, within=GENEROUS)
    wait_until(lambda: wire.get("/health").status == 200 and count_open(server) < 100)
    with socket.socket() as steady, steady.makefile("rb") as stream:
        # Little room here, much in the server's system: for seconds it takes no new bytes from the server.
        steady.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        steady.connect(wire.address)
        steady.sendall(f"GET /packages/{LARGE} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        taken = bytearray(stream.read(65_536))
        before = count_open(server)
        with ExitStack() as stack:
            stuck = [stack.enter_context(wire.connect()) for _ in range(10)]
            for connection in stuck:
                connection.sendall(f"GET /packages/{LARGE} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            wait_until(lambda: count_open(server) >= before + 20, within=GENEROUS)
            deadline = time.monotonic() + 2 * GENEROUS
            while count_open(server) > before:
                assert time.monotonic() < deadline, "they are still there"
                taken += stream.read(8_192)
                time.sleep(0.1)
        taken += stream.read(taken.index(b"\r\n\r\n") + 4 + len(content) - len(taken))
    (packages / LARGE).unlink()
    assert taken.partition(b"\r\n\r\n")[2] == content


@pytest.mark.parametrize(("length", "status"), ((8192, 404), (8193, 414), (60_000, 414), (5_000_000, 414)))
def test_long_target(wire: Wire, length: int, status: int) -> None:
    """A target of 8 KiB is one; a longer one is refused before it has ended."""
    with wire.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /" + b"a" * (length - 1) + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = read_answer(connection)
    assert status == answer.status


@pytest.mark.parametrize(("count", "status"), ((500, 200), (1000, 431)))
def test_long_head(wire: Wire, count: int, status: int) -> None:
    """A head of 50 KB is one, also when it comes at once; one of 100 KB is refused."""
    lines = [f"x-{number}: {'y' * 90}" for number in range(count)]
    assert status == wire.get("/health", *lines).status


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "line": (b"GET / HTTP/1.1\r\nx: ", b"x" * 65_536),
    "lines": (b"GET / HTTP/1.1\r\n", b"x: %b\r\n" % (b"y" * 1000) * 64),
    "blank": (b"", b"\r\n" * 32_768),
    "target": (b"GET /", b"x" * 65_536),
    "method": (b"G", b"E" * 65_536),
    "trailers": (CHUNKED + b"0\r\n", b"x: %b\r\n" % (b"y" * 1000) * 64),
    "extension": (CHUNKED + b"1;x=", b"y" * 65_536),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_head_without_end(server: Server, wire: Wire, kind: str) -> None:
    """Of 200 MB little is read and nothing kept, and the client gets to read the answer."""
    opening, block = ENDLESS[kind]
    before = memory(server)
    with wire.connect() as connection:
        connection.sendall(opening)
        sent = 0
        with contextlib.suppress(ConnectionError):
            for _ in range(200_000_000 // len(block)):
                connection.sendall(block)
                sent += len(block)
        assert read_answer(connection).status in {400, 414, 431}
    assert sent < 150_000_000
    assert memory(server) - before < 50


def test_answered_upload_is_not_read_for_ever(wire: Wire) -> None:
    """Who was refused and goes on sending is cut off, and can still read why."""
    deadline = time.monotonic() + GENEROUS
    with wire.connect() as connection:
        connection.sendall(upload_head(10**9))
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < deadline
        assert read_answer(connection).status == 413


def test_refused_upload_and_a_next_request(wire: Wire) -> None:
    """When the rest of a refused body comes soon, the connection goes on."""
    with wire.connect() as connection:
        connection.sendall(b"POST /simple/ HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        assert read_answer(connection).status == 405
        connection.sendall(b"x" * 100_000 + HEALTH)
        assert read_answer(connection).body == b"Ok"


def test_client_that_waits_for_leave(wire: Wire) -> None:
    """`Expect: 100-continue` gets the refusal instead, and the end: nobody can tell what would come next."""
    with wire.connect() as connection:
        connection.sendall(upload_head(10**9, "expect: 100-continue"))
        assert_given_up(connection, 413, "larger than this index takes")


@pytest.mark.parametrize("close", (True, False))
def test_large_upload_of_an_ordinary_client(server: Server, close: bool) -> None:
    """A client that sends everything before it reads learns why its upload is refused."""
    headers = {"content-type": CONTENT_TYPE} | ({"connection": "close"} if close else {})
    client = http.client.HTTPConnection(*Wire(server.url).address, timeout=30)
    # As urllib3 does: a broken pipe is no reason not to read the answer.
    with contextlib.suppress(BrokenPipeError):
        client.request("POST", "/", b"x" * 70_000_000, headers)
    client_answer = http.client.HTTPResponse(client.sock, method="POST")
    client_answer.begin()
    assert (client_answer.status, client_answer.read()[:10]) == (413, b"the upload")
    client.close()


def test_thousands_of_requests_at_once(server: Server, wire: Wire) -> None:
    """All are answered in their order, though only a few are kept in mind."""
    before = memory(server)
    count = 5000
    requests = b"".join(b"GET /simple/p%d/ HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(count))
    last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with wire.connect() as connection:
        connection.sendall(requests + last)
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [*[b"404"] * count, b"200"]
    assert [int(number) for number in re.findall(rb"\r\n\r\n[^\r]*\bp(\d+)\b", received)] == list(range(count))
    assert memory(server) - before < 50


def test_queued_uploads(wire: Wire) -> None:
    """Requests with bodies are queued like others, and none is taken for the next."""
    one = b"POST /simple/ HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n" + HEALTH.ljust(5000)
    with wire.connect() as connection:
        connection.sendall(one * 100 + HEALTH[:-2] + b"connection: close\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [*[b"405"] * 100, b"200"]


def test_short_requests_by_the_thousand(server: Server, wire: Wire) -> None:
    """What a read of 256 KiB can hold is not all unpacked at once, and others get their turn."""
    before = memory(server)
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(wire.connect())
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                connection.sendall(b"GET / HTTP/1.1\r\nhost:\r\n\r\n" * 14_000)
        assert {wire.get("/health").status for _ in range(5)} == {200}
        assert memory(server) - before < 60


def test_client_that_left_its_queue(server: Server, wire: Wire) -> None:
    """Answers that nobody takes are given up without a word in the log."""
    assert wire.post("/", upload_form(WHEEL)).status == 200
    for _ in range(3):
        with wire.connect() as connection:
            connection.sendall(f"GET /packages/{WHEEL.filename} HTTP/1.1\r\nhost: x\r\n\r\n".encode() * 100)
            # Until the answers fill what the two systems hold, and one waits for room.
            assert {wire.get("/health").status for _ in range(100)} == {200}
    assert wire.get("/health").status == 200
    assert "Traceback" not in server.log


def test_nonsense_after_a_request(wire: Wire) -> None:
    """An answer on its way is not mixed with a refusal of what follows."""
    with wire.connect() as connection:
        connection.sendall(HEALTH * 3 + b"nonsense\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200"] * 3
    assert received.endswith(b"Ok")


def test_broken_body(wire: Wire, packages: Path) -> None:
    """An upload whose framing breaks is answered and leaves nothing."""
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    body = upload_form(WHEEL)[:300_000]
    with wire.connect() as connection:
        connection.sendall(head + b"%x\r\n%b\r\n" % (len(body), body))
        wait_until(lambda: bool(scratch(packages)), within=GENEROUS)
        connection.sendall(b"nonsense\r\n")
        assert_given_up(connection, 400, "not a valid HTTP request")
    wait_until(lambda: not scratch(packages), within=GENEROUS)


def test_many_slow_clients(server: Server, packages: Path) -> None:
    """Hundreds of connections that are idle or stall in an upload take little memory and hold up nobody."""
    wire = Wire(server.url)
    body = upload_form(WHEEL)
    before = memory(server)
    with ExitStack() as stack:
        slow = [stack.enter_context(wire.connect()) for _ in range(400)]
        for number, connection in enumerate(slow):
            connection.sendall(upload_head(len(body)) + body[:200_000] if number % 2 else b"GET / HTTP/1.1\r\nx: ")
        for _ in range(10):
            assert wire.get("/health").status == 200
        assert memory(server) - before < 50
        assert {read_answer(connection).status for connection in slow} == {408}
    wait_until(lambda: not scratch(packages), within=GENEROUS)


def test_more_connections_than_descriptors(tmp_path: Path) -> None:
    """The limit of open files is raised as far as it goes; beyond it clients are told to come back."""
    with hasty_server(tmp_path, (64, 330)) as server, ExitStack() as stack:
        wire = Wire(server.url)
        held = [stack.enter_context(wire.connect()) for _ in range(50)]
        for connection in held:
            connection.sendall(HEALTH)
            assert read_answer(connection).body == b"Ok"
        held += [stack.enter_context(wire.connect()) for _ in range(250)]
        refused = wire.get("/health")
        assert (refused.status, refused.body) == (503, b"too many connections: try again later\n")
        server.wait_for_log(r"\d+ connections: more are refused")
        for connection in held:
            connection.close()
        wait_until(lambda: wire.get("/health").status == 200, within=GENEROUS)


def test_stop_does_not_wait_for_slow_clients(tmp_path: Path) -> None:
    """Whoever is late is late for SIGTERM too."""
    with ExitStack() as stack:
        with hasty_server(tmp_path, (1024, 1024)) as server:
            wire = Wire(server.url)
            slow = [stack.enter_context(wire.connect()) for _ in range(4)]
            for connection, sent in zip(
                slow, itertools.cycle((b"GET", upload_head(1000), upload_head(10**9), HEALTH)), strict=False
            ):
                connection.sendall(sent)
            wait_until(lambda: wire.get("/health").status == 200)
        assert "timeout graceful shutdown exceeded" not in server.log
