"""How the bytes of files are sent: whole and unmixed at every speed, in bounded memory, never at others' cost."""

import asyncio
import itertools
import os
import re
import select
import socket
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pypiserver_ng.index.opened import OpenFile, lies_in_memory
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.model import Kind, UpstreamFile, normalize_name
from pypiserver_ng.web.sending import Sender
from tests.tools.server import OPEN, Serve, Server, wait_until
from tests.web.forms import Wire, read_answer

#: Several large blocks and a rest.
SIZE = 3_333_333
SMALL = 65 * 1024
LARGE = 512 * 1024
FILE = UpstreamFile("demo-1.0.zip", normalize_name("demo"), "demo", "1.0", Kind.SDIST, "")


class Cold(OpenFile):
    """Nothing of it lies in memory."""

    def peek(self, view: memoryview, offset: int, end: int | None) -> int:
        return 0


class Reader:
    """The other end of `send`: takes what it is given at once, or so many turns of the loop later."""

    def __init__(self, delay: int = 0) -> None:
        self._delay = delay
        self._pieces: list[Any] = []
        self.content = bytearray()
        self.sizes: list[int] = []
        self.blocks: set[int] = set()
        self.is_done = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        assert not self.is_done
        self.is_done = not message["more_body"]
        if piece := message["body"]:
            self.sizes.append(len(piece))
            self.blocks.add(id(piece.obj))
            # Of its own, as a transport has it.
            self._pieces.append(memoryview(piece))
            self._take_after(self._delay)

    def _take_after(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._take_after, turns - 1)
        else:
            self.content += self._pieces.pop(0)

    @property
    def kept(self) -> int:
        """Bytes of memory that cannot be used again before it has taken what is on the way."""
        return sum(len(piece.obj) for piece in self._pieces)

    async def receive(self) -> MutableMapping[str, Any]:
        """It never leaves."""
        await asyncio.Event().wait()
        raise AssertionError


class Stuck(Reader):
    """Takes the first pieces at once and then nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.has_stopped = asyncio.Event()

    def _take_after(self, turns: int) -> None:
        if len(self.sizes) <= 2:
            super()._take_after(turns)
        else:
            self.has_stopped.set()


class Leaving(Reader):
    """Goes away after the first piece; what is sent to it then is dropped."""

    async def receive(self) -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(4, "test")
    yield threads
    threads.stop()


@contextmanager
def opened(path: Path, threads: Threads, kind: type[OpenFile] = OpenFile) -> Iterator[OpenFile]:
    file = kind(FILE, os.open(path, os.O_RDONLY), threads, sha256="", modified=0)
    try:
        yield file
    finally:
        file.close()


Download = Callable[[Reader, bytes, type[OpenFile], int, int | None], Coroutine[Any, Any, None]]


@pytest.fixture
def download(tmp_path: Path, threads: Threads) -> Download:
    """Sends a file of these bytes to a reader, with one `Sender` for all."""
    sender = Sender()

    async def run(reader: Reader, content: bytes, kind: type[OpenFile], first: int, end: int | None) -> None:
        path = tmp_path / os.urandom(8).hex()
        path.write_bytes(content)
        with opened(path, threads, kind) as file:
            await sender.send({}, reader.receive, reader.send, file, first, end)

    return run


@pytest.mark.parametrize(
    ("first", "end"), ((0, SIZE), (0, None), (1, SMALL + 1), (7, SIZE - 7), (SIZE - 1, SIZE), (0, 0))
)
def test_many_at_once(download: Download, first: int, end: int | None) -> None:
    """Each client gets the bytes of its own file, however fast it and the others are, and wherever they lie."""
    contents = [os.urandom(SIZE) for _ in range(12)]
    readers = [Reader(number % 4) for number in range(12)]

    async def run() -> None:
        kinds = [OpenFile] * 6 + [Cold] * 6
        tasks = [download(*each, first, end) for each in zip(readers, contents, kinds, strict=True)]
        await asyncio.gather(*tasks)
        for _ in range(4):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert all(reader.is_done for reader in readers)
    assert all(reader.content == content[first:end] for reader, content in zip(readers, contents, strict=True))


@pytest.mark.parametrize("kind", (OpenFile, Cold))
def test_blocks(download: Download, kind: type[OpenFile]) -> None:
    """Who takes everything at once gets large blocks, and always the same one; a slow reader gets small ones."""
    quick, slow = Reader(), Reader(1)
    asyncio.run(download(quick, bytes(20 * LARGE), kind, 0, 20 * LARGE))
    assert {SMALL, LARGE} < set(quick.sizes)
    assert len(quick.sizes) <= 22
    assert len(quick.blocks) <= 3
    asyncio.run(download(slow, bytes(SIZE), kind, 0, SIZE))
    assert max(slow.sizes) == SMALL


def test_readers_that_stop(download: Download) -> None:
    """Clients that begin fast and then take nothing more hold a bounded number of large blocks."""
    readers = [Stuck() for _ in range(200)]

    async def run() -> None:
        tasks = [asyncio.ensure_future(download(reader, bytes(SIZE), OpenFile, 0, SIZE)) for reader in readers]
        await asyncio.gather(*(reader.has_stopped.wait() for reader in readers))
        assert sum(reader.kept for reader in readers) <= 16 * LARGE + 200 * SMALL
        # One that comes later is served all the same.
        late = Reader()
        await download(late, b"x" * SIZE, OpenFile, 0, SIZE)
        assert late.content == b"x" * SIZE
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("kind", (OpenFile, Cold))
def test_others_get_their_turn(download: Download, kind: type[OpenFile]) -> None:
    """A client that takes everything at once keeps nobody else from being served."""
    turns: list[int] = []

    async def run() -> None:
        reader = Reader()
        task = asyncio.ensure_future(download(reader, bytes(20 * LARGE), kind, 0, 20 * LARGE))
        while not task.done():
            turns.append(len(reader.content))
            await asyncio.sleep(0)

    asyncio.run(run())
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 2 * LARGE


@pytest.mark.parametrize("kind", (OpenFile, Cold))
def test_file_that_shrinks(download: Download, kind: type[OpenFile]) -> None:
    """The answer is left unfinished."""
    reader = Reader()
    asyncio.run(download(reader, bytes(SIZE), kind, 0, SIZE + 1))
    assert len(reader.content) == SIZE
    assert not reader.is_done


@pytest.mark.parametrize("kind", (OpenFile, Cold))
def test_client_that_leaves(download: Download, kind: type[OpenFile]) -> None:
    """The rest of the file is not read for nobody."""
    reader = Leaving()
    asyncio.run(download(reader, bytes(20 * LARGE), kind, 0, 20 * LARGE))
    assert len(reader.content) <= 3 * LARGE
    assert not reader.is_done


def test_path_of_a_file_that_was_deleted(tmp_path: Path, threads: Threads) -> None:
    """It has none, and not that of another file."""
    path = tmp_path / "demo-1.0.zip"
    path.write_bytes(b"x")
    with opened(path, threads) as file:
        assert file.real_path() == os.path.realpath(path)
        path.unlink()
        assert file.real_path() is None


# A real server

LENGTH = 40_000_000


@pytest.fixture
def server(serve: Serve, packages: Path) -> Server:
    with (packages / "large-1.0.zip").open("wb") as file:
        file.truncate(LENGTH)
    (packages / "mega-1.0.zip").write_bytes(os.urandom(1_000_000))
    for path in packages.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    server = serve(*OPEN, "--disable-fallback")
    assert Wire(server.url).get("/packages/mega-1.0.zip").status == 200
    return server


def resident(server: Server) -> int:
    """MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    return int(found[1]) >> 10


