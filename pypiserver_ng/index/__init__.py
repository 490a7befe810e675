"""The index itself: the only room that knows catalog, storage, upstream and policy together.

One method per question a client can ask, and the only bridge between async and threads. The same decision
answers every surface, and answers follow the catalog's serial: what was acknowledged is in the next one.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pypiserver_ng import pages
from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.attestations import AttestationVerifier
from pypiserver_ng.errors import Denied, NotFound, Unavailable, UpstreamFailed
from pypiserver_ng.filenames import is_same_version, parse_found
from pypiserver_ng.index.backlog import Backlog
from pypiserver_ng.index.core import CoreReader
from pypiserver_ng.index.curation import Curator
from pypiserver_ng.index.explanation import Explanation, explain_offered, explain_shadowed, sort_files
from pypiserver_ng.index.following import Flights, Following
from pypiserver_ng.index.holdings import Holdings
from pypiserver_ng.index.intake import Intake, Permit, permit_all
from pypiserver_ng.index.opened import Opened, OpenFile, open_exactly
from pypiserver_ng.index.pagecache import Bodies, Key
from pypiserver_ng.index.reading import Reader
from pypiserver_ng.index.search import list_recent, narrow, search_projects
from pypiserver_ng.index.store import Store
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.metadata import CoreMetadata
from pypiserver_ng.model import (
    Body,
    Elsewhere,
    File,
    Found,
    Identity,
    Listed,
    Mode,
    NormalizedName,
    Project,
    Sight,
    Status,
    Upload,
    UpstreamFile,
    is_mirror_path,
)
from pypiserver_ng.policy import Advisories, Decision, Origin, Policy, describe_status
from pypiserver_ng.storage import Scratch
from pypiserver_ng.upstream.addresses import Upstream

if TYPE_CHECKING:
    # Fetching needs libraries that an index which fetches nothing does without.
    from pypiserver_ng.index.mirror import Mirror
    from pypiserver_ng.index.mirror.shelves import Source

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Lists of projects that are kept: types, codings, and callers who see different projects.
_MOST_ROOTS = 16

_REDIRECTED = "clients are redirected to it: what it has is not looked at here (that takes --fallback-mode cache)"


class Index:
    """One running server's index. `start` before the first question, `stop` after the last."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        upstreams: Sequence[Upstream],
        attestations: AttestationVerifier,
        inspector: Inspector,
        mirror: "Mirror | None" = None,
        *,
        overwrite: bool,
        private_pages: bool,
    ) -> None:
        catalog, directory = store.catalog, store.directory
        self._catalog = catalog
        self._directory = directory
        self._tree = store.tree
        self.policy = policy
        self.upstreams = upstreams
        #: None where nothing is fetched from upstreams.
        self._mirror = mirror
        self._private = private_pages
        self._inspector = inspector
        reader = Reader(directory, store.metadata, inspector, started=time.time())
        self._backlog = Backlog(store, reader)
        self._curator = Curator(store, reader)
        self._intake = Intake(store, attestations, inspector, overwrite=overwrite)
        self._threads = Threads(32, "index")
        # Changes wait for locks, archives and disks; questions must not wait behind them.
        self._changing = Threads(16, "changing")
        self._flights = Flights()
        self._following = Following(catalog, self._threads.executor, self._flights)
        self._holdings = Holdings(store, self._backlog, self._following, self._flights, self._threads, self._changing)
        #: With what tells whether the list of names is still the same.
        self._root_bodies: dict[tuple[object, ...], tuple[tuple[int, object], Body]] = {}
        self._core = CoreReader(store, inspector, self._backlog.run, self._flights)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Learn what lies in the directories; see `Holdings.start`."""
        if self._mirror is not None:
            self._tasks = [asyncio.create_task(self._mirror.follow())]
        await self._holdings.start()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._holdings.stop()
        await self.run(self._inspector.close)
        if self._mirror is not None:
            await self._mirror.stop()
        await self.run(self._backlog.stop)
        self._changing.stop()
        self._threads.stop()

    def heed(self, advisories: Advisories) -> None:
        """What these name is withheld from now on, and nothing else."""
        self.policy = self.policy.with_advisories(advisories)

    # Pages

    def peek_project_page(self, name: NormalizedName, key: Key) -> Body | None:
        """The page from memory if it is there and nothing changed; no thread, no row."""
        if not self._following.is_current():
            return None
        entry = self._holdings.find(name)
        body = entry.bodies.get(key) if entry else None
        if body is None and self._mirror is not None and name not in self._tree.unrecorded:
            return self._mirror.peek(name, key, self._following.serials.get(name), self.policy)
        return body

    def remember_project_page(self, name: NormalizedName, key: Key, body: Body) -> Callable[[], bool]:
        """For a page that was just peeked at: tells later, as cheaply as can be, whether it is still the page."""
        entry = self._holdings.find(name)
        if entry is None or entry.bodies.get(key) is not body:
            return lambda: self.peek_project_page(name, key) is body
        # A local page changes with the catalog alone.
        return partial(self._catalog.shared.is_still, self._following.seen)

    @property
    def has_mirror(self) -> bool:
        """Whether pages of upstream projects are answered from here."""
        return self._mirror is not None

    @property
    def mirror(self) -> "Mirror":
        """Where there is one."""
        assert self._mirror is not None
        return self._mirror

    async def project_page(
        self,
        name: NormalizedName,
        key: Key,
        provenance_base: str = "",
        *,
        refresh: bool = False,
        sight: Sight | None = None,
    ) -> Body | Elsewhere:
        """The project's page, or where else to ask. Raises NotFound, Unavailable, UpstreamFailed.

        `provenance_base` is the absolute URL of the root, where clients may trust what they fetch from it. With
        `refresh` the upstream is asked what it says now.
        """
        decision = await self.decide(name)
        if decision.origin is Origin.UPSTREAM and decision.mode is Mode.REDIRECT:
            return Elsewhere(self._find_upstream(decision).project_url(name))
        project, bodies = await self._offer(name, decision, refresh=refresh)
        if (seen := narrow(project, sight)) is not project:
            project, bodies = seen, Bodies()
        if any(isinstance(file, File) and file.has_provenance for file in project.files):
            key = (*key, provenance_base)
        body = bodies.get(key)
        if body is None:
            render = partial(pages.render_project, project, provenance_base=provenance_base)
            body = await self._flights.join(("page", key, id(project)), lambda: self.run(self._make_body, key, render))
        bodies.keep(key, body)
        return body

    def _find_upstream(self, decision: Decision) -> Upstream:
        return next(upstream for upstream in self.upstreams if upstream.name == decision.upstreams[0])

    async def _offer(
        self, name: NormalizedName, decision: Decision, *, refresh: bool = False
    ) -> tuple[Project, Bodies]:
        """What is offered of a project, and the pages made of it. Raises NotFound, Unavailable, UpstreamFailed."""
        if decision.origin is Origin.LOCAL:
            entry = await self._holdings.entry(name)
            return entry.project, entry.bodies
        if decision.is_denied:
            # An answer without files: after a 404 some clients go on to their next index.
            return Project(name, name, 0, ()), Bodies()
        if decision.origin is Origin.NOBODY or decision.mode is Mode.REDIRECT or self._mirror is None:
            raise NotFound(decision.reason)
        local = await self._holdings.entry(name) if decision.origin is Origin.MERGED else None
        shelf = await self._mirror.shelf(name, decision, self.policy, local, refresh=refresh)
        return shelf.project, shelf.bodies

    async def root_page(self, key: Key, sight: Sight | None = None) -> Body:
        """The list of projects."""
        view = sight and sight.view
        unrecorded = await self._holdings.catch_up()
        version = self._following.names_version, unrecorded
        kept = self._root_bodies.get((*key, view))
        if kept and kept[0][0] == version[0] and kept[0][1] is unrecorded:
            return kept[1]
        names, hidden = list(self._following.names), frozenset(self._following.quarantined)

        def render(media_type: str) -> bytes:
            more = unrecorded.keys() - hidden
            listed = sorted({*names, *more}) if more else names
            return pages.render_root([name for name in listed if sight.shows(name)] if sight else listed, media_type)

        flight = ("root", key, view, version[0], id(unrecorded))
        body = await self._flights.join(flight, lambda: self.run(self._make_body, key, render))
        if (*key, view) not in self._root_bodies and len(self._root_bodies) >= _MOST_ROOTS:
            self._root_bodies.pop(next(iter(self._root_bodies)))
        self._root_bodies[*key, view] = (version, body)
        return body

    def _make_body(self, key: Key, render: Callable[[str], bytes]) -> Body:
        media_type, coding = key[:2]
        return pages.make_body(render(media_type), media_type, coding, private=self._private)

    # Facts

    async def decide(self, name: NormalizedName) -> Decision:
        """Who answers for the project, by the rules and by what is here at this moment."""
        unrecorded = await self._holdings.catch_up(name)
        is_quarantined = name in self._following.quarantined
        is_local = name in self._following.serials or name in unrecorded
        return self.policy.decide(name, is_local=is_local, is_quarantined=is_quarantined)

    async def project(self, name: NormalizedName, sight: Sight | None = None) -> Project:
        """What is offered of a project here. Raises NotFound, Unavailable while no file is whole, UpstreamFailed."""
        project, _ = await self._offer(name, await self.decide(name))
        return narrow(project, sight)

    async def explain(self, name: NormalizedName) -> Explanation:
        """Which rule decides about the project, what is hidden of it, and until when. Raises Unavailable."""
        decision = await self.decide(name)
        if decision.origin is Origin.LOCAL or not decision.upstreams:
            here = (await self._holdings.entry(name)).project.files if decision.origin is Origin.LOCAL else ()
            files = explain_offered(here, decision)
            if self._mirror is not None:
                files += explain_shadowed(await self._mirror.remembered(name), decision)
            return Explanation(name, decision, None, sort_files(files))
        if decision.mode is Mode.REDIRECT:
            return Explanation(name, decision, decision.upstreams[0], (), _REDIRECTED)
        assert self._mirror is not None
        local = await self._holdings.entry(name) if decision.origin is Origin.MERGED else None
        try:
            shelf = await self._mirror.shelf(name, decision, self.policy, local)
        except (NotFound, UpstreamFailed) as fault:
            return Explanation(name, decision, None, (), fault.message)
        return await self._mirror.explain(shelf)

    async def counts(self) -> tuple[int, int]:
        """Projects and files that are here."""
        await self._holdings.catch_up()
        return self.known_counts()

    async def check(self) -> None:
        """Whether questions can be answered. Raises Unavailable."""
        await self.run(self._catalog.serial)

    @property
    def serial(self) -> int:
        """The number of the last change, from memory."""
        return self._catalog.shared.value

    def known_counts(self) -> tuple[int, int]:
        """As `counts`, as of the last question."""
        return self._holdings.counts()

    async def search(
        self, terms: Sequence[str], limit: int | None = None, sight: Sight | None = None
    ) -> tuple[list[Found], int]:
        """Local projects whose name or summary holds one of the terms, and how many. See `search_projects`."""
        return await self.run(search_projects, self._catalog, terms, limit, sight)

    async def recent(self, limit: int, sight: Sight | None = None) -> list[Found]:
        """The projects with the newest files, each once, the newest first."""
        return await self.run(list_recent, self._catalog, limit, sight)

    async def core_metadata(self, file: Listed) -> CoreMetadata | None:
        """A file's own metadata, where it can be read; of an upstream's file, where that offers it."""
        if isinstance(file, File):
            return await self._core.parse(file.digests.sha256, partial(self._core.read, file))
        if file.metadata_sha256 is None:
            return None

        async def read() -> bytes | None:
            return (await self.metadata_file(file.path))[1]

        try:
            return await self._core.parse(file.path, read)
        except (NotFound, Denied, Unavailable, UpstreamFailed):
            # Not remembered: it may be had in a moment.
            return None

    # Files

    async def file(self, path: str) -> File:
        """The local file at ``/packages/<path>``. Raises NotFound, Denied, Unavailable."""
        parsed = parse_found(path.rpartition("/")[2])
        if parsed is not None and await self._holdings.record(parsed.name):
            entry = await self._holdings.load(parsed.name)
            project = entry.project
            if project.status is Status.QUARANTINED:
                status = describe_status(project.name, project.status, project.status_reason)
                raise Denied(f"{status}: none of its files is offered")
            if file := entry.by_path.get(path):
                return file
            if path in entry.unread:
                raise Unavailable("the file is still being copied or read", retry_after=1)
        raise NotFound("there is no such file here")

    async def open_file(self, path: str) -> Opened:
        """The bytes behind ``/packages/<path>``, which the caller closes.

        Raises NotFound, Denied, Unavailable, UpstreamFailed.
        """
        if self._mirror is not None and is_mirror_path(path):
            return await self._mirror.open(*await self._locate(path))
        file = await self.file(path)
        fd = await self.run(open_exactly, self._directory, file)
        if fd is None:
            # It changed since it was last looked at: learn what it is now.
            await self._holdings.compare([(file.root, file.path)])
            file = await self.file(path)
            fd = await self.run(open_exactly, self._directory, file)
        if fd is None:
            raise Unavailable("the file is being replaced, or its disk is away", retry_after=5)
        return OpenFile(file, fd, self._threads, sha256=file.digests.sha256, modified=file.mtime_ns // 10**9)

    async def _locate(self, path: str) -> "tuple[Source, UpstreamFile]":
        """Raises NotFound, Denied, UpstreamFailed."""
        parsed = parse_found(path.rpartition("/")[2])
        if parsed is None:
            raise NotFound("there is no such file here")
        decision = await self.decide(parsed.name)
        assert self._mirror is not None
        if decision.origin is Origin.UPSTREAM and decision.mode is Mode.REDIRECT:
            raise NotFound(f"files of {parsed.name} are not fetched here: clients are redirected to its upstream")
        local = await self._holdings.entry(parsed.name) if decision.origin is Origin.MERGED else None
        return await self._mirror.locate(path, parsed.name, decision, self.policy, local)

    async def metadata_file(self, path: str) -> tuple[str, bytes]:
        """The sha256 and the bytes of the core metadata of the wheel at ``path`` (PEP 658).

        Raises NotFound, Denied, Unavailable, UpstreamFailed.
        """
        if self._mirror is not None and is_mirror_path(path):
            return await self._mirror.metadata(*await self._locate(path))
        file = await self.file(path)
        content = await self._core.read_exactly(file)
        return file.metadata_sha256 or "", content

    async def provenance(self, name: NormalizedName, version: str, filename: str, sight: Sight | None = None) -> bytes:
        """The provenance object of a listed file's attestations (PEP 740). Raises NotFound, Unavailable."""
        project = await self.project(name, sight)
        for file in project.files:
            if not isinstance(file, File):
                continue
            if file.filename == filename and file.has_provenance and is_same_version(file.version, version):
                content = await self.run(self._catalog.provenance, filename, file.digests.sha256)
                if content is not None:
                    return content
        raise NotFound(f"there is no provenance of {filename[:100]!a} here")

    # Changes

    def new_scratch(self) -> Scratch:
        """For the bytes of an upload; nothing is on the disk before somebody writes."""
        return self._directory.new_scratch()

    async def add(self, upload: Upload, scratch: Scratch, identity: Identity, permit: Permit = permit_all) -> None:
        """Check and publish an upload; when this returns, every answer has it. See `Intake.add`."""
        await self.change(self._intake.add, upload, scratch, identity, permit)

    async def remove(self, name: NormalizedName, version: str, identity: Identity) -> int:
        """Delete the files of one release and bury their names; returns how many. Raises NotFound, Denied."""
        if not await self._holdings.record(name):
            raise NotFound(f"{name} ({version}) is not here")
        files = await self.change(self._curator.delete, name, version, identity.user, identity.address)
        _log.info("%s removed %s", identity.user or "anyone", ", ".join(file.path for file in files))
        return len(files)

    # Threads

    async def change(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Blocking work on a change, in threads of its own."""
        return await self._changing.run(function, *arguments)

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Blocking work in a thread of the index."""
        return await self._threads.run(function, *arguments)
