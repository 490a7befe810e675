"""What the index answers: fresh pages that cost nothing to repeat, and each file once."""

import asyncio
import gc
import json
import os
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from pypiserver_ng.catalog import Catalog
from pypiserver_ng.errors import Invalid, NotFound
from pypiserver_ng.index.backlog import Backlog
from pypiserver_ng.index.following import Flights
from pypiserver_ng.index.pagecache import Entry
from pypiserver_ng.model import ANONYMOUS, Body, Elsewhere, NormalizedName, Status
from pypiserver_ng.policy import Policy
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.house import DEMO, IMPOSTOR, KEY, NEWER, SDIST, WHEEL, eventually, hash_of, listed, opened, read, run
from tests.tools.server import wait_until


@contextmanager
def counted_queries(catalog: Catalog) -> Iterator[list[str]]:
    """The statements that the catalog is asked in the block."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(catalog._database._engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(catalog._database._engine, "before_cursor_execute", note)


# Pages.


def test_a_page_is_fresh_the_moment_an_upload_is_acknowledged(packages: Path) -> None:
    """What was kept in memory is not used again, in any representation; an unchanged page is not made again."""

    async def scenario() -> None:
        async with opened(packages) as house:
            for count, built in enumerate((WHEEL, SDIST, NEWER), 1):
                await house.add(built)
                assert house.index.peek_project_page(DEMO, KEY) is None
                assert await house.index.counts() == (1, count)
                assert house.index.peek_project_page(DEMO, KEY) is None
                body = await house.index.project_page(DEMO, KEY)
                assert isinstance(body, Body)
                assert len(json.loads(body.content)["files"]) == count
                assert house.index.peek_project_page(DEMO, KEY) is body
            root = await house.index.root_page(KEY)
            assert await house.index.root_page(KEY) is root
            await house.add(build_wheel("other", "1.0"))
            names = [project["name"] for project in json.loads((await house.index.root_page(KEY)).content)["projects"]]
            assert names == ["demo", "other"] == await house.projects()
            assert await house.index.counts() == (2, 4)

    run(scenario())


def test_who_knows_of_a_change_gets_nothing_older(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being loaded since before the change is loaded once more."""
    joined: list[Hashable] = []
    is_loaded, goes_on = threading.Event(), threading.Event()
    join, load = Flights.join, Backlog.load

    async def join_noted(flights: Flights, key: Hashable, start: Any) -> Any:
        joined.append(key)
        return await join(flights, key, start)

    def load_slowly(backlog: Backlog, name: NormalizedName) -> tuple[Entry, bool]:
        loaded = load(backlog, name)
        is_loaded.set()
        goes_on.wait(10)
        return loaded

    async def are_both_waiting() -> bool:
        return joined.count(("load", DEMO)) == 2

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(WHEEL)
            monkeypatch.setattr(Flights, "join", join_noted)
            monkeypatch.setattr(Backlog, "load", load_slowly)
            early = asyncio.create_task(house.index.project(DEMO))
            await asyncio.to_thread(is_loaded.wait, 10)
            house.catalog.set_status(DEMO, Status.DEPRECATED, "old", None)
            late = asyncio.create_task(house.index.project(DEMO))
            await eventually(are_both_waiting)
            goes_on.set()
            assert [(await task).status for task in (early, late)] == [Status.ACTIVE, Status.DEPRECATED]

    run(scenario())


def test_a_page_in_memory_asks_nobody(packages: Path) -> None:
    """A hit is no query; many askers of a page that is not in memory cost what one costs."""

    async def scenario() -> None:
        WHEEL.write(packages)
        async with opened(packages) as house:
            await listed(house, WHEEL.filename)
            await house.add(NEWER)
            await house.index.counts()
            with counted_queries(house.catalog) as queries:
                bodies = await asyncio.gather(*(house.index.project_page(DEMO, KEY) for _ in range(20)))
            assert len({id(body) for body in bodies}) == 1
            assert len([query for query in queries if "files.project = ?" in query]) == 1
            with counted_queries(house.catalog) as queries:
                assert house.index.peek_project_page(DEMO, KEY) is bodies[0]
                assert await house.index.project_page(DEMO, KEY) is bodies[0]
            assert [query for query in queries if "FROM files" in query] == []

    run(scenario())


