"""Uploads and deletions: all or nothing, whoever races, and names that were used stay used."""

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from pypiserver_ng.errors import Conflict, Denied, Failure, Invalid, NotFound, Unavailable
from pypiserver_ng.model import ANONYMOUS, NormalizedName, Status
from tests.tools.distributions import Distribution, build_wheel
from tests.tools.house import DEMO, IMPOSTOR, NEWER, SDIST, WHEEL, eventually, hash_of, listed, opened, read, run


def test_the_same_bytes_again_are_a_success(packages: Path) -> None:
    """Nothing is stored twice; other bytes under the name are a conflict, wherever the first copy lies."""

    async def scenario() -> None:
        SDIST.write(packages / "deep")
        async with opened(packages) as house:
            for built in (WHEEL, WHEEL, SDIST):
                await house.add(built)
            with pytest.raises(Conflict, match=r"^File already exists"):
                await house.add(IMPOSTOR)
            assert house.left_over() == ["deep", WHEEL.filename]
            assert [hash_of(file) for file in await house.files()] == [WHEEL.sha256, SDIST.sha256]

    run(scenario())


def test_overwriting(packages: Path) -> None:
    """When it was asked for, the newest upload wins, a deleted name included."""

    async def scenario() -> None:
        async with opened(packages, overwrite=True) as house:
            for built in (WHEEL, IMPOSTOR):
                await house.add(built)
                assert [hash_of(file) for file in await house.files()] == [built.sha256]
            await house.index.remove(DEMO, "1.0", ANONYMOUS)
            await house.add(WHEEL)
            assert (await read(house, WHEEL.filename))[1] == WHEEL.content

    run(scenario())


def test_a_deleted_name_takes_no_other_bytes(packages: Path) -> None:
    """The same bytes may come back; the name of another release is free."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(WHEEL)
            await house.add(NEWER)
            assert await house.index.remove(DEMO, "1", ANONYMOUS) == 1
            assert (await house.names(), house.left_over()) == ([NEWER.filename], [NEWER.filename])
            with pytest.raises(Conflict, match=r"^File already exists"):
                await house.add(IMPOSTOR)
            await house.add(WHEEL)
            assert await house.names() == [WHEEL.filename, NEWER.filename]

    run(scenario())


def test_removing_a_release_removes_every_copy(tmp_path: Path) -> None:
    """Nothing that another directory hid comes to light."""

    async def scenario() -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        for directory in (first, second, second / "deep"):
            WHEEL.write(directory)
            (directory / f"{WHEEL.filename}.asc").write_bytes(b"signed")
        async with opened(first, second) as house:

            async def condition() -> bool:
                return (await house.index.project(DEMO)).pending == 0

            await listed(house, WHEEL.filename)
            await eventually(condition)
            assert await house.index.remove(DEMO, "1.0", ANONYMOUS) == 6
            assert await house.files() == ()
            await house.index._holdings.compare(None)
            assert await house.projects() == []

    run(scenario())


@pytest.mark.parametrize(("name", "version"), (("demo", "2.0"), ("demo", "not a version"), ("other", "1.0")))
def test_removing_what_is_not_here(packages: Path, name: str, version: str) -> None:
    """It is said, and nothing goes."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(WHEEL)
            with pytest.raises(NotFound):
                await house.index.remove(NormalizedName(name), version, ANONYMOUS)
            assert await house.names() == [WHEEL.filename]

    run(scenario())


