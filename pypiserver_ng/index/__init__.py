"""The index itself: the only room that knows catalog, storage, upstream and policy together.

One method per question a client can ask, and the only bridge between async and threads. The same decision
answers every surface, and answers follow the catalog's serial: what was acknowledged is in the next one.
"""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from pypiserver_ng import pages
from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.attestations import AttestationVerifier
from pypiserver_ng.errors import Denied, Failure, Invalid, NotFound, Unavailable
from pypiserver_ng.filenames import is_same_version, newest_version, parse_found
from pypiserver_ng.index.backlog import Backlog
from pypiserver_ng.index.curation import Curator
from pypiserver_ng.index.following import Flights, Following
from pypiserver_ng.index.intake import Intake
from pypiserver_ng.index.pagecache import Entry, Key, PageCache
from pypiserver_ng.index.reading import Reader
from pypiserver_ng.index.store import Store
from pypiserver_ng.index.watcher import Watcher
from pypiserver_ng.metadata import CoreMetadata, parse_metadata
from pypiserver_ng.model import Body, Elsewhere, File, Found, Identity, Kind, NormalizedName, Project, Status, Upload
from pypiserver_ng.policy import Decision, Origin, Policy, describe_status
from pypiserver_ng.storage import Scratch, mtime_of, translate_os_error
from pypiserver_ng.upstream import Upstream

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Releases whose whole metadata is remembered; a long description makes one a megabyte.
_MOST_CORE = 64


