"""The caching mirror: projects that are not local, as their upstreams and the policy let them be seen.

The same view answers page, file, HEAD, metadata, JSON API and explanation. Policy filters the view, never what is
kept.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pypiserver_ng.errors import Denied, NotFound, UpstreamFailed
from pypiserver_ng.index.explanation import Explanation
from pypiserver_ng.index.following import Flights
from pypiserver_ng.index.mirror.downloads import Download, Downloads, Tail
from pypiserver_ng.index.mirror.pages import Pages
from pypiserver_ng.index.mirror.record import Record, call_bare, see_first
from pypiserver_ng.index.mirror.shelves import (
    NEVER,
    OTHER_BYTES,
    Facts,
    Shelf,
    Source,
    build_shelf,
    explain_shelf,
    tell_file,
    tell_files,
)
from pypiserver_ng.index.mirror.sidecars import Sidecars
from pypiserver_ng.index.opened import Opened, OpenFile
from pypiserver_ng.index.pagecache import MOST_UPSTREAM_FILES, Entry, Key, Recent
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.model import FIRST_SEEN, Body, NormalizedName, OnError, Status, UpstreamFile
from pypiserver_ng.policy import Decision, Policy, describe_status
from pypiserver_ng.storage import Cache
from pypiserver_ng.upstream.addresses import Upstream
from pypiserver_ng.upstream.client import UpstreamClient

#: How old a page may be that is asked about a file whose hash it has.
_ANY_AGE = NEVER
_FOLLOW_SECONDS = 0.5
_TIDY_SECONDS = 10.0


class Mirror:
    """Used on the event loop."""

    def __init__(
        self,
        cache: Cache,
        pages: Pages,
        downloads: Downloads,
        sidecars: Sidecars,
        client: UpstreamClient,
        threads: Threads,
        flights: Flights,
        upstreams: Sequence[Upstream],
        *,
        offline: bool,
    ) -> None:
        self._cache = cache
        self._pages = pages
        self._downloads = downloads
        self._sidecars = sidecars
        self._client = client
        self._threads = threads
        self._flights = flights
        self._upstreams = {upstream.name: upstream for upstream in upstreams}
        self.is_offline = offline
        self._shelves: Recent[NormalizedName, Shelf] = Recent(MOST_UPSTREAM_FILES)

    async def follow(self) -> None:
        """Notice, until cancelled, what other processes and commands do to the cache."""
        await self._threads.run(partial(self._cache.tidy, count_anew=True))
        tidied = time.monotonic()
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            await self._threads.run(self._pages.follow)
            if time.monotonic() - tidied > _TIDY_SECONDS:
                await self._threads.run(self._cache.tidy)
                tidied = time.monotonic()

    async def stop(self) -> None:
        await self._downloads.stop()
        await self._client.close()
        for threads in (self._pages.threads, self._threads):
            await asyncio.get_running_loop().run_in_executor(None, threads.stop)
        self._cache.close()

    # Pages

    def peek(self, name: NormalizedName, key: Key, serial: int | None, policy: Policy) -> Body | None:
        """The page from memory where nothing has to be asked; `serial` is the local project's, if there is one."""
        shelf = self._shelves.get(name)
        if shelf is None or shelf.fresh_until <= time.time() or shelf.generation != self._pages.generation:
            return None
        if shelf.facts.serial != serial or shelf.facts.policy is not policy:
            return None
        return shelf.bodies.get(key)

    async def shelf(
        self, name: NormalizedName, decision: Decision, policy: Policy, local: Entry | None, *, refresh: bool = False
    ) -> Shelf:
        """The project as it is offered now; `local` is what is merged into it. Raises NotFound, UpstreamFailed."""
        source, fresh_until = await self._choose(name, decision, decision.max_age, refresh=refresh)
        if source is None and local is None:
            if self.is_offline:
                raise NotFound(f"{name} is not in the cache, and the server is offline: no upstream is asked")
            raise NotFound(f"no upstream has {name}")
        facts = Facts(
            local.project.serial if local else None,
            policy,
            decision,
            source.upstream.key if source else "",
            source.kept.stamp if source else (0, 0),
        )
        now = time.time()
        shelf = self._shelves.get(name)
        if shelf is None or shelf.facts != facts or shelf.until <= now:
            build = partial(
                build_shelf, name, facts, source, local, datetime.now(UTC), self._is_kept, is_offline=self.is_offline
            )
            shelf = await self._flights.join(("shelf", name, facts), lambda: self._pages.threads.run(build))
            self._shelves.put(name, shelf, 1 + len(shelf.project.files) + len(shelf.withheld))
        shelf.fresh_until = min(fresh_until, shelf.until)
        shelf.generation = source.kept.generation if source else self._pages.generation
        return shelf

    async def _choose(
        self, name: NormalizedName, decision: Decision, max_age: float, *, refresh: bool = False
    ) -> tuple[Source | None, float]:
        """The first upstream that has the project, and how long that is known for.

        Raises UpstreamFailed where one that failed might have had it.
        """
        failure: UpstreamFailed | None = None
        fresh_until = NEVER
        for upstream_name in decision.upstreams:
            upstream = self._upstreams[upstream_name]
            try:
                kept = await self._pages.get(upstream, name, max_age, refresh=refresh)
            except UpstreamFailed as fault:
                if upstream.on_error is OnError.STOP:
                    raise
                failure = failure or fault
                fresh_until = min(fresh_until, time.time() + (fault.retry_after or fault.PAUSE))
                continue
            fresh_until = min(fresh_until, kept.fresh_until(max_age))
            if kept.record.page is not None:
                return Source(upstream, kept), fresh_until
        if failure is not None:
            raise failure
        return None, fresh_until

    def _is_kept(self, record: Record, file: UpstreamFile) -> bool:
        digest = record.digest_of(file)
        return digest is not None and self._cache.has_file(digest, file.filename)

    async def explain(self, shelf: Shelf) -> Explanation:
        """What became of every file of a project."""
        return await self._pages.threads.run(explain_shelf, shelf, datetime.now(UTC))

    async def remembered(self, name: NormalizedName) -> Sequence[UpstreamFile]:
        """What upstreams had of a project when they were last asked about it. Nobody is asked."""
        for upstream in self._upstreams.values():
            kept = await self._pages.peek(upstream, name)
            if kept is not None and kept.record.page is not None:
                return kept.record.page.files
        return ()

    # Files

    async def locate(
        self, path: str, name: NormalizedName, decision: Decision, policy: Policy, local: Entry | None
    ) -> tuple[Source, UpstreamFile]:
        """The file at ``/packages/<path>``, where it may be had. Raises NotFound, Denied, UpstreamFailed."""
        _, digest, filename = path.split("/")
        sha256 = None if digest == FIRST_SEEN else digest
        if not decision.upstreams:
            raise Denied(decision.reason)
        source, file = await self._find(name, decision, filename, sha256)
        if tell_file(file) in tell_files(local):
            raise Denied(f"{filename} is here as a local file, which hides that of the upstream")
        page = source.kept.record.page
        if page is not None and page.status is Status.QUARANTINED:
            raise Denied(
                f"{describe_status(name, page.status, page.status_reason)} upstream: none of its files is offered"
            )
        verdict = policy.judge(file, datetime.now(UTC))
        if not verdict.is_offered:
            raise Denied(verdict.reason)
        return source, file

    async def _find(
        self, name: NormalizedName, decision: Decision, filename: str, sha256: str | None
    ) -> tuple[Source, UpstreamFile]:
        """First in what is kept, then in what its upstream says now."""
        other_bytes = False
        for max_age, refresh in ((_ANY_AGE, False), (decision.max_age, False), (decision.max_age, True)):
            try:
                source, _ = await self._choose(name, decision, max_age, refresh=refresh)
            except UpstreamFailed:
                # Here is what was kept of a project that its upstream had once.
                if found := await self._find_gone(name, decision, filename, sha256):
                    return found
                raise
            if source is not None:
                if file := source.kept.record.find(filename, sha256):
                    return source, file
                other_bytes = source.kept.record.has_other_bytes(filename)
        if found := await self._find_gone(name, decision, filename, sha256):
            return found
        if other_bytes:
            raise Denied(f"{filename} has other bytes here: {OTHER_BYTES}, or it is asked for by a wrong hash")
        raise NotFound("no upstream has such a file")

    async def _find_gone(
        self, name: NormalizedName, decision: Decision, filename: str, sha256: str | None
    ) -> tuple[Source, UpstreamFile] | None:
        """A file of a project that its upstream has no more, as long as its bytes are here."""
        for upstream_name in decision.upstreams:
            upstream = self._upstreams[upstream_name]
            kept = await self._pages.peek(upstream, name)
            if kept is None or kept.record.page is not None:
                continue
            file = kept.record.find(filename, sha256)
            if file is not None and await self._threads.run(self._is_kept, kept.record, file):
                return Source(upstream, kept), file
        return None

    async def open(self, source: Source, file: UpstreamFile) -> Opened:
        """The file, which is fetched when somebody reads from it. Raises NotFound."""
        record = source.kept.record
        modified = int(file.upload_time.timestamp()) if file.upload_time else None
        if digest := record.digest_of(file):
            fd = await self._find_whole(source, file)
            if fd is not None:
                return OpenFile(file, fd, self._threads, sha256=digest, modified=modified)
        if self.is_offline:
            raise NotFound(f"{file.filename} is not in the cache, and the server is offline")
        if file.filename in record.refused:
            raise Denied(f"{file.filename} cannot be had: {OTHER_BYTES}")
        start = partial(self.fetch, source, file)
        size_of = partial(self._client.head, source.upstream, file.url)
        return Tail(file, start, size_of, self._threads, modified)

    def fetch(self, source: Source, file: UpstreamFile) -> Download:
        """Bring the file here, once for all who ask."""
        return self._downloads.join(source.upstream, file, _Pinned(self._pages, source.upstream, file))

    async def drop(self, file: UpstreamFile, since: float) -> None:
        """Remove its bytes if they came to the cache since then, and nobody gets them just now."""
        if file.sha256 is not None:
            await self._threads.run(self._cache.drop, file.sha256, file.filename, since)

    async def _find_whole(self, source: Source, file: UpstreamFile) -> int | None:
        """A descriptor of the file's bytes, if they are here."""
        digest = source.kept.record.digest_of(file)
        if digest is None:
            return None
        return await self._threads.run(self._cache.open_file, digest, file.filename, file.size)

    async def _bring(self, source: Source, file: UpstreamFile) -> int:
        """A descriptor of the file's bytes, all of which are here then. Raises NotFound, UpstreamFailed, NoSpace."""
        if (fd := await self._find_whole(source, file)) is not None:
            return fd
        if self.is_offline:
            raise NotFound(f"{file.filename} is not in the cache, and the server is offline")
        download = self.fetch(source, file)
        try:
            await download.whole()
            # It may be evicted in this moment; a descriptor stays good.
            return os.dup(download.fd)
        finally:
            download.let_go()

    async def metadata(self, source: Source, file: UpstreamFile) -> tuple[str, bytes]:
        """The sha256 and the bytes of a wheel's core metadata. Raises NotFound, UpstreamFailed."""
        find_whole, bring = partial(self._find_whole, source, file), partial(self._bring, source, file)
        content = await self._flights.join(
            ("metadata", source.upstream.key, file.filename, file.sha256),
            lambda: self._sidecars.find(source.upstream, file, find_whole, bring, offline=self.is_offline),
        )
        if content is None:
            await self._pages.learn(source.upstream, file.project, partial(call_bare, filename=file.filename))
            raise NotFound(f"{file.filename} has no core metadata that could be read")
        return hashlib.sha256(content).hexdigest(), content


@dataclass(frozen=True, slots=True)
class _Pinned:
    """What an upstream file's bytes must be: what its page says, or what was first seen under its name."""

    pages: Pages
    upstream: Upstream
    file: UpstreamFile

    async def known(self) -> str | None:
        if self.file.sha256 is not None:
            return self.file.sha256
        kept = await self.pages.peek(self.upstream, self.file.project)
        return kept.record.digest_of(self.file) if kept else None

    async def settle(self, sha256: str) -> str:
        if self.file.sha256 is not None:
            return self.file.sha256
        see = partial(see_first, filename=self.file.filename, sha256=sha256)
        record = await self.pages.learn(self.upstream, self.file.project, see)
        return (record.digest_of(self.file) if record else None) or sha256