@pytest.mark.parametrize("links", (True, False), ids=("links", "no links"))
def test_of_racing_uploads_exactly_one_wins(packages: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is acknowledged is what is listed and what lies on the disk; nothing of the losers is left."""
    if not links:
        monkeypatch.setattr(os, "link", refuse_link)

    async def scenario() -> None:
        async with opened(packages) as house:
            racers = [build_wheel("demo", "1.0", description=f"racer {number}") for number in range(12)]
            outcomes = await asyncio.gather(*map(house.add, racers), return_exceptions=True)
            (winner,) = [racer for racer, outcome in zip(racers, outcomes, strict=True) if outcome is None]
            assert {type(outcome) for outcome in outcomes} == {type(None), Conflict}
            assert (packages / WHEEL.filename).read_bytes() == winner.content
            assert [hash_of(file) for file in await house.files()] == [winner.sha256]
            assert house.left_over() == [WHEEL.filename]

    run(scenario())


def refuse_link(*_: object, **__: object) -> None:
    raise OSError(1, "no hard links here")


def test_racing_uploads_of_the_same_bytes_all_succeed(packages: Path) -> None:
    """They all said the same."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await asyncio.gather(*(house.add(WHEEL) for _ in range(8)))
            assert [hash_of(file) for file in await house.files()] == [WHEEL.sha256]
            assert house.left_over() == [WHEEL.filename]

    run(scenario())


REFUSED: tuple[tuple[Distribution, dict[str, Any], str], ...] = (
    (WHEEL, {"digests": {"sha256_digest": "0" * 64}}, "sha256_digest"),
    (WHEEL, {"digests": {"md5_digest": "0" * 32}}, "md5_digest"),
    (WHEEL, {"digests": {"blake2_256_digest": "0" * 64}}, "blake2_256_digest"),
    (WHEEL, {"name": "other"}, "project"),
    (WHEEL, {"version": "1.1"}, "version"),
    (WHEEL, {"filetype": "sdist"}, "filetype"),
    (WHEEL, {"filename": "../demo-1.0-py3-none-any.whl"}, "filename"),
    (WHEEL, {"filename": "demo-1.0.tar.gz"}, "gzip"),
    (WHEEL, {"filename": "demo-1.1-py3-none-any.whl"}, "dist-info"),
    (WHEEL, {"filename": "demo-1.0.exe"}, "wheel"),
    (Distribution(WHEEL.filename, b""), {}, "zip"),
    (Distribution(WHEEL.filename, WHEEL.content[:-10]), {}, "archive"),
    (Distribution(SDIST.filename, SDIST.content[:-10]), {}, "archive"),
)


@pytest.mark.parametrize(("built", "form", "word"), REFUSED)
def test_a_refused_upload_leaves_nothing(packages: Path, built: Distribution, form: dict[str, Any], word: str) -> None:
    """No file, no scratch, no project; one line says what is wrong."""

    async def scenario() -> None:
        async with opened(packages) as house:
            with pytest.raises(Invalid, match=word) as refused:
                await house.add(built, **form)
            assert "\n" not in refused.value.message
            assert (house.left_over(), await house.projects()) == ([], [])

    run(scenario())


def test_a_form_that_agrees(packages: Path) -> None:
    """Spellings that mean the same are the same."""

    async def scenario() -> None:
        async with opened(packages) as house:
            digests = {"sha256_digest": WHEEL.sha256.upper(), "md5_digest": hashlib.md5(WHEEL.content).hexdigest()}
            await house.add(WHEEL, name="DEMO", version="1", filetype="bdist_wheel", digests=digests)
            assert await house.names() == [WHEEL.filename]

    run(scenario())


def test_an_upload_that_cannot_be_recorded_leaves_nothing(packages: Path) -> None:
    """A disk that is full when the catalog commits: the client is told, and no scan finds the file later."""

    async def scenario() -> None:
        async with opened(packages) as house:
            with house.catalog._database._engine.connect() as connection:
                (pages_now,) = connection.exec_driver_sql("PRAGMA page_count").one()

            def limit(connection: Any, *_: Any) -> None:
                connection.execute(f"PRAGMA max_page_count = {pages_now}")

            event.listen(house.catalog._database._engine, "checkout", limit)
            failure = None
            for number in range(200):
                try:
                    await house.add(build_wheel(f"demo{number}", "1.0"))
                except Failure as raised:
                    failure = raised
                    break
            assert failure is not None
            assert "no space" in failure.message
            assert len(house.left_over()) == number
            assert (await house.index.counts())[0] == number

    run(scenario())


def test_a_deleted_store_of_metadata_is_made_again(packages: Path) -> None:
    """It is a cache: any loss is repaired from the wheel."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(WHEEL)
            _, before = await house.index.metadata_file(WHEEL.filename)
            for path in (house.state / "metadata").rglob("*"):
                if path.is_file():
                    path.write_bytes(b"damaged")
            assert (await house.index.metadata_file(WHEEL.filename))[1] == before

    run(scenario())


@pytest.mark.parametrize("make", (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")))
def test_a_name_that_something_else_has_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A directory, a pipe or a dangling link under the name is left alone, and the upload is told."""

    async def scenario() -> None:
        async with opened(tmp_path) as house:
            make(tmp_path / WHEEL.filename)
            with pytest.raises(Conflict, match="no file"):
                await house.add(WHEEL)
            assert house.left_over() == [WHEEL.filename]

    run(scenario())


def test_a_refused_upload_leaves_nothing_while_others_look(packages: Path) -> None:
    """A scan that comes between the file's name and its row must not take a refused file for one that was copied in."""

    async def scenario() -> None:
        async with opened(packages) as house:
            looking = True

            async def look() -> None:
                while looking:
                    await house.index._holdings.compare(None)

            async def upload(number: int) -> str | None:
                built = build_wheel("racer", f"1.{number}")
                try:
                    await house.add(built)
                except Denied:
                    return None
                return built.filename

            await house.add(build_wheel("racer", "0.1"))
            looker = asyncio.create_task(look())
            uploads = [asyncio.create_task(upload(number)) for number in range(40)]
            await asyncio.sleep(0.05)
            racer = NormalizedName("racer")
            await house.index.run(house.catalog.set_status, racer, Status.ARCHIVED, None, None)
            accepted = {name for name in await asyncio.gather(*uploads) if name}
            looking = False
            await looker
            await house.index._holdings.compare(None)
            assert {file.filename for file in await house.files(racer)} == accepted | {"racer-0.1-py3-none-any.whl"}
            assert set(house.left_over()) == accepted | {"racer-0.1-py3-none-any.whl"}

    run(scenario())


def test_an_upload_ends_a_deletion_that_was_broken_off(packages: Path) -> None:
    """The same bytes come again before anybody finished: what was acknowledged stays."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(WHEEL)
            (file,) = await house.files()
            await house.index.run(house.catalog.remove, [file], None)
            assert await house.files() == ()
            await house.add(WHEEL)
            for _ in range(2):
                await house.index._holdings.compare(None)
                assert await house.names() == [WHEEL.filename]
            assert (await read(house, WHEEL.filename))[1] == WHEEL.content

    run(scenario())


def test_a_deletion_that_fails_leaves_the_release_yanked(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be removed is listed again, as what it was."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(WHEEL)
            await house.add(SDIST)
            await house.index.run(house.catalog.yank, DEMO, "1.0", "malware", None)
            delete = house.index._directory.delete

            def fail(root: str, path: str) -> None:
                if path.endswith(".whl"):
                    raise OSError(errno.EIO, os.strerror(errno.EIO), path)
                delete(root, path)

            monkeypatch.setattr(house.index._directory, "delete", fail)
            with pytest.raises(Unavailable, match="not everything was deleted"):
                await house.index.remove(DEMO, "1.0", ANONYMOUS)
            await listed(house, WHEEL.filename)
            assert [file.yanked_reason for file in await house.files()] == ["malware"]

    run(scenario())


def test_a_file_that_is_not_whole_keeps_its_release(packages: Path) -> None:
    """Deleting what is there of it would let the rest come back under the same version."""

    async def scenario() -> None:
        async with opened(packages) as house:
            await house.add(SDIST)
            with (packages / WHEEL.filename).open("wb") as writer:
                writer.write(WHEEL.content)
                writer.flush()
                await house.index._holdings.compare(None)
                with pytest.raises(Unavailable, match="still being copied"):
                    await house.index.remove(DEMO, "1.0", ANONYMOUS)
            await listed(house, WHEEL.filename, SDIST.filename)
            assert await house.index.remove(DEMO, "1.0", ANONYMOUS) == 2

    run(scenario())
