"""Uploads that wait for each other are published together, and each is taken or refused for itself."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from pypiserver_ng.catalog import Contents, Presence
from pypiserver_ng.errors import Conflict, Denied, Unavailable
from pypiserver_ng.filenames import parse_upload
from pypiserver_ng.index import publishing
from pypiserver_ng.index.publishing import Publisher, Waiting
from pypiserver_ng.model import Digests, NormalizedName, Status
from pypiserver_ng.storage import lock
from tests.tools.catalogs import add_upload
from tests.tools.distributions import Distribution, build_wheel
from tests.tools.house import IMPOSTOR, NEWER, WHEEL, House, eventually, hash_of, opened, read, run

WHEELS = [build_wheel(f"demo{number}", "1.0") for number in range(5)]


def publisher_of(house: House) -> Publisher:
    return house.index._intake._publisher


@asynccontextmanager
async def waiting(
    house: House, uploads: Sequence[Distribution]
) -> AsyncIterator[asyncio.Future[list[BaseException | None]]]:
    """All checks passed, and the tree is locked for the length of the block; the future has the outcomes."""
    with house.index._tree.lock:
        outcomes = asyncio.gather(*map(house.add, uploads), return_exceptions=True)

        async def condition() -> bool:
            return len(publisher_of(house)._waiting) == len(uploads)

        await eventually(condition)
        yield outcomes


def test_who_waits_is_published_together(packages: Path) -> None:
    """One transaction, so one serial, for all of them."""

    async def scenario() -> None:
        async with opened(packages) as house:
            before = house.catalog.serial()
            async with waiting(house, WHEELS) as outcomes:
                pass
            assert await outcomes == [None] * len(WHEELS)
            assert house.catalog.serial() == before + 1
            assert await house.projects() == [f"demo{number}" for number in range(5)]
            for built in WHEELS:
                assert (await read(house, built.filename))[1] == built.content
            assert house.left_over() == sorted(built.filename for built in WHEELS)

    run(scenario())


def test_each_is_refused_for_itself(packages: Path) -> None:
    """A project that was closed, a name that was taken while they waited: the others are stored."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(WHEELS[0])
            async with waiting(house, [NEWER, WHEELS[1], build_wheel("demo0", "2.0"), WHEELS[2]]) as outcomes:
                (packages / WHEELS[1].filename).write_bytes(b"somebody else's")
                house.catalog.set_status(NormalizedName("demo0"), Status.ARCHIVED, None, None)
            stored, taken, closed, other = await outcomes
            assert (stored, other) == (None, None)
            assert (type(taken), type(closed)) == (Conflict, Denied)
            assert (packages / WHEELS[1].filename).read_bytes() == b"somebody else's"
            assert not (packages / "demo0-2.0-py3-none-any.whl").exists()

    run(scenario())


def test_a_name_that_was_buried_meanwhile(packages: Path) -> None:
    """Other bytes are refused, and leave nothing; who waited beside them is stored."""

    async def scenario() -> None:
        async with opened(packages) as house:
            async with waiting(house, [IMPOSTOR, WHEELS[0]]) as outcomes:
                bury(house, WHEEL)
            buried, other = await outcomes
            assert (type(buried), other) == (Conflict, None)
            assert house.left_over() == [WHEELS[0].filename]

    run(scenario())


def bury(house: House, built: Distribution) -> None:
    """As if it had been uploaded and deleted by another process."""
    parsed = parse_upload(built.filename)
    found = Presence(str(house.roots[0]), built.filename, parsed, len(built.content), 10**18)
    add_upload(house.catalog, found, Contents(Digests(built.sha256, "", "")), None)
    known = [one.file for one in house.catalog.project_rows(parsed.name).known if one.file]
    house.catalog.remove(known, None)
    house.catalog.finish_removal(house.catalog.doomed(), [], None)