def test_who_answers_for_a_project(packages: Path) -> None:
    """Local files first, reserved names never elsewhere, the rest elsewhere without the server's credentials."""

    async def scenario() -> None:
        async with opened(packages, policy=Policy(reserve=("acme-*",))) as house:
            elsewhere = await house.index.project_page(DEMO, KEY)
            assert elsewhere == Elsewhere("https://mirror.example/simple/demo/")
            with pytest.raises(NotFound):
                await house.index.project_page(NormalizedName("acme-core"), KEY)
            await house.add(WHEEL)
            assert isinstance(await house.index.project_page(DEMO, KEY), Body)
            await house.index.remove(DEMO, "1.0", ANONYMOUS)
            assert isinstance(await house.index.project_page(DEMO, KEY), Elsewhere)

    run(scenario())


# Single flight.


def test_one_flight_for_all() -> None:
    """Who asks for what is under way waits for it; who leaves takes nobody's answer; a fault reaches everyone."""

    async def scenario() -> None:
        flights, starts, go = Flights(), [0], asyncio.Event()

        async def start() -> int:
            starts[0] += 1
            await go.wait()
            if starts[0] > 1:
                raise NotFound("no")
            return starts[0]

        first, *others = [asyncio.create_task(flights.join("key", start)) for _ in range(10)]
        await asyncio.sleep(0)
        first.cancel()
        go.set()
        assert await asyncio.gather(*others) == [1] * 9
        faults = await asyncio.gather(*(flights.join("key", start) for _ in range(5)), return_exceptions=True)
        assert [type(fault) for fault in faults] == [NotFound] * 5
        assert starts == [2]

    run(scenario())


def test_whoever_needs_a_newer_answer_gets_it() -> None:
    """Also in the moment between a flight's landing and its removal, when waiting for it gives way to nobody."""

    async def scenario() -> None:
        flights, serial = Flights(), [1]

        async def start() -> int:
            seen = serial[0]
            await asyncio.sleep(0)
            return seen

        early = asyncio.create_task(flights.join("key", start))
        while not (task := flights._tasks.get("key")) or not task.done():  # noqa: ASYNC110 - one step at a time
            await asyncio.sleep(0)
        serial[0] = 2
        answers = [await flights.join("key", start) for _ in range(2)]
        assert (answers[-1], await early) == (2, 1)

    run(scenario())


def test_readers_and_writers_at_once(packages: Path) -> None:
    """Every answer after an acknowledged upload has it, while many ask and many upload."""

    async def scenario() -> None:
        async with opened(packages) as house:

            async def write(number: int) -> None:
                built = build_wheel("demo", f"{number}.0")
                await house.add(built)
                assert built.filename in await house.names()

            async def ask() -> None:
                for _ in range(50):
                    await house.files()
                    await house.index.root_page(KEY)

            await asyncio.gather(*(write(number) for number in range(10)), *(ask() for _ in range(10)))
            assert len(await house.files()) == 10

    run(scenario())


# What a page lists.


def test_a_filename_is_listed_once(tmp_path: Path) -> None:
    """The first directory and then the shortest path wins; every copy can be fetched."""

    async def scenario() -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        WHEEL.write(first / "deep")
        IMPOSTOR.write(first)
        NEWER.write(second)
        build_wheel("demo", "2.0", description="hidden").write(second / "deep")
        async with opened(first, second) as house:
            await listed(house, WHEEL.filename, NEWER.filename)
            assert [hash_of(file) for file in await house.files()] == [IMPOSTOR.sha256, NEWER.sha256]
            assert (await read(house, f"deep/{WHEEL.filename}"))[1] == WHEEL.content

    run(scenario())


