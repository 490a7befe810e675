"""Answers from memory on the wire: who gets them, who does not, and what the log says of them.

That they are right whatever changes is for `tests/property/test_answers_from_memory.py`.
"""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from pypiserver_ng.server import open_socket, serving
from pypiserver_ng.server.answers import Answer, Answers, Line
from tests.tools.distributions import build_wheel, make_wheel
from tests.tools.server import OPEN, Serve, Server
from tests.web.forms import Wire, read_answer, upload_form

JSON = "Accept: application/vnd.pypi.simple.v1+json"
PAGE = f"GET /simple/demo/ HTTP/1.1\r\nHost: index.test\r\n{JSON}\r\n\r\n".encode()

_DATE = re.compile(rb"\r\ndate: [^\r]+")


@dataclass
class App:
    """Counts what it is asked; each answer tells its number, and may be remembered while `holds`."""

    remembers: bool = True
    holds: bool = True
    asked: list[str] = field(default_factory=list)
    status: int = 200
    size: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["method"])
        body = b"" if self.status == 304 else b"%d" % len(self.asked) + b"x" * self.size
        start: dict[str, Any] = {"type": "http.response.start", "status": self.status, "headers": []}
        if self.status != 304:
            start["headers"] = [(b"content-length", b"%d" % len(body))]
        if self.remembers:
            start["remember"] = lambda: self.holds
        await send(start)
        await send({"type": "http.response.body", "body": body})


@dataclass
class Reading(App):
    """Reads what it is sent before it answers."""

    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, has_more = b"", True
        while has_more:
            message = await receive()
            body += message["body"]
            has_more = message["more_body"]
        self.bodies.append(body)
        await super().__call__(scope, receive, send)


