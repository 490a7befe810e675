"""Core metadata of an upstream's wheels: taken from the upstream, or read from the end of the wheel, and kept."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.errors import NotFound, UpstreamFailed
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.index.mirror.downloads import name_key
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.metadata import MAX_SIZE
from pypiserver_ng.model import Kind, UpstreamFile
from pypiserver_ng.storage import Cache, translate_os_error
from pypiserver_ng.upstream import Upstream, UpstreamClient

_log = logging.getLogger(__name__)

#: Bytes at a wheel's end that are asked for first, and then; its metadata and directory are there ("Archivers are
#: encouraged to place the .dist-info files physically at the end of the archive").
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
        return content if content is not None else await self._read_end(upstream, file)

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

    async def _read_end(self, upstream: Upstream, file: UpstreamFile) -> bytes | None:
        """Read it from a file with nothing but the wheel's end in it: the rest is a hole."""
        for length in _TAILS:
            size = file.size or await self._client.head(upstream, file.url)
            if not size or size <= length or size > _LARGEST:
                return None  # whole, then
            try:
                async with self._client.open(upstream, file.url, first=size - length, last=size - 1) as answer:
                    if answer.status != 206 or answer.first != size - length:
                        return None
                    tail = b"".join([chunk async for chunk in answer.chunks])
            except UpstreamFailed:
                return None
            if len(tail) == length and (content := await self._threads.run(self._inspect_end, file, size, tail)):
                return content
        return None

    def _inspect_end(self, file: UpstreamFile, size: int, tail: bytes) -> bytes | None:
        with tempfile.TemporaryFile(dir=self._cache.scratch) as sparse:
            # So that it begins like what it is.
            sparse.write(b"PK\x03\x04")
            sparse.truncate(size)
            sparse.seek(size - len(tail))
            sparse.write(tail)
            sparse.flush()
            return self._inspect(file, sparse.fileno())

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


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