@pytest.mark.parametrize("moment", (-(10**9), 0, 11 * 10**9))
def test_any_time_that_a_file_system_knows(packages: Path, moment: int) -> None:
    """A file from before 1970 or from after 2262 is a file, and keeps no other from being served."""

    async def scenario() -> None:
        os.utime(WHEEL.write(packages), (moment, moment))
        NEWER.write(packages)
        async with opened(packages) as house:
            await listed(house, WHEEL.filename, NEWER.filename)
            assert (await read(house, WHEEL.filename))[1] == WHEEL.content
            assert isinstance(await house.index.project_page(DEMO, KEY), Body)

    run(scenario())


def test_files_are_in_the_order_of_their_versions(packages: Path) -> None:
    """PEP 440's order, not that of the text; what is no version comes first."""

    async def scenario() -> None:
        versions = ("2.0", "10.0", "2.0rc1", "1!0.1", "2.0.post1")
        for version in versions:
            build_sdist("demo", version).write(packages)
        (packages / "demo-2004d-unknown.zip").write_bytes(b"x")
        async with opened(packages) as house:

            async def condition() -> bool:
                return len(await house.files()) == 6

            await eventually(condition)
            found = [file.version for file in await house.files()]
            assert found[1:] == ["2.0rc1", "2.0", "2.0.post1", "10.0", "1!0.1"]

    run(scenario())


def test_a_signature(packages: Path) -> None:
    """Beside its file it is a fact of that file and can be fetched; alone it is a file of its project."""

    async def scenario() -> None:
        WHEEL.write(packages)
        signature = f"{WHEEL.filename}.asc"
        (packages / signature).write_bytes(b"signed")
        async with opened(packages) as house:
            await listed(house, WHEEL.filename)

            async def condition() -> bool:
                return (await house.files())[0].has_signature

            await eventually(condition)
            assert (await read(house, signature))[1] == b"signed"
            (packages / WHEEL.filename).unlink()
            await listed(house, signature)

    run(scenario())


def test_only_files_of_the_index_are_served(packages: Path) -> None:
    """Whatever else lies in the directory is nobody's business."""

    async def scenario() -> None:
        WHEEL.write(packages)
        WHEEL.write(packages / ".hidden")
        (packages / "README.txt").write_text("x")
        async with opened(packages) as house:
            await listed(house, WHEEL.filename)
            for path in (
                "README.txt",
                f".hidden/{WHEEL.filename}",
                f"../packages/{WHEEL.filename}",
                f"./{WHEEL.filename}",
                f"/{WHEEL.filename}",
                f"{WHEEL.filename}/",
                ".state/catalog.sqlite",
                "",
            ):
                with pytest.raises(NotFound):
                    await house.index.open_file(path)

    run(scenario())


# Finding.


def test_a_search_finds_each_project_in_its_newest_version(packages: Path) -> None:
    """In the order of names; the newest upload comes first where that is asked."""

    async def scenario() -> None:
        async with opened(packages) as house:
            for built in (NEWER, WHEEL, build_wheel("other", "3.0")):
                await house.add(built)
            assert [(found.name, found.version) for found in (await house.index.search(["FOR TESTS"]))[0]] == [
                ("demo", "2.0"),
                ("other", "3.0"),
            ]
            assert [found.name for found in (await house.index.search(["oth"]))[0]] == ["other"]
            found, count = await house.index.search([], 1)
            assert ([one.name for one in found], count) == (["demo"], 2)
            assert [found.name for found in await house.index.recent(5)] == ["other", "demo"]

    run(scenario())


def test_everything_is_given_back(packages: Path) -> None:
    """A stopped index holds no descriptor."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(WHEEL)
            await read(house, WHEEL.filename)
            with pytest.raises(Invalid):
                await house.add(WHEEL, name="other")

    before = count_descriptors()
    for _ in range(3):
        run(scenario())
    # The watcher's thread ends a moment after the index.
    wait_until(lambda: count_descriptors() <= before, within=10)


def count_descriptors() -> int:
    """How many this process has open; 0 where the system does not tell."""
    gc.collect()
    directory = Path("/proc/self/fd")
    return len(list(directory.iterdir())) if directory.exists() else 0
