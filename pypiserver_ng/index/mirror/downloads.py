"""Fetches files from other indexes: once for everybody, to the client while it comes, kept only when it is right.

A download belongs to nobody who asked for it: it goes on when they leave. What another process fetches is followed on
the disk.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

from pypiserver_ng.errors import Failure, NotFound, UpstreamDown, UpstreamFailed
from pypiserver_ng.index.opened import peek
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.model import UpstreamFile
from pypiserver_ng.storage import Cache, Partial, hash_open_file, translate_os_error
from pypiserver_ng.upstream.addresses import Upstream
from pypiserver_ng.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)

#: Largest file that is fetched where its page gives no size, in bytes.
_LARGEST = 16 * 2**30
#: How often a process looks how far another is with a file.
_POLL_SECONDS = 0.02
#: How long another process is waited for that brings nothing; longer than an upstream may take between two pieces.
_HUNG_SECONDS = 40.0
#: Other digests that a page may give; their names in hashlib.
_DIGESTS = {"sha512": "sha512", "sha384": "sha384", "sha224": "sha224", "md5": "md5", "blake2b_256": "blake2b"}


class Expectation(Protocol):
    """What a file's bytes must be."""

    async def known(self) -> str | None:
        """The sha256 that they must have; None where nobody knows yet."""

    async def settle(self, sha256: str) -> str:
        """The same once whole bytes with this sha256 passed every other check: those that are first hold for ever."""


