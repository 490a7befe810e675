"""A server that says byte by byte what a test wants, right or wrong, and remembers what it was asked.

It runs on the test's own event loop and knows nothing of the program under test.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum


class Odd(Enum):
    """What a server may do beside sending bytes."""

    #: Send nothing more until the test ends.
    HANG = "hang"
    #: Send the same bytes again and again until nobody wants them.
    REPEAT = "repeat"
    #: Break the connection off.
    CLOSE = "close"
    #: Answer no more, but take the connection for a tunnel to the server itself.
    TUNNEL = "tunnel"


Step = bytes | Odd


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    #: Which connection it came on, from 0.
    connection: int


@dataclass(slots=True)
class OddUpstream:
    """Answers by target; what is not known is 404."""

    port: int = 0
    scheme: str = "http"
    answers: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def root(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [each.target for each in self.asked]

    async def quiet(self) -> None:
        """Wait until no connection is open any more."""
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def say(self, target: str, *steps: Step) -> None:
        self.answers[target] = steps


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer; its length is said unless a header says another one or that it is chunked."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if not {"Content-Length", "Transfer-Encoding"} & named.keys() and status != 304:
        named["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Odd\r\n{head}\r\n".encode() + body


@asynccontextmanager
async def running_odd_upstream(context: ssl.SSLContext | None = None) -> AsyncIterator[OddUpstream]:
    """On a free port for the length of a block, with TLS where a context is given."""
    upstream = OddUpstream(scheme="https" if context else "http")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        upstream.tasks.add(task)
        number, upstream.connections = upstream.connections, upstream.connections + 1
        try:
            await _converse(upstream, number, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            upstream.tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in list(upstream.tasks):
            task.cancel()
        await upstream.quiet()


async def _converse(
    upstream: OddUpstream,
    number: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.rstrip().split("\r\n")
        method, target, _ = line.split(" ")
        pairs = (header.partition(":") for header in rest)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        upstream.asked.append(Asked(method, target, headers, number))
        for step in upstream.answers.get(target, (reply(404),)):
            if isinstance(step, bytes):
                sent = step if method != "HEAD" else step.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
                writer.write(sent)
                await writer.drain()
            elif step is Odd.HANG:
                await asyncio.Event().wait()
            elif step is Odd.CLOSE:
                return
            elif step is Odd.TUNNEL:
                await _tunnel(target, reader, writer)
                return
            else:
                while True:
                    writer.write(sent)
                    await writer.drain()


async def _tunnel(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a proxy does after CONNECT."""
    host, _, port = target.partition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    try:
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    finally:
        far_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()
