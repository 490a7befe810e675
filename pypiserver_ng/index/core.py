"""Core metadata of local files: kept beside the catalog, or read from their archives again."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.errors import Invalid, NotFound
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.index.following import Flights
from pypiserver_ng.index.pagecache import Recent
from pypiserver_ng.index.store import Store
from pypiserver_ng.metadata import CoreMetadata, parse_metadata
from pypiserver_ng.model import File, Kind

#: Releases whose whole metadata is remembered; a long description makes one a megabyte.
_MOST = 64


class CoreReader:
    """Used on the event loop; `run` takes what blocks to threads for long work."""

    def __init__(self, store: Store, inspector: Inspector, run: Callable[..., Any], flights: Flights) -> None:
        self._metadata = store.metadata
        self._directory = store.directory
        self._inspector = inspector
        self._run = run
        self._flights = flights
        #: One for each sha256, or none where it cannot be read.
        self._parsed: Recent[str, tuple[CoreMetadata | None]] = Recent(_MOST)

    async def parse(self, digest: str, read: Callable[[], Awaitable[bytes | None]]) -> CoreMetadata | None:
        """The fields of the file with this sha256, whose metadata `read` brings; None where it cannot be read."""
        known = self._parsed.get(digest)
        if known is not None:
            return known[0]

        async def parse() -> CoreMetadata | None:
            found: CoreMetadata | None = await self._run(_parse, await read())
            return found

        found = await self._flights.join(("core", digest), parse)
        self._parsed.put(digest, (found,), 1)
        return found

    async def read(self, file: File) -> bytes | None:
        """A local file's own metadata, where it can be read."""
        raw: bytes | None = await self._run(self._read, file)
        return raw

    async def read_exactly(self, file: File) -> bytes:
        """A wheel's core metadata, byte for byte (PEP 658). Raises NotFound."""
        if file.metadata_sha256 is None:
            raise NotFound("this file has no core metadata of its own")
        content: bytes | None = await self._run(self._read_exactly, file)
        if content is None:
            raise NotFound("the core metadata of this file cannot be read")
        return content

    def _read(self, file: File) -> bytes | None:
        raw = self._metadata.get(file.metadata_sha256) if file.metadata_sha256 else None
        return raw or self._extract(file)

    def _read_exactly(self, file: File) -> bytes | None:
        assert file.metadata_sha256 is not None
        content = self._metadata.get(file.metadata_sha256)
        if content is None:
            content = self._extract(file)
            if content is None or self._metadata.put(content) != file.metadata_sha256:
                return None
        return content

    def _extract(self, file: File) -> bytes | None:
        parsed = parse_found(file.filename)
        if parsed is None or file.kind is Kind.SIGNATURE:
            return None
        try:
            fd = self._directory.open(file.root, file.path)
        except OSError:
            return None
        try:
            return self._inspector.inspect_found(fd, parsed).metadata
        except OSError:
            return None
        finally:
            os.close(fd)


def _parse(raw: bytes | None) -> CoreMetadata | None:
    try:
        return parse_metadata(raw) if raw else None
    except Invalid:
        return None