class Download:
    """One file that is coming, here or in another process. Used on the event loop."""

    def __init__(self, file: UpstreamFile) -> None:
        self.file = file
        #: Bytes of the whole, once they are known.
        self.total = file.size
        self.received = 0
        #: Of the finished file.
        self.sha256: str | None = None
        self.failure: Failure | None = None
        self.fd = -1
        self.has_begun = asyncio.Event()
        self._changed = asyncio.Event()
        self._readers = 0
        self._partial: Partial | None = None

    @property
    def is_over(self) -> bool:
        return self.sha256 is not None or self.failure is not None

    def attach(self, partial: Partial) -> None:
        self._partial = partial
        self.fd = partial.fd

    def detach(self) -> None:
        """Nobody has read anything from it."""
        if self._partial is not None:
            self._partial.close()
        self._partial, self.fd, self.received = None, -1, 0

    def pulse(self) -> None:
        """Wake everybody who waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def change(self) -> None:
        await self._changed.wait()

    async def whole(self) -> str:
        """Its sha256, when all of it is here. Raises Failure."""
        while not self.is_over:
            await self.change()
        if self.failure is not None:
            raise self.failure
        assert self.sha256 is not None
        return self.sha256

    def finish(self, failure: Failure | None = None, sha256: str | None = None) -> None:
        self.failure, self.sha256 = failure, sha256
        self.has_begun.set()
        self.pulse()
        self._close_if_unused()

    def hold(self) -> None:
        """Somebody reads from it."""
        self._readers += 1

    def let_go(self) -> None:
        self._readers -= 1
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self.is_over and self._readers == 0 and self._partial is not None:
            self._partial.close()
            self._partial = None


class Downloads:
    def __init__(self, cache: Cache, client: UpstreamClient, threads: Threads) -> None:
        self._cache = cache
        self._client = client
        self._threads = threads
        self._running: dict[str, tuple[Download, asyncio.Task[None]]] = {}
        #: Hosts that could not be reached a moment ago, and until when nobody tries again (monotonic).
        self._down: dict[str, tuple[float, UpstreamDown]] = {}

    def join(self, upstream: Upstream, file: UpstreamFile, expectation: Expectation) -> Download:
        """The download of the file, which is under way already or begins now; held for who asks."""
        key = name_key(upstream.key, file)
        running = self._running.get(key)
        if running is None or running[0].is_over:
            download = Download(file)
            if (fault := self._find_fault(file)) is not None:
                download.hold()
                download.finish(fault)
                return download
            task = asyncio.get_running_loop().create_task(self._run(key, upstream, download, expectation))
            self._running[key] = running = download, task
        running[0].hold()
        return running[0]

    def _find_fault(self, file: UpstreamFile) -> UpstreamDown | None:
        until, fault = self._down.get(_host(file), (0.0, None))
        return fault if time.monotonic() < until else None

    async def stop(self) -> None:
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: str, upstream: Upstream, download: Download, expectation: Expectation) -> None:
        try:
            sha256 = await self._fetch_or_follow(key, upstream, download, expectation)
        except Failure as fault:
            if isinstance(fault, UpstreamDown):
                self._down[_host(download.file)] = time.monotonic() + fault.PAUSE, fault
            if not isinstance(fault, NotFound):
                _log.warning("%s of %s: %s", download.file.filename, upstream.name, fault.message)
            download.finish(fault)
        except OSError as fault:
            _log.warning("%s cannot be kept: %s", download.file.filename, fault.strerror)
            download.finish(translate_os_error(fault, "the file was not fetched"))
        except asyncio.CancelledError:
            download.finish(UpstreamFailed("the server stops"))
            raise
        except Exception:
            _log.exception("fetching %s failed", download.file.filename)
            download.finish(UpstreamFailed(f"{download.file.filename} could not be fetched"))
        else:
            download.finish(sha256=sha256)
        finally:
            if self._running.get(key, (None,))[0] is download:
                del self._running[key]

    async def _fetch_or_follow(self, key: str, upstream: Upstream, download: Download, expectation: Expectation) -> str:
        while True:
            partial = await self._threads.run(self._cache.begin, key)
            if partial.is_ours:
                download.attach(partial)
                try:
                    if (sha256 := await self._find(download, partial, expectation)) is not None:
                        return sha256
                    return await self._fetch(upstream, download, partial, expectation)
                except BaseException:
                    partial.give_up()
                    raise
            if (sha256 := await self._follow(download, partial)) is not None:
                return sha256

    async def _find(self, download: Download, partial: Partial, expectation: Expectation) -> str | None:
        """Its sha256 where somebody was quicker and it is here already."""
        sha256 = await expectation.known()
        if sha256 is None:
            return None
        fd = await self._threads.run(self._cache.open_file, sha256, download.file.filename, download.file.size)
        if fd is None:
            return None
        partial.give_up()
        download.detach()
        download.attach(Partial(partial.path, fd, is_ours=False))
        download.received = download.total = os.fstat(fd).st_size
        return sha256

    # Here

    async def _fetch(self, upstream: Upstream, download: Download, partial: Partial, expectation: Expectation) -> str:
        file = download.file
        writer = _Writer(partial.fd, file.other_digest if file.sha256 is None else None)
        async with self._client.open(upstream, file.url) as answer:
            if file.size is not None and answer.length not in {None, file.size}:
                raise UpstreamFailed(
                    f"{upstream.name} sends {answer.length} bytes for {file.filename}, not {file.size}"
                )
            download.total = answer.length if file.size is None else file.size
            limit = _LARGEST if download.total is None else min(download.total, _LARGEST)
            download.has_begun.set()
            async for chunk in answer.chunks:
                if download.received + len(chunk) > limit:
                    raise UpstreamFailed(f"{upstream.name} sends more bytes of {file.filename} than it should have")
                await self._threads.finish(writer.write, chunk)
                download.received += len(chunk)
                download.pulse()
        if download.total is not None and download.received != download.total:
            raise UpstreamFailed(
                f"{upstream.name} sent {download.received} of {download.total} bytes of {file.filename}"
            )
        sha256 = writer.check(file.filename, upstream.name)
        _expect(file, upstream, sha256, await expectation.settle(sha256))
        await self._threads.finish(self._cache.publish, partial, sha256, file.filename)
        _log.info("fetched %s from %s: %d bytes", file.filename, upstream.name, download.received)
        download.total = download.received
        return sha256

    # In another process

    async def _follow(self, download: Download, partial: Partial) -> str | None:
        """Its sha256 when the other process is done; None where it failed before anybody read from it."""
        download.attach(partial)
        grown = time.monotonic()
        while True:
            is_over = await self._threads.run(partial.is_over)
            size = os.fstat(partial.fd).st_size
            if size > download.received:
                grown = time.monotonic()
            elif time.monotonic() - grown > _HUNG_SECONDS:
                raise UpstreamFailed(f"{download.file.filename} is being fetched by a process that does not go on")
            download.received = size
            if download.received and not is_over:
                download.has_begun.set()
            download.pulse()
            if is_over:
                break
            await asyncio.sleep(_POLL_SECONDS)
        if (sha256 := await self._threads.run(self._find_published, download.file, partial)) is not None:
            download.total = download.received
            return sha256
        if download.has_begun.is_set():
            raise UpstreamFailed(f"{download.file.filename} could not be fetched whole")
        download.detach()
        return None

    def _find_published(self, file: UpstreamFile, partial: Partial) -> str | None:
        """The sha256 under which the other process gave it its name: only what passed its checks has one."""
        if partial.has_moved():
            sha256 = file.sha256 or hash_open_file(partial.fd)
            if self._cache.is_published(partial, sha256, file.filename):
                return sha256
        # It may have been evicted before we looked; its bytes are open here, and tell whether they are right.
        return file.sha256 if file.sha256 and hash_open_file(partial.fd) == file.sha256 else None


class Tail:
    """A file that is sent while it comes; see `Opened`."""

    def __init__(
        self,
        file: UpstreamFile,
        start: Callable[[], Download],
        size_of: Callable[[], Awaitable[int | None]],
        threads: Threads,
        modified: int | None,
    ) -> None:
        self.file = file
        self.sha256 = file.sha256
        self.size = file.size
        self.modified = modified
        self._start = start
        self._size_of = size_of
        self._threads = threads
        self._download: Download | None = None

    async def begin(self) -> None:
        self._download = download = self._start()
        await download.has_begun.wait()
        if download.failure is not None:
            raise download.failure
        self.sha256 = download.sha256 or self.sha256
        self.size = download.total

    async def measure(self) -> None:
        if self.size is None:
            self.size = await self._size_of()

    def peek(self, view: memoryview, offset: int, end: int | None) -> int:
        download = self._download
        assert download is not None
        if download.failure is not None:
            return 0
        return peek(download.fd, view[: max(_limit(download, end) - offset, 0)], offset)

    def span(self, offset: int, end: int) -> tuple[int, int]:
        # It comes more slowly than anything could save.
        return -1, 0

    async def read(self, count: int, offset: int, end: int | None) -> bytes:
        download = self._download
        assert download is not None
        while True:
            if download.failure is not None:
                raise download.failure
            limit = _limit(download, end)
            if offset < limit:
                block = await self._threads.run(os.pread, download.fd, min(count, limit - offset), offset)
                if not block:
                    raise UpstreamFailed(f"{self.file.filename} became shorter while it was sent")
                return block
            if download.sha256 is not None:
                return b""
            await download.change()

    def real_path(self) -> str | None:
        return None

    def close(self) -> None:
        if self._download is not None:
            self._download.let_go()
            self._download = None


def _limit(download: Download, end: int | None) -> int:
    """Before which byte may be read; the last one that is wanted waits until all were checked."""
    if download.sha256 is not None:
        return download.received
    return min(download.received, end or _LARGEST) - 1


class _Writer:
    """Writes and hashes in one pass; in threads, one at a time."""

    def __init__(self, fd: int, other: str | None) -> None:
        self._fd = fd
        self._sha256 = hashlib.sha256()
        algorithm, _, self._expected = (other or "").partition("=")
        self._other = _new_hash(algorithm) if algorithm else None

    def write(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        if self._other is not None:
            self._other.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]

    def check(self, filename: str, upstream: str) -> str:
        """The sha256. Raises UpstreamFailed where another digest is not what the page says."""
        if self._other is not None and not hmac.compare_digest(self._other.hexdigest(), self._expected.lower()):
            raise UpstreamFailed(f"{upstream} sent other bytes of {filename} than its page says")
        return self._sha256.hexdigest()


def _new_hash(algorithm: str) -> Any:
    name = _DIGESTS.get(algorithm)
    if name is None:
        # What cannot be checked must not pass for checked.
        raise UpstreamFailed(f"its page gives a digest that is not known here: {algorithm[:20]}")
    if name == "blake2b":
        return hashlib.blake2b(digest_size=32)
    return hashlib.new(name, usedforsecurity=False)


def _expect(file: UpstreamFile, upstream: Upstream, sha256: str, expected: str) -> None:
    if not hmac.compare_digest(sha256, expected):
        raise UpstreamFailed(
            f"{upstream.name} sent other bytes of {file.filename} than they must be: sha256 {sha256}, not {expected}"
        )


def _host(file: UpstreamFile) -> str:
    return urlsplit(file.url).netloc


def name_key(upstream: str, file: UpstreamFile) -> str:
    """What tells one upstream's file from all others, as a filename of 64 characters.

    Not its sha256 alone: another upstream, or another project, may say that its file has the same. Not its URL where
    there is a hash: some indexes sign their links anew for each page.
    """
    parts = (upstream, file.project, file.filename, file.sha256 or file.url)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
