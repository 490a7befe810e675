"""A started index on real directories and a real catalog, without HTTP, and waiting for what it notices."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pypiserver_ng import pages
from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.attestations import AttestationVerifier
from pypiserver_ng.catalog import Catalog
from pypiserver_ng.errors import NotFound, Unavailable
from pypiserver_ng.index import Index
from pypiserver_ng.index.store import open_store
from pypiserver_ng.model import ANONYMOUS, File, NormalizedName, Upload
from pypiserver_ng.policy import Policy
from pypiserver_ng.upstream.addresses import Upstream
from tests.tools.distributions import Distribution, build_sdist, build_wheel

DEMO = NormalizedName("demo")
KEY = (pages.JSON_TYPE, pages.IDENTITY)
WHEEL = build_wheel("demo", "1.0", requires_python=">=3.8")
SDIST = build_sdist("demo", "1.0")
NEWER = build_wheel("demo", "2.0")
#: The name of WHEEL with other bytes.
IMPOSTOR = build_wheel("demo", "1.0", description="other bytes")


@dataclass(frozen=True, slots=True)
class House:
    """A started index and where it looks."""

    index: Index
    catalog: Catalog
    roots: tuple[Path, ...]
    state: Path

    async def add(self, built: Distribution, **form: Any) -> None:
        """Upload as the web does: scratch, check, discard."""
        scratch = self.index.new_scratch()
        try:
            scratch.write(built.content)
            await self.index.add(Upload(form.pop("filename", built.filename), **form), scratch, ANONYMOUS)
        finally:
            scratch.discard()

    async def files(self, name: NormalizedName = DEMO) -> tuple[File, ...]:
        """What is listed; nothing where the project is unknown or not whole yet."""
        try:
            listed = (await self.index.project(name)).files
        except (NotFound, Unavailable):
            return ()
        return tuple(file for file in listed if isinstance(file, File))

    async def projects(self) -> list[str]:
        """The projects that the root page lists."""
        body = await self.index.root_page(KEY)
        return [project["name"] for project in json.loads(body.content)["projects"]]

    async def names(self) -> list[str]:
        return [file.filename for file in await self.files()]

    async def is_pending(self) -> bool:
        """Whether the project is here, and none of its files is whole."""
        try:
            await self.index.project(DEMO)
        except Unavailable:
            return True
        except NotFound:
            pass
        return False

    def left_over(self) -> list[str]:
        """Everything in the scratch and, except for dot names, in the first directory."""
        return sorted(path.name for path in (self.state / "scratch").iterdir()) + sorted(
            path.name for path in self.roots[0].iterdir() if not path.name.startswith(".")
        )


@asynccontextmanager
async def opened(
    *roots: Path, policy: Policy | None = None, overwrite: bool = False, state: Path | None = None
) -> AsyncIterator[House]:
    """An index over the directories, started and stopped."""
    state = state or roots[0] / ".state"
    store = open_store(roots, state, is_server=True)
    index = Index(
        store,
        policy or Policy(fallback=False),
        [Upstream("https://user:secret@mirror.example/simple")],
        AttestationVerifier([]),
        Inspector(),
        overwrite=overwrite,
        private_pages=False,
    )
    try:
        await index.start()
        yield House(index, store.catalog, roots, state)
    finally:
        await index.stop()
        store.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Everything that happens in one test; it ends in time or fails."""
    asyncio.run(asyncio.wait_for(scenario, 60))


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as the condition holds; fail when it does not for ten seconds."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - nobody signals what a directory's owner does
            await asyncio.sleep(0.02)


async def listed(house: House, *names: str) -> None:
    """Wait until exactly these files of the project are listed."""

    async def condition() -> bool:
        return await house.names() == list(names)

    await eventually(condition)


async def read(house: House, path: str) -> tuple[File, bytes]:
    """A file's facts and the bytes that a client gets."""
    opened = await house.index.open_file(path)
    try:
        assert isinstance(opened.file, File)
        return opened.file, await opened.read(1 << 20, 0, opened.size)
    finally:
        opened.close()


def hash_of(file: File) -> str:
    return file.digests.sha256