def request(connection: socket.socket, filename: str) -> None:
    connection.sendall(f"GET /packages/{filename} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())


def test_many_downloads(server: Server, packages: Path) -> None:
    """Three hundred at a time are all right, and cost little memory."""
    before = resident(server)
    content = (packages / "mega-1.0.zip").read_bytes()
    with ExitStack() as stack:
        connections = [stack.enter_context(Wire(server.url).connect()) for _ in range(300)]
        for connection in connections:
            request(connection, "mega-1.0.zip")
        wait_until(lambda: len(select.select(connections, [], [], 0)[0]) == 300, 30)
        assert resident(server) - before < 80
        assert all(read_answer(connection).body == content for connection in connections)
    assert resident(server) - before < 80


def test_downloads_that_stall(server: Server) -> None:
    """Clients that stop in the middle of a large file hold little memory, and nobody else waits for them."""
    before = resident(server)
    with ExitStack() as stack:
        connections = [stack.enter_context(Wire(server.url).connect()) for _ in range(300)]
        for connection in connections:
            request(connection, "large-1.0.zip")
        wait_until(lambda: len(select.select(connections, [], [], 0)[0]) == 300, 30)
        assert Wire(server.url).get("/packages/mega-1.0.zip").status == 200
        assert resident(server) - before < 80


def test_clients_that_leave(server: Server) -> None:
    """The file is closed soon after its client went."""
    descriptors = Path(f"/proc/{server.process.pid}/fd")

    def count_open() -> int:
        return sum(1 for fd in descriptors.iterdir() if os.path.realpath(fd).endswith("large-1.0.zip"))

    with Wire(server.url).connect() as connection:
        request(connection, "large-1.0.zip")
        wait_until(lambda: count_open() == 1, 10)
    wait_until(lambda: count_open() == 0, 10)


def test_the_ends_of_a_part_tell_of_it(tmp_path: Path) -> None:
    """Both have to be in memory; where the file ends before, nothing is."""
    path = tmp_path / "file"
    page, count = os.sysconf("SC_PAGE_SIZE"), 512
    path.write_bytes(os.urandom(page * count))
    fd = os.open(path, os.O_RDWR)
    try:
        assert lies_in_memory(fd, 0, page * count)
        assert lies_in_memory(fd, page * count - 1, 1)
        assert not lies_in_memory(fd, 0, 0)
        assert not lies_in_memory(fd, 0, page * count + 1)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        if lies_in_memory(fd, 0, 1):
            pytest.skip("this file system forgets nothing")
        os.pread(fd, 1, 0)
        assert lies_in_memory(fd, 0, page)
        assert not lies_in_memory(fd, 0, page * count)
        os.pread(fd, 1, page * (count - 1))
        assert lies_in_memory(fd, 0, page * count)
        assert not lies_in_memory(fd, page * (count // 2), page)
    finally:
        os.close(fd)