class Index:
    """One running server's index. `start` before the first question, `stop` after the last."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        upstreams: Sequence[Upstream],
        attestations: AttestationVerifier,
        inspector: Inspector,
        *,
        overwrite: bool,
        private_pages: bool,
    ) -> None:
        catalog, directory = store.catalog, store.directory
        self._catalog = catalog
        self._directory = directory
        self._metadata = store.metadata
        self._tree = store.tree
        self.policy = policy
        self.upstreams = upstreams
        self._private = private_pages
        self._inspector = inspector
        reader = Reader(directory, store.metadata, inspector, started=time.time())
        self._backlog = Backlog(store, reader)
        self._curator = Curator(store, reader)
        self._intake = Intake(store, attestations, inspector, overwrite=overwrite)
        self._watcher = Watcher(directory.roots, self._compare)
        self._threads = ThreadPoolExecutor(32, thread_name_prefix="index")
        # Changes wait for locks, archives and disks; questions must not wait behind them.
        self._changing = ThreadPoolExecutor(16, thread_name_prefix="changing")
        self._flights = Flights()
        self._following = Following(catalog, self._threads, self._flights)
        self._cache = PageCache()
        self._root_bodies: dict[Key, tuple[int, Body]] = {}
        self._core: OrderedDict[str, CoreMetadata | None] = OrderedDict()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Learn what lies in the directories; their files are read afterwards, or when they are asked for."""
        try:
            await self.change(self._tree.scan)
        except Failure as fault:
            # What is known can be answered; the watcher tries again.
            _log.error("what changed in the package directories cannot be recorded: %s", fault.message)
        await self._following.catch_up()
        self._tasks = [asyncio.create_task(self._watcher.run()), asyncio.create_task(self._backlog.read_all())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.run(self._inspector.close)
        await self.run(self._backlog.stop)
        self._changing.shutdown()
        self._threads.shutdown()

    # Pages

    def peek_project_page(self, name: NormalizedName, key: Key) -> Body | None:
        """The page from memory if it is there and nothing changed; no thread, no row."""
        if not self._following.is_current():
            return None
        serial = self._following.serials.get(name)
        entry = self._cache.get(name, serial) if serial is not None else None
        return entry.bodies.get(key) if entry else None

    async def project_page(self, name: NormalizedName, key: Key, provenance_base: str = "") -> Body | Elsewhere:
        """The project's page, or where else to ask. Raises NotFound, Unavailable.

        `provenance_base` is the absolute URL of the root, where clients may trust what they fetch from it.
        """
        decision = await self.decide(name)
        if decision.origin is Origin.UPSTREAM:
            return Elsewhere(self.upstreams[0].project_url(name))
        entry = await self._entry(name, decision)
        if entry.has_provenance:
            key = (*key, provenance_base)
        body = entry.bodies.get(key)
        if body is None:
            render = partial(pages.render_project, entry.project, provenance_base=provenance_base)
            body = await self._flights.join(
                ("page", name, key, entry.project.serial), lambda: self.run(self._make_body, key, render)
            )
        entry.keep(key, body)
        return body

    async def root_page(self, key: Key) -> Body:
        await self._following.catch_up()
        serial = self._following.names_serial
        kept = self._root_bodies.get(key)
        if kept and kept[0] == serial:
            return kept[1]
        names = self._following.names()
        body = await self._flights.join(
            ("root", key, serial),
            lambda: self.run(self._make_body, key, lambda media: pages.render_root(sorted(names), media)),
        )
        self._root_bodies[key] = (serial, body)
        return body

    def _make_body(self, key: Key, render: Callable[[str], bytes]) -> Body:
        media_type, coding = key[:2]
        return pages.make_body(render(media_type), media_type, coding, private=self._private)

    # Facts

    async def decide(self, name: NormalizedName) -> Decision:
        """Who answers for the project, by the rules and by what is here at this moment."""
        await self._following.catch_up()
        is_quarantined = name in self._following.quarantined
        is_local = name in self._following.serials or name in self._tree.unrecorded
        return self.policy.decide(name, is_local=is_local, is_quarantined=is_quarantined)

    async def project(self, name: NormalizedName) -> Project:
        """Raises NotFound when the project is not local, Unavailable while none of its files is whole."""
        entry = await self._entry(name, await self.decide(name))
        return entry.project

    async def counts(self) -> tuple[int, int]:
        """Projects and files that are here."""
        await self._following.catch_up()
        return self.known_counts()

    async def check(self) -> None:
        """Whether questions can be answered. Raises Unavailable."""
        await self.run(self._catalog.serial)

    def known_counts(self) -> tuple[int, int]:
        """As `counts`, as of the last question."""
        return len(self._following.names()), sum(self._following.counts.values())

    async def search(self, terms: Sequence[str]) -> list[Found]:
        """Local projects whose name or summary holds one of the terms, each in its newest version, by name."""
        return await self.run(self._search, [term.lower() for term in terms])

    def _search(self, terms: Sequence[str]) -> list[Found]:
        rows: dict[NormalizedName, dict[str, Found]] = {}
        for row in self._catalog.search(terms):
            rows.setdefault(row.name, {})[row.version] = row
        return [_choose_newest(versions) for _, versions in sorted(rows.items())]

    async def recent(self, limit: int) -> list[Found]:
        """The projects with the newest files, each once, the newest first."""
        rows = await self.run(self._catalog.recent, limit * 4)
        newest: dict[NormalizedName, Found] = {}
        for row in rows:
            if not row.yanked:
                newest.setdefault(row.name, row)
        return list(newest.values())[:limit]

    async def core_metadata(self, file: File) -> CoreMetadata | None:
        """A file's own metadata, where it can be read."""
        digest = file.digests.sha256
        if digest not in self._core:
            found = await self._flights.join(("core", digest), lambda: self._backlog.run(self._core_metadata, file))
            self._core[digest] = found
            if len(self._core) > _MOST_CORE:
                self._core.popitem(last=False)
        return self._core[digest]

    def _core_metadata(self, file: File) -> CoreMetadata | None:
        raw = self._metadata.get(file.metadata_sha256) if file.metadata_sha256 else None
        raw = raw or self._extract(file)
        try:
            return parse_metadata(raw) if raw else None
        except Invalid:
            return None

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

    # Files

    async def file(self, path: str) -> File:
        """The file at ``/packages/<path>``. Raises NotFound, Denied, Unavailable."""
        parsed = parse_found(path.rpartition("/")[2])
        if parsed is not None:
            await self._following.catch_up()
            if parsed.name in self._following.serials:
                entry = await self._load(parsed.name)
                project = entry.project
                if project.status is Status.QUARANTINED:
                    status = describe_status(project.name, project.status, project.status_reason)
                    raise Denied(f"{status}: none of its files is offered")
                if file := entry.by_path.get(path):
                    return file
                if path in entry.unread:
                    raise Unavailable("the file is still being copied or read", retry_after=1)
        raise NotFound("there is no such file here")

    async def open_file(self, path: str) -> tuple[File, int]:
        """The file's facts and a descriptor of exactly these bytes, which the caller closes. Raises NotFound."""
        file = await self.file(path)
        fd = await self.run(self._open_exactly, file)
        if fd is None:
            # It changed since it was last looked at: learn what it is now.
            await self._compare([(file.root, file.path)])
            file = await self.file(path)
            fd = await self.run(self._open_exactly, file)
        if fd is None:
            raise Unavailable("the file is being replaced, or its disk is away", retry_after=5)
        return file, fd

    def _open_exactly(self, file: File) -> int | None:
        try:
            fd = self._directory.open(file.root, file.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as fault:
            raise translate_os_error(fault, "the file cannot be read") from fault
        status = os.fstat(fd)
        if (status.st_size, mtime_of(status)) == (file.size, file.mtime_ns):
            return fd
        os.close(fd)
        return None

    async def read(self, fd: int, count: int, offset: int) -> bytes:
        """Up to `count` bytes of an open file."""
        return await self.run(os.pread, fd, count, offset)

    async def metadata_file(self, path: str) -> tuple[File, bytes]:
        """The wheel at ``path`` and its core metadata, byte for byte (PEP 658). Raises NotFound."""
        file = await self.file(path)
        if file.metadata_sha256 is None:
            raise NotFound("this file has no core metadata of its own")
        content = await self.run(self._metadata.get, file.metadata_sha256)
        if content is None:
            content = await self._backlog.run(self._extract, file)
            if content is None or await self.run(self._metadata.put, content) != file.metadata_sha256:
                raise NotFound("the core metadata of this file cannot be read")
        return file, content

    async def provenance(self, name: NormalizedName, version: str, filename: str) -> bytes:
        """The provenance object of a listed file's attestations (PEP 740). Raises NotFound, Unavailable."""
        project = await self.project(name)
        for file in project.files:
            if file.filename == filename and file.has_provenance and is_same_version(file.version, version):
                content = await self.run(self._catalog.provenance, filename, file.digests.sha256)
                if content is not None:
                    return content
        raise NotFound(f"there is no provenance of {filename[:100]!a} here")

    # Changes

    def new_scratch(self) -> Scratch:
        """Blocking. Raises NoSpace, Unavailable."""
        try:
            return self._directory.new_scratch()
        except OSError as fault:
            raise translate_os_error(fault) from fault

    async def add(self, upload: Upload, scratch: Scratch, identity: Identity) -> None:
        """Check and publish an upload; when this returns, every answer has it. See `Intake.add`."""
        await self.change(self._intake.add, upload, scratch, identity)

    async def remove(self, name: NormalizedName, version: str, identity: Identity) -> int:
        """Delete the files of one release and bury their names; returns how many. Raises NotFound, Denied."""
        await self._following.catch_up()
        if name not in self._following.serials:
            raise NotFound(f"{name} ({version}) is not here")
        files = await self.change(self._curator.delete, name, version, identity.user)
        _log.info("%s removed %s", identity.user or "anyone", ", ".join(file.path for file in files))
        return len(files)

    # Reading what lies in the directories

    async def _entry(self, name: NormalizedName, decision: Decision) -> Entry:
        if decision.origin is not Origin.LOCAL:
            raise NotFound(decision.reason)
        entry = await self._load(name) if name in self._following.serials else None
        if entry is None or not (entry.project.files or entry.project.status is Status.QUARANTINED):
            raise Unavailable(f"the files of {name} are still being copied or read", retry_after=1)
        return entry

    async def _load(self, name: NormalizedName) -> Entry:
        serial = self._following.serials[name]
        entry = self._cache.get(name, serial)
        if entry is None:
            entry = await self._flights.join(("load", name), lambda: self._load_or_read(name))
            if entry.project.serial < serial:
                # That flight started before the change that brought us here; the next one cannot have.
                entry = await self._flights.join(("load", name), lambda: self._load_or_read(name))
            self._cache.put(name, entry)
        return entry

    async def _load_or_read(self, name: NormalizedName) -> Entry:
        entry, has_unread = await self.run(self._backlog.load, name)
        return await self._backlog.read(name) if has_unread else entry

    async def _compare(self, paths: Sequence[tuple[str, str]] | None) -> None:
        compare = self._tree.scan if paths is None else partial(self._tree.look, paths)
        # A command or another process may have found what nobody reads yet.
        if await self.change(compare) or paths is None:
            self._backlog.wake()

    async def change(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Blocking work on a change, in threads of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._changing, partial(function, *arguments))

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Blocking work in a thread of the index."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments))


def _choose_newest(versions: Mapping[str, Found]) -> Found:
    """The newest version that is not yanked, if there is one."""
    offered = [version for version, found in versions.items() if not found.yanked]
    return versions[newest_version(offered or versions)]