def test_one_that_no_database_takes_costs_itself_only(packages: Path) -> None:
    """Whatever is wrong with it, the others are recorded without it."""

    async def scenario() -> None:
        async with opened(packages) as house:
            strange = make_waiting(house, WHEELS[0], summary="\ud800")
            async with waiting(house, WHEELS[1:]) as outcomes:
                publisher_of(house)._waiting.append(strange)
            assert await outcomes == [None] * 4
            assert isinstance(strange.fault, UnicodeEncodeError)
            strange.scratch.discard()
            assert house.left_over() == sorted(built.filename for built in WHEELS[1:])

    run(scenario())


def make_waiting(house: House, built: Distribution, *, summary: str) -> Waiting:
    scratch = house.index.new_scratch()
    scratch.write(built.content)
    contents = Contents(scratch.digests(), summary=summary)
    return Waiting(parse_upload(built.filename), contents, None, None, scratch)


@pytest.mark.parametrize("overwrite", (False, True), ids=("new", "replaced"))
def test_names_that_cannot_be_flushed(packages: Path, overwrite: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that a file is stored whose name may be gone tomorrow; what was there is there again."""

    async def scenario() -> None:
        async with opened(packages, overwrite=overwrite) as house:
            await house.add(WHEEL)
            monkeypatch.setattr(house.index._directory, "flush_names", fail)
            async with waiting(house, [IMPOSTOR, *WHEELS] if overwrite else WHEELS) as outcomes:
                pass
            assert {type(outcome) for outcome in await outcomes} == {Unavailable}
            assert house.left_over() == [WHEEL.filename]
            assert (await read(house, WHEEL.filename))[1] == WHEEL.content

    run(scenario())


def fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_one_name_that_comes_twice_is_replaced_twice(packages: Path) -> None:
    """With `--overwrite` the last one stays, and its row is its own."""

    async def scenario() -> None:
        async with opened(packages, overwrite=True) as house:
            await house.add(WHEEL)
            before = house.catalog.serial()
            async with waiting(house, [IMPOSTOR]) as first:
                second = asyncio.gather(house.add(WHEEL), return_exceptions=True)

                async def condition() -> bool:
                    return len(publisher_of(house)._waiting) == 2

                await eventually(condition)
            assert [*await first, *await second] == [None, None]
            assert house.catalog.serial() == before + 2
            assert [hash_of(file) for file in await house.files()] == [WHEEL.sha256]
            assert (await read(house, WHEEL.filename))[1] == WHEEL.content

    run(scenario())


def test_who_waits_too_long_is_told_and_never_published(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that somebody does not give back costs uploads, which leave nothing and are not stored afterwards."""
    monkeypatch.setattr(publishing, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.3)

    async def scenario() -> None:
        async with opened(packages) as house:
            with house.index._tree.lock:
                outcomes = await asyncio.gather(*map(house.add, WHEELS), return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {Unavailable}
            assert publisher_of(house)._waiting == []
            await house.add(WHEEL)
            assert house.left_over() == [WHEEL.filename]

    run(scenario())


def test_a_client_that_left_while_it_waited(packages: Path) -> None:
    """Its scratch is given up, the others are stored."""

    async def scenario() -> None:
        async with opened(packages) as house:
            gone = make_waiting(house, WHEELS[0], summary="")
            async with waiting(house, WHEELS[1:]) as outcomes:
                publisher_of(house)._waiting.append(gone)
                gone.scratch.discard()
            assert await outcomes == [None] * 4
            assert isinstance(gone.fault, OSError)
            assert house.left_over() == sorted(built.filename for built in WHEELS[1:])

    run(scenario())


class Ended(BaseException):
    """As what ends a thread of the program."""


class Refusing:
    """A lock that this file system does not have."""

    def by(self, deadline: float) -> AbstractContextManager[None]:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def fail_with(fault: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise fault

    return fail


@pytest.mark.parametrize("overwrite", (False, True), ids=("new", "replaced"))
@pytest.mark.parametrize("fault", (RuntimeError("odd"), Ended()), ids=("fault", "end"))
def test_a_group_that_breaks_off_leaves_nothing(
    packages: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, fault: BaseException
) -> None:
    """Their names were given already: all are refused, and what they replaced is there again."""

    async def scenario() -> None:
        async with opened(packages, overwrite=overwrite) as house:
            await house.add(WHEEL)
            with monkeypatch.context() as patch:
                patch.setattr(house.index._directory, "flush_names", fail_with(fault))
                async with waiting(house, [IMPOSTOR, *WHEELS] if overwrite else WHEELS) as outcomes:
                    pass
                assert None not in await outcomes
            assert house.left_over() == [WHEEL.filename]
            assert (await read(house, WHEEL.filename))[1] == WHEEL.content
            assert await house.projects() == ["demo"]
            await house.add(WHEELS[0])

    run(scenario())


def test_who_is_told_that_it_failed_is_never_published(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the tree cannot be locked, nor where the group of another upload of its name was ended."""

    async def scenario() -> None:
        async with opened(packages, overwrite=True) as house:
            publisher = publisher_of(house)
            with monkeypatch.context() as patch:
                patch.setattr(publisher, "_lock", Refusing())
                with pytest.raises(Unavailable):
                    await house.add(WHEEL)
            assert publisher._waiting == []
            first = make_waiting(house, IMPOSTOR, summary="")
            publisher._waiting.append(first)
            with monkeypatch.context() as patch:
                patch.setattr(house.index._directory, "flush_names", fail_with(Ended()))
                with pytest.raises(Ended):
                    await house.add(WHEEL)
            assert publisher._waiting == []
            assert isinstance(first.fault, OSError)
            first.scratch.discard()
            await house.add(WHEELS[0])
            assert house.left_over() == [WHEELS[0].filename]

    run(scenario())


def test_whoever_publishes_for_others_goes_on_to_its_own(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks off for an earlier upload of the same name is none of its business."""

    async def scenario() -> None:
        async with opened(packages) as house:
            first = make_waiting(house, IMPOSTOR, summary="")
            publisher_of(house)._waiting.append(first)
            flush = house.index._directory.flush_names

            def fail_once() -> None:
                monkeypatch.setattr(house.index._directory, "flush_names", flush)
                raise RuntimeError("odd")

            monkeypatch.setattr(house.index._directory, "flush_names", fail_once)
            await house.add(WHEEL)
            assert isinstance(first.fault, RuntimeError)
            first.scratch.discard()
            assert house.left_over() == [WHEEL.filename]

    run(scenario())


def test_a_replacement_whose_traces_stay_is_a_success(
    packages: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The new bytes have their name and row: that the old ones cannot be cleared away is for the log."""

    async def scenario() -> None:
        async with opened(packages, overwrite=True) as house:
            await house.add(WHEEL)
            keep_aside = house.index._directory.keep_aside

            @contextmanager
            def stick(filename: str) -> Iterator[Path | None]:
                with keep_aside(filename) as kept:
                    yield kept
                fail()

            monkeypatch.setattr(house.index._directory, "keep_aside", stick)
            async with waiting(house, [IMPOSTOR, *WHEELS]) as outcomes:
                pass
            assert await outcomes == [None] * 6
            assert (await read(house, WHEEL.filename))[1] == IMPOSTOR.content
            assert caplog.text.count("cannot be cleared away") == 6

    run(scenario())


def test_nothing_is_flushed_for_what_is_here_already(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes came in another way meanwhile."""

    async def scenario() -> None:
        async with opened(packages) as house:
            monkeypatch.setattr(house.index._directory, "flush_names", fail)
            async with waiting(house, WHEELS[:2]) as outcomes:
                for built in WHEELS[:2]:
                    built.write(packages)
            assert await outcomes == [None, None]
            assert await house.projects() == ["demo0", "demo1"]

    run(scenario())


def test_what_was_here_already_survives_a_flush_that_fails(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused like the others, but its name is not the upload's doing."""

    async def scenario() -> None:
        async with opened(packages) as house:
            monkeypatch.setattr(house.index._directory, "flush_names", fail)
            async with waiting(house, WHEELS[:2]) as outcomes:
                WHEELS[0].write(packages)
            assert {type(outcome) for outcome in await outcomes} == {Unavailable}
            assert house.left_over() == [WHEELS[0].filename]

    run(scenario())
