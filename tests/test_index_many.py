"""Where there is much: what is answered before all of it was looked at, and that nothing of it goes upstream."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pypiserver_ng.catalog import Catalog
from pypiserver_ng.errors import NoSpace, Unavailable
from pypiserver_ng.index import backlog, following, holdings, tree
from pypiserver_ng.index.pagecache import Entry, PageCache
from pypiserver_ng.index.tree import Tree
from pypiserver_ng.model import NormalizedName, Project
from pypiserver_ng.policy import Origin, Policy
from pypiserver_ng.storage import Directory, MetadataStore, SharedLock
from tests.tools.distributions import build_wheel
from tests.tools.house import DEMO, NEWER, SDIST, WHEEL, House, eventually, listed, opened, run

OTHERS = tuple(build_wheel(f"other{number}", "1.0") for number in range(7))
ELSEWHERE = Policy(upstreams=["mirror.example"])


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done for ten thousand files is done for three."""
    monkeypatch.setattr(holdings, "_MANY_FILES", 3)
    monkeypatch.setattr(tree, "_MOST_AT_ONCE", 2)
    monkeypatch.setattr(following, "_FEW", 2)
    monkeypatch.setattr(following, "_MOST_AT_ONCE", 2)


def hold(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> Iterator[threading.Event]:
    """Nobody gets behind the beginning of this method before the event."""
    may_go = threading.Event()
    method = getattr(owner, name)

    def wait(*arguments: object) -> object:
        assert may_go.wait(60)
        return method(*arguments)

    monkeypatch.setattr(owner, name, wait)
    yield may_go
    may_go.set()


@pytest.fixture
def scanning(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    yield from hold(monkeypatch, Tree, "scan")


@pytest.fixture
def naming(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    yield from hold(monkeypatch, Tree, "list_names")


async def origin(house: House, name: str) -> Origin:
    return (await house.index.decide(NormalizedName(name))).origin


@pytest.mark.usefixtures("few_are_many")
def test_names_alone_decide_at_a_first_start(packages: Path, scanning: threading.Event) -> None:
    """Local is local before its file was looked at, and who asks for it need not wait for the others."""

    async def scenario() -> None:
        for built in (WHEEL, SDIST, *OTHERS):
            built.write(packages / "deep")
        async with opened(packages, policy=ELSEWHERE) as house:
            assert house.index.known_counts() == (8, 9)
            assert await house.projects() == ["demo", *(f"other{number}" for number in range(7))]
            assert [await origin(house, name) for name in ("demo", "other6", "nobody")] == [
                Origin.LOCAL,
                Origin.LOCAL,
                Origin.UPSTREAM,
            ]
            assert await house.names() == [WHEEL.filename, SDIST.filename]
            assert house.index.known_counts() == (8, 9)
            file = await house.index.file(f"deep/{OTHERS[3].filename}")
            assert file.sha256 == OTHERS[3].sha256
            scanning.set()
            await eventually(lambda: asyncio.sleep(0, not house.index._tree.unrecorded))
            await eventually(lambda: asyncio.sleep(0, house.index.known_counts() == (8, 9)))
            assert house.catalog.extent()[1] == 9
            assert await house.projects() == ["demo", *(f"other{number}" for number in range(7))]

    run(scenario())


@pytest.mark.usefixtures("few_are_many")
def test_known_projects_are_answered_before_names_are_read(
    packages: Path, naming: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who asks for what the catalog does not know waits until it is clear that nobody copied it in."""

    async def scenario() -> None:
        for built in (WHEEL, SDIST, *OTHERS[1:]):
            built.write(packages)
        naming.set()
        async with opened(packages, policy=ELSEWHERE) as house:
            await listed(house, WHEEL.filename, SDIST.filename)
            await eventually(lambda: asyncio.sleep(0, not house.index._tree.unrecorded))
        OTHERS[0].write(packages)
        NEWER.write(packages)
        naming.clear()
        async with opened(packages, policy=ELSEWHERE) as house:
            assert await house.names() == [WHEEL.filename, SDIST.filename]
            asking = [asyncio.create_task(origin(house, name)) for name in ("other0", "nobody")]
            listing = asyncio.create_task(house.projects())
            assert await origin(house, "other1") is Origin.LOCAL
            assert not any(task.done() for task in (*asking, listing))
            naming.set()
            assert await asyncio.gather(*asking) == [Origin.LOCAL, Origin.UPSTREAM]
            assert await listing == ["demo", *(f"other{number}" for number in range(7))]
            await listed(house, WHEEL.filename, SDIST.filename, NEWER.filename)

    run(scenario())


@pytest.mark.usefixtures("few_are_many")
def test_many_come_and_go_while_the_server_runs(packages: Path) -> None:
    """The list of projects is in order after each of them."""

    async def projects(house: House, *names: str) -> None:
        async def condition() -> bool:
            return await house.projects() == list(names)

        await eventually(condition)

    async def scenario() -> None:
        async with opened(packages) as house:
            for built in (*OTHERS[4:], *OTHERS[:3]):
                built.write(packages)
            await projects(house, "other0", "other1", "other2", "other4", "other5", "other6")
            OTHERS[3].write(packages)
            await projects(house, *(f"other{number}" for number in range(7)))
            for built in OTHERS[1:6]:
                (packages / built.filename).unlink()
            await projects(house, "other0", "other6")
            assert house.index.known_counts() == (2, 2)
            (packages / OTHERS[0].filename).unlink()
            await projects(house, "other6")

    run(scenario())


@pytest.mark.usefixtures("few_are_many")
def test_what_cannot_be_recorded_is_local(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, not only what was to be recorded when the disk was full."""
    for built in (WHEEL, *OTHERS):
        built.write(packages)
    (tmp_path / "state").mkdir()
    catalog, directory = Catalog(tmp_path / "state"), Directory([packages], tmp_path / "state")
    lock = SharedLock(tmp_path / "state" / "tree.lock")
    trees = Tree(catalog, directory, lock, is_server=True)
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "sync", lambda *_: (_ for _ in ()).throw(NoSpace("the disk is full")))
        with pytest.raises(NoSpace):
            trees.scan()
    assert set(trees.unrecorded) == {"demo", *(f"other{number}" for number in range(7))}
    trees.record(DEMO)
    assert set(trees.unrecorded) == {f"other{number}" for number in range(7)}
    assert trees.scan()
    assert (trees.unrecorded, trees.scan()) == ({}, False)
    lock.close()
    catalog.close()


def test_who_waits_too_long_is_told_when_to_come_again(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading goes on meanwhile, several files at a time."""
    monkeypatch.setattr(holdings, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(backlog, "_FEW", 1)
    monkeypatch.setattr(backlog, "_BATCH", 2)

    async def scenario() -> None:
        versions = [build_wheel("demo", f"{number}.0") for number in range(1, 6)]
        for built in versions:
            built.write(packages)
        async with opened(packages) as house:
            with pytest.raises(Unavailable, match="are still being read") as refused:
                await house.index.project(DEMO)
            assert refused.value.retry_after == 5
            monkeypatch.setattr(holdings, "_PATIENCE_SECONDS", 60.0)
            assert await house.names() == [built.filename for built in versions]

    run(scenario())


def test_memory_is_bounded_by_bytes() -> None:
    """The least recently used go first; one that is larger than everything stays alone."""

    def make(name: str, files: int) -> None:
        by_path = dict.fromkeys(map(str, range(files)))
        cache.put(NormalizedName(name), Entry(Project(NormalizedName(name), name, 1, ()), by_path, frozenset()))  # type: ignore[arg-type]

    cache = PageCache(20_000)
    for number in range(3):
        make(f"small{number}", 1)
    assert [cache.get(NormalizedName(f"small{number}"), 1) is not None for number in range(3)] == [True] * 3
    make("small3", 1)
    assert cache.get(NormalizedName("small0"), 1) is None
    make("large", 100)
    assert cache.get(NormalizedName("large"), 1) is not None
    assert cache.get(NormalizedName("small3"), 1) is None


def test_metadata_that_no_file_refers_to_are_swept(packages: Path) -> None:
    """Once everything was read, and what is in use stays."""

    async def scenario() -> None:
        store = MetadataStore(packages / ".state" / "metadata")
        left = store.put(b"of a file that was deleted")
        path = packages / ".state" / "metadata" / left[:2] / left
        os.utime(path, (1, 1))
        WHEEL.write(packages)
        async with opened(packages) as house:
            await eventually(lambda: asyncio.sleep(0, not path.exists()))
            (file,) = await house.files()
            assert file.metadata_sha256 is not None
            assert store.get(file.metadata_sha256) is not None
            os.utime(path.parent.parent / file.metadata_sha256[:2] / file.metadata_sha256, (1, 1))
        OTHERS[0].write(packages)
        store.put(b"of a file that was deleted")
        os.utime(path, (1, 1))
        async with opened(packages) as house:
            await eventually(lambda: asyncio.sleep(0, not path.exists()))
            assert store.get(file.metadata_sha256) is not None

    run(scenario())
