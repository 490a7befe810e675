"""Core metadata of an upstream's wheels: taken from the upstream, or read from the end of the wheel, and kept."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit

from pypiserver_ng.archive.found import locate_metadata
from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.errors import Invalid, NotFound, UpstreamFailed
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.index.mirror.downloads import name_key
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.metadata import MAX_SIZE
from pypiserver_ng.model import Kind, UpstreamFile
from pypiserver_ng.storage import Cache, translate_os_error
from pypiserver_ng.upstream.addresses import Upstream
from pypiserver_ng.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)

#: Bytes at a wheel's end that are asked for first, and then. Its directory is there and mostly its metadata, too:
#: "Archivers are encouraged to place the .dist-info files physically at the end of the archive".
#: Bytes of a wheel that a sparse file may stand for.
_LARGEST = 16 * 2**30
_TAILS = (64 * 1024, 1024 * 1024)


class Sidecars:
    def __init__(self, cache: Cache, client: UpstreamClient, inspector: Inspector, threads: Threads) -> None:
        self._cache = cache
        self._client = client
        self._inspector = inspector
        self._threads = threads

    async def find(
        self,
        upstream: Upstream,
        file: UpstreamFile,
        find_whole: Callable[[], Awaitable[int | None]],
        bring: Callable[[], Awaitable[int | None]],
        *,
        offline: bool,
    ) -> bytes | None:
        """Its bytes, or None where the wheel has none.

        `find_whole` gives a descriptor of the whole wheel where it is here, `bring` also where it is not. Raises
        NotFound, UpstreamFailed, NoSpace, Unavailable.
        """
        if file.kind is not Kind.WHEEL:
            raise NotFound("only wheels have core metadata of their own")
        key = name_key(upstream.key, file)
        digest = file.metadata_sha256
        kept = await self._threads.run(self._cache.read_metadata, key, digest)
        if kept is not None and digest:
            return kept
        try:
            # What stands in the checked wheel counts more than what anybody says of it.
            content = (
                await self._read_whole(file, find_whole) or kept or await self._ask(upstream, file, offline=offline)
            )
            if content is None:
                content = await self._read_whole(file, bring)
        except OSError as fault:
            raise translate_os_error(fault, "core metadata cannot be read") from fault
        if content is None:
            return None
        if digest and _hash(content) != digest:
            raise UpstreamFailed(f"{upstream.name} sent other core metadata of {file.filename} than its page says")
        try:
            await self._threads.run(self._cache.write_metadata, key, content)
        except OSError as fault:
            _log.warning("core metadata cannot be kept: %s", fault.strerror)
        return content

    async def _ask(self, upstream: Upstream, file: UpstreamFile, *, offline: bool) -> bytes | None:
        """What the upstream says without sending the wheel."""
        if offline:
            return None
        content = await self._fetch(upstream, file) if file.metadata_sha256 is not None else None
        return content if content is not None else await self._read_parts(upstream, file)

    async def _fetch(self, upstream: Upstream, file: UpstreamFile) -> bytes | None:
        """None where the upstream has it not, whatever its page says."""
        parts = urlsplit(file.url)
        url = urlunsplit(parts._replace(path=f"{parts.path}.metadata"))
        content = bytearray()
        try:
            async with self._client.open(upstream, url) as answer:
                async for chunk in answer.chunks:
                    content += chunk
                    if len(content) > MAX_SIZE:
                        raise UpstreamFailed(f"{upstream.name} sends endless core metadata of {file.filename}")
        except NotFound:
            _log.warning("%s has no core metadata of %s, though its page says so", upstream.name, file.filename)
            return None
        return bytes(content)

    async def _read_parts(self, upstream: Upstream, file: UpstreamFile) -> bytes | None:
        """Read it from a file with nothing but the wheel's end in it, and where that leads: the rest is a hole."""
        size = file.size or await self._client.head(upstream, file.url)
        if not size or not _TAILS[0] < size <= _LARGEST:
            return None  # whole, then
        with tempfile.TemporaryFile(dir=self._cache.scratch) as sparse:
            # So that it begins like what it is.
            await self._threads.run(sparse.write, b"PK\x03\x04")
            await self._threads.run(sparse.truncate, size)
            for length in _TAILS:
                start = max(size - length, 0)
                if not await self._fetch_part(upstream, file, sparse, start, size - 1):
                    return None
                place = await self._threads.run(_locate, file, sparse, size)
                if place is None:
                    continue
                if place[0] < start and not await self._fetch_part(upstream, file, sparse, *place):
                    return None
                return await self._threads.run(self._inspect, file, sparse.fileno())
        return None

    async def _fetch_part(
        self, upstream: Upstream, file: UpstreamFile, sparse: BinaryIO, first: int, last: int
    ) -> bool:
        """Bring one part of a wheel; False where the upstream gives no parts."""
        try:
            async with self._client.open(upstream, file.url, first=first, last=last) as answer:
                if answer.status != 206 or answer.first != first:
                    return False
                part = b"".join([chunk async for chunk in answer.chunks])
        except UpstreamFailed:
            return False
        await self._threads.run(_write_at, sparse, first, part)
        return len(part) == last - first + 1

    async def _read_whole(self, file: UpstreamFile, find: Callable[[], Awaitable[int | None]]) -> bytes | None:
        fd = await find()
        if fd is None:
            return None
        try:
            return await self._threads.run(self._inspect, file, fd)
        finally:
            os.close(fd)

    def _inspect(self, file: UpstreamFile, fd: int) -> bytes | None:
        parsed = parse_found(file.filename)
        assert parsed is not None  # nothing else gets onto a page
        try:
            return self._inspector.inspect_found(fd, parsed).metadata
        except OSError as fault:
            raise UpstreamFailed(
                f"the core metadata of {file.filename} cannot be read: {os.strerror(fault.errno or 0)}"
            ) from fault


def _locate(file: UpstreamFile, sparse: BinaryIO, size: int) -> tuple[int, int] | None:
    """Where the metadata are, if that is known by now. Only the directory of the wheel is read, within its limits."""
    parsed = parse_found(file.filename)
    assert parsed is not None  # nothing else gets onto a page
    try:
        return locate_metadata(sparse, size, parsed)
    except Invalid:
        return None


def _write_at(sparse: BinaryIO, offset: int, part: bytes) -> None:
    sparse.seek(offset)
    sparse.write(part)
    sparse.flush()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
