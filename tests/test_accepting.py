"""Connections that several processes take from one socket: everybody gets a share, and nobody waits for a share."""

import asyncio
import os
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest

from pypiserver_ng.server import accepting
from pypiserver_ng.server.accepting import Acceptor
from tests.tools.server import OPEN, Serve, Server

Connect = Callable[[], Coroutine[None, None, str]]


class Greeter(asyncio.Protocol):
    """Says who took the connection."""

    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._name.encode())
        transport.close()


@asynccontextmanager
async def taking(**have_their_share: bool) -> AsyncIterator[Connect]:
    """A socket that several take from, all in this process; connecting tells the name of the one that did."""
    with ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))

        def start(name: str, has_its_share: bool) -> Acceptor:
            own = opened.enter_context(listening.dup())
            return Acceptor(own, lambda: Greeter(name), lambda _opening: has_its_share)

        async def connect() -> str:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            name = await reader.read()
            writer.close()
            await writer.wait_closed()
            return name.decode()

        acceptors = [start(name, has_its_share) for name, has_its_share in have_their_share.items()]
        try:
            yield connect
        finally:
            for acceptor in acceptors:
                acceptor.close()
                await acceptor.wait_closed()


def test_who_has_enough_lets_others_go_first() -> None:
    """Most of the time: one that comes when the courtesy of an earlier one ends is taken by either."""

    async def scenario() -> list[str]:
        async with taking(rich=True, poor=False) as connect:
            return [await connect() for _ in range(20)]

    assert asyncio.run(scenario()).count("poor") > 10


def test_nobody_waits_for_ever() -> None:
    """Where the others do not come, who has enough takes more; also of a burst."""

    async def scenario() -> list[str]:
        async with taking(rich=True) as connect:
            return await asyncio.gather(*(connect() for _ in range(50)))

    assert asyncio.run(scenario()) == ["rich"] * 50


def test_without_room_a_connection_is_closed() -> None:
    """One in the middle of a handshake is nobody's yet, and takes a descriptor all the same."""

    async def scenario() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            acceptor = Acceptor(listening, lambda: Greeter("one"), lambda _: False, has_room=lambda _opening: False)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            received = await reader.read()
            writer.close()
            await writer.wait_closed()
            acceptor.close()
            await acceptor.wait_closed()
            return received

    assert asyncio.run(scenario()) == b""


def test_who_does_not_begin_with_tls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """In time: a connection that says nothing takes a place."""
    monkeypatch.setattr(accepting, "_HANDSHAKE_SECONDS", 0.1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    async def scenario() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            acceptor = Acceptor(listening, lambda: Greeter("one"), lambda _: False, choose_context=lambda: context)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            try:
                return await asyncio.wait_for(reader.read(), 10)
            finally:
                writer.close()
                await writer.wait_closed()
                acceptor.close()
                await acceptor.wait_closed()

    assert asyncio.run(scenario()) == b""


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing more can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_connection_waits_for_a_descriptor(caplog: pytest.LogCaptureFixture) -> None:
    """It is neither lost nor asked for in a loop, and the log says why it waits."""

    async def scenario() -> str:
        async with taking(one=False) as connect:
            # The client's descriptor is there before there are no more.
            connecting = asyncio.create_task(connect())
            await asyncio.sleep(0)
            with no_descriptors():
                while not caplog.messages:  # noqa: ASYNC110 - a log has no events
                    await asyncio.sleep(0.01)
            return await connecting

    assert asyncio.run(scenario()) == "one"
    assert caplog.messages == ["no connection can be taken now: Too many open files"]


def list_workers(server: Server) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def count_sockets(pid: int) -> int:
    return sum(str(link.readlink()).startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir())


def test_all_workers_get_connections(serve: Serve) -> None:
    """Of sixteen clients that stay, none of two workers gets all."""
    server = serve(*OPEN, "--disable-fallback", "--workers", "2")
    before = {pid: count_sockets(pid) for pid in list_workers(server)}
    clients = [httpx2.Client() for _ in range(16)]
    for client in clients:
        assert client.get(f"{server.url}/health").text == "Ok"
    taken = {pid: count_sockets(pid) - had for pid, had in before.items()}
    assert sum(taken.values()) == 16
    assert min(taken.values()) >= 4, taken
    for client in clients:
        client.close()


def test_a_worker_that_hangs_keeps_nobody_waiting(serve: Serve) -> None:
    """It has the fewest connections, and takes none."""
    server = serve(*OPEN, "--disable-fallback", "--workers", "2")
    pid, _ = list_workers(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        clients = [httpx2.Client(timeout=10) for _ in range(16)]
        for client in clients:
            assert client.get(f"{server.url}/health").text == "Ok"
            assert client.get(f"{server.url}/health").text == "Ok"
        for client in clients:
            client.close()
    finally:
        os.kill(pid, signal.SIGCONT)