@asynccontextmanager
async def talking_to(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    with open_socket("127.0.0.1", 0) as listening:
        async with serving(app, listening):
            reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            yield reader, writer
            writer.close()
            await writer.wait_closed()


async def exchange(app: App, *pieces: bytes, answers: int) -> list[bytes]:
    """What comes back, answer by answer without dates, when each piece is sent after the answer to the one before."""
    async with talking_to(app) as (reader, writer):
        found: list[bytes] = []
        for number in range(max(len(pieces), answers)):
            if number < len(pieces):
                writer.write(pieces[number])
            if len(found) < answers:
                found.append(await read_one(reader, is_head=pieces[min(number, len(pieces) - 1)].startswith(b"HEAD")))
        return found


async def arrived(writer: asyncio.StreamWriter) -> None:
    """Return when the server has read what was written: it answers who came later, and asks no application for that."""
    reader, other = await asyncio.open_connection(*writer.get_extra_info("peername")[:2])
    other.write(b"no request\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    other.close()
    await other.wait_closed()


async def read_one(reader: asyncio.StreamReader, *, is_head: bool = False) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length and not is_head else b""
    return _DATE.sub(b"", head) + body


def request(method: str = "GET", target: str = "/", version: str = "1.1", *lines: str, body: str = "") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: index.test", *lines, "", body]).encode()


GET = request()


def test_the_same_bytes_get_the_same_answer_without_asking() -> None:
    app = App()
    answers = asyncio.run(exchange(app, *[GET] * 5, answers=5))
    assert len(set(answers)) == 1
    assert app.asked == ["GET"]


@pytest.mark.parametrize(
    "asked",
    (
        pytest.param(request("HEAD"), id="HEAD"),
        pytest.param(request("GET", "/", "1.1", "Authorization: Basic YTpi"), id="credentials"),
        pytest.param(request("GET", "/?format=json"), id="query"),
    ),
)
def test_more_that_is_remembered(asked: bytes) -> None:
    app = App()
    answers = asyncio.run(exchange(app, asked, asked, answers=2))
    assert answers[0] == answers[1]
    assert len(app.asked) == 1


def test_a_304_is_remembered() -> None:
    app = App(status=304)
    answers = asyncio.run(exchange(app, GET, GET, answers=2))
    assert answers[0] == answers[1]
    assert app.asked == ["GET"]


def test_other_connections_profit() -> None:
    app = App()

    async def run() -> None:
        with open_socket("127.0.0.1", 0) as listening:
            async with serving(app, listening):
                for _ in range(3):
                    reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
                    writer.write(GET)
                    await read_one(reader)
                    writer.close()
                    await writer.wait_closed()

    asyncio.run(run())
    assert app.asked == ["GET"]


def test_what_does_not_say_so_is_not_remembered() -> None:
    app = App(remembers=False)
    asyncio.run(exchange(app, *[GET] * 3, answers=3))
    assert len(app.asked) == 3


def test_what_does_not_hold_any_more_is_asked_for_again() -> None:
    app = App()

    async def run() -> list[bytes]:
        async with talking_to(app) as (reader, writer):
            found = []
            for holds in (True, True, False, True, True):
                app.holds = holds
                writer.write(GET)
                found.append(await read_one(reader))
            return found

    answers = [answer.rpartition(b"\r\n\r\n")[2] for answer in asyncio.run(run())]
    assert answers == [b"1", b"1", b"2", b"2", b"2"]


@pytest.mark.parametrize(
    "asked",
    (
        pytest.param(request("POST", "/", "1.1", "Content-Length: 0"), id="POST"),
        pytest.param(
            request("GET", "/", "1.1", "Content-Length: 4", body="\r\n\r\n"), id="body that looks like an end"
        ),
        pytest.param(request("GET", "/", "1.1", "Content-Length: 2", body="ab"), id="body"),
        pytest.param(request("GET", "/", "1.1", "Transfer-Encoding: chunked", body="0\r\n\r\n"), id="chunks"),
        pytest.param(b"\r\n" + GET, id="empty line before it"),
        pytest.param(GET + b"\r\n", id="empty line behind it"),
        pytest.param(request("GET", "/", "1.1", f"X: {'y' * 5000}"), id="long"),
    ),
)
def test_what_is_more_than_one_plain_request_is_not_remembered(asked: bytes) -> None:
    app = App()
    asyncio.run(exchange(app, asked, asked, asked, answers=3))
    assert len(app.asked) == 3


@pytest.mark.parametrize(
    "first",
    (
        pytest.param(request("GET", "/", "1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), id="h2c"),
        pytest.param(request("GET", "/", "1.1", "Connection: upgrade", "Upgrade: websocket"), id="websocket"),
    ),
)
def test_a_connection_on_which_another_protocol_was_asked_for_asks_each_time(first: bytes) -> None:
    app = App()

    async def run() -> None:
        async with talking_to(app) as (reader, writer):
            writer.write(GET)
            await read_one(reader)
            assert len(app.asked) == 1
            writer.write(first)
            await read_one(reader)
            writer.write(first)
            await read_one(reader)

    asyncio.run(run())
    assert len(app.asked) == 3


@pytest.mark.parametrize(
    "first",
    (
        pytest.param(request("GET", "/", "1.1", "Connection: upgrade", "Upgrade: h2c"), id="GET"),
        pytest.param(
            request("POST", "/", "1.1", "Connection: upgrade", "Upgrade: h2c", "Content-Length: 4", body="body"),
            id="body",
        ),
        pytest.param(
            request("POST", "/", "1.1", "Connection: upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked")
            + b"4\r\nbody\r\n0\r\n\r\n",
            id="chunks",
        ),
    ),
)
@pytest.mark.parametrize("cut", (0, 1, 20, -1))
def test_what_follows_a_request_for_another_protocol_is_answered(first: bytes, cut: int) -> None:
    """RFC 9110, 7.8: whoever ignores the wish goes on as before, also with what came in the same breath."""
    app = Reading()
    together = first + first + GET + GET

    async def run() -> list[bytes]:
        async with talking_to(app) as (reader, writer):
            writer.write(together[:cut])
            if cut:
                await arrived(writer)
            writer.write(together[cut:])
            return [await read_one(reader) for _ in range(4)]

    assert [answer[-1:] for answer in asyncio.run(run())] == [b"1", b"2", b"3", b"4"]
    assert app.bodies == [first.partition(b"\r\n\r\n")[2].replace(b"4\r\nbody\r\n0\r\n\r\n", b"body")] * 2 + [b""] * 2
    assert app.asked == [first.split()[0].decode()] * 2 + ["GET"] * 2


def test_requests_that_came_together_are_asked_in_turn() -> None:
    app = App()

    async def run() -> list[bytes]:
        async with talking_to(app) as (reader, writer):
            writer.write(GET)
            first = await read_one(reader)
            writer.write(GET + GET)
            return [first, await read_one(reader), await read_one(reader)]

    bodies = [answer[-1:] for answer in asyncio.run(run())]
    assert bodies == [b"1", b"2", b"3"]


def test_a_request_in_pieces_is_asked() -> None:
    app = App()

    async def run() -> bytes:
        async with talking_to(app) as (reader, writer):
            writer.write(GET)
            await read_one(reader)
            # The second half begins with what looks like a request of its own.
            writer.write(b"GET / HTTP/1.1\r\nX: ")
            # To yield is not enough: what is written meanwhile would arrive together with it.
            await arrived(writer)
            writer.write(GET)
            return await read_one(reader)

    assert asyncio.run(run()).endswith(b"2")


def test_an_answer_from_memory_waits_for_the_one_before() -> None:
    """Two requests in flight: the second is known, the first is slow."""

    async def run() -> list[bytes]:
        has_begun, going = asyncio.Event(), asyncio.Event()

        class Slow(App):
            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                if scope["path"] == "/slow":
                    has_begun.set()
                    await going.wait()
                    self.size = 7
                await super().__call__(scope, receive, send)

        app = Slow()
        async with talking_to(app) as (reader, writer):
            writer.write(GET)
            known = await read_one(reader)
            writer.write(request("GET", "/slow"))
            await has_begun.wait()
            writer.write(GET)
            await arrived(writer)
            going.set()
            return [known, await read_one(reader), await read_one(reader)]

    answers = [answer.rpartition(b"\r\n\r\n")[2] for answer in asyncio.run(run())]
    assert answers[1] == b"2xxxxxxx"
    assert answers[2][:1] in {b"1", b"3"}


@pytest.mark.parametrize("size", (0, 1000, 200_000))
def test_bodies_of_every_size_come_whole(size: int) -> None:
    app = App(size=size)
    answers = asyncio.run(exchange(app, *[GET] * 4, answers=4))
    assert answers == [answers[0]] * 4
    assert len(answers[0]) > size
    assert app.asked == ["GET"]


def test_a_client_that_does_not_read_stops_being_answered() -> None:
    """What it does not take stays with it: the server keeps no more than its write buffer and the system's."""
    app = App(size=100_000)

    async def run() -> int:
        async with talking_to(app) as (reader, writer):
            writer.write(GET)
            await read_one(reader)
            sent = 0
            try:
                while sent < 2000:
                    writer.write(GET)
                    async with asyncio.timeout(0.5):
                        await writer.drain()
                    sent += 1
            except TimeoutError:
                return sent
            for _ in range(sent):
                assert (await read_one(reader)).endswith(b"x")
            return sent

    assert asyncio.run(run()) > 0


@pytest.mark.parametrize("most", (0, 1, 30_000))
def test_what_the_system_does_not_take_at_once_follows(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large answer it may take any part, or none: the rest comes behind it, and in its place."""
    app = App(size=200_000)
    counts: list[int] = []
    sendfile = os.sendfile

    def take_little(out: int, file: int, offset: int, count: int) -> int:
        counts.append(sendfile(out, file, offset, min(count, most)) if most else 0)
        return counts[-1]

    monkeypatch.setattr(os, "sendfile", take_little)
    answers = asyncio.run(exchange(app, *[GET] * 4, answers=4))
    assert answers == [answers[0]] * 4
    assert len(answers[0]) > 200_000
    assert app.asked == ["GET"]
    assert counts == [most] * 3


def make_answer(size: int) -> Answer:
    return Answer(b"", b"x" * size, Line("GET", "/", "1.1", 200), 0, lambda: True)


def count_files() -> int:
    """Files in memory that this process has open."""
    links = []
    for path in Path("/proc/self/fd").iterdir():
        # One of them is what lists them.
        with contextlib.suppress(FileNotFoundError):
            links.append(str(path.readlink()))
    return len([link for link in links if link.startswith("/memfd:answer")])


def test_files_in_memory_are_given_back() -> None:
    """When an answer is made anew, replaced, dropped, or has to go for others."""
    answers = Answers(most_bytes=1_000_000)
    before = count_files()
    first = make_answer(100_000)
    answers.keep(b"first", first)
    for date in (b"one", b"two", b"three"):
        first.renew([(b"date", date)])
        assert count_files() == before + 1
    for number in range(2):
        answer = make_answer(100_000)
        answers.keep(b"second", answer)
        answer.renew([])
        assert count_files() == before + 2, number
    answers.drop(b"first")
    assert count_files() == before + 1
    for number in range(20):
        answers.keep(b"%d" % number, make_answer(100_000))
    assert count_files() == before


def test_one_that_is_larger_than_everything_is_not_kept() -> None:
    """It would cost all others their places; an older answer to the same bytes goes all the same."""
    answers = Answers(most_bytes=100_000)
    for number in range(3):
        answers.keep(b"%d" % number, make_answer(1000))
    answers.keep(b"large", make_answer(1000))
    answers.keep(b"large", make_answer(60_000))
    assert [answers.find(b"%d" % number) is not None for number in range(3)] == [True] * 3
    assert answers.find(b"large") is None


def test_memory_is_bounded() -> None:
    answers = Answers(most_bytes=100_000)
    for number in range(1000):
        answers.keep(b"%d" % number, make_answer(1000))
    kept = [number for number in range(1000) if answers.find(b"%d" % number)]
    assert 10 < len(kept) < 100
    assert kept == list(range(kept[0], 1000))


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(Wire(server.url).address, timeout=30) as connection:
        yield connection


def test_an_upload_is_in_the_next_answer(serve: Serve, packages: Path) -> None:
    make_wheel(packages, "demo", "1.0")
    server = serve(*OPEN)
    with connected(server) as connection:
        for version in ("1.1", "1.2", "1.3"):
            for _ in range(3):
                connection.sendall(PAGE)
                assert version.encode() not in read_answer(connection).body
            assert Wire(server.url).post("/", upload_form(build_wheel("demo", version))).status == 200
            connection.sendall(PAGE)
            assert version.encode() in read_answer(connection).body


def test_the_log_names_every_request(serve: Serve, packages: Path) -> None:
    make_wheel(packages, "demo", "1.0")
    server = serve(*OPEN, "-v")
    with connected(server) as connection:
        for _ in range(20):
            connection.sendall(PAGE)
            assert read_answer(connection).status == 200
        port = connection.getsockname()[1]
    assert server.stop() == 0
    lines = [line for line in server.log.splitlines() if '"GET /simple/demo/ HTTP/1.1" 200' in line]
    assert len(lines) == 20
    assert all(f"127.0.0.1:{port} - " in line for line in lines)


def test_the_log_names_whom_a_trusted_proxy_speaks_for(serve: Serve, packages: Path) -> None:
    make_wheel(packages, "demo", "1.0")
    server = serve(*OPEN, "-v", "--trusted-proxy", "127.0.0.1")
    asked = PAGE[:-2] + b"X-Forwarded-For: 192.0.2.7\r\n\r\n"
    # Whoever says so without being trusted must not teach it the answer.
    with socket.create_connection(Wire(server.url).address, source_address=("127.0.0.9", 0)) as stranger:
        stranger.sendall(asked)
        assert read_answer(stranger).status == 200
    with connected(server) as connection:
        for _ in range(5):
            connection.sendall(asked)
            assert read_answer(connection).status == 200
    assert server.stop() == 0
    assert len([line for line in server.log.splitlines() if "192.0.2.7:0 - " in line]) == 5


def test_a_server_that_stops_says_good_bye_to_idle_connections(serve: Serve, packages: Path) -> None:
    make_wheel(packages, "demo", "1.0")
    server = serve(*OPEN)
    with connected(server) as first, connected(server) as second:
        for connection in (first, second):
            connection.sendall(PAGE)
            assert read_answer(connection).status == 200
        assert server.stop() == 0
        assert second.recv(1) == b""
