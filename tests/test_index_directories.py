"""What people do in the directories by hand is listed: what they copy, change and delete, once it is whole."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import pytest

from pypiserver_ng.errors import NotFound, Unavailable
from pypiserver_ng.model import Body
from pypiserver_ng.policy import Policy
from tests.tools.distributions import Distribution
from tests.tools.house import DEMO, IMPOSTOR, KEY, NEWER, SDIST, WHEEL, eventually, hash_of, listed, opened, read, run

# What people do by hand.


def test_what_is_copied_in_is_listed_and_what_is_deleted_is_not(packages: Path) -> None:
    """At any depth, while the server runs; metadata and all."""

    async def scenario() -> None:
        async with opened(packages) as house:
            assert await house.files() == ()
            path = WHEEL.write(packages / "deep" / "er")
            await listed(house, WHEEL.filename)
            (file,) = await house.files()
            assert (hash_of(file), file.requires_python, file.path) == (
                WHEEL.sha256,
                ">=3.8",
                f"deep/er/{WHEEL.filename}",
            )
            assert (await read(house, file.path))[1] == WHEEL.content
            _, metadata = await house.index.metadata_file(file.path)
            assert hashlib.sha256(metadata).hexdigest() == file.metadata_sha256
            SDIST.write(packages)
            await listed(house, WHEEL.filename, SDIST.filename)
            path.unlink()
            await listed(house, SDIST.filename)
            with pytest.raises(NotFound):
                await house.index.file(file.path)
            (packages / SDIST.filename).unlink()
            await listed(house)
            assert await house.projects() == []

    run(scenario())


def test_what_changed_while_the_server_was_down(packages: Path) -> None:
    """The catalog is brought up to what lies there before the first answer."""

    async def scenario() -> None:
        WHEEL.write(packages)
        SDIST.write(packages)
        async with opened(packages) as house:
            await listed(house, WHEEL.filename, SDIST.filename)
        (packages / SDIST.filename).unlink()
        NEWER.write(packages)
        async with opened(packages) as house:
            assert await house.names() == [WHEEL.filename, NEWER.filename]

    run(scenario())


def test_a_directory_comes_and_goes_whole(packages: Path, tmp_path: Path) -> None:
    """Moved in and out by one rename."""

    async def scenario() -> None:
        WHEEL.write(tmp_path / "outside")
        async with opened(packages) as house:
            (tmp_path / "outside").rename(packages / "inside")
            await listed(house, WHEEL.filename)
            (packages / "inside").rename(tmp_path / "outside")
            await listed(house)

    run(scenario())


def test_links_to_directories_are_not_followed(packages: Path, tmp_path: Path) -> None:
    """Nor is what changes behind them noticed, although the system tells of it."""

    async def scenario() -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (packages / "link").symlink_to(outside)
        async with opened(packages) as house:
            WHEEL.write(outside)
            await house.index._holdings.compare([(str(packages), f"link/{WHEEL.filename}")])
            SDIST.write(packages)
            await listed(house, SDIST.filename)

    run(scenario())


def test_a_modified_file_gets_its_new_hash(packages: Path) -> None:
    """A client never gets bytes that its page has another hash for: what is sent is what is known."""

    async def scenario() -> None:
        WHEEL.write(packages)
        async with opened(packages) as house:
            await listed(house, WHEEL.filename)
            IMPOSTOR.write(packages)

            async def is_readable() -> bool:
                # A comparison that ran while it was written may have found half of it.
                with suppress(Unavailable):
                    file, content = await read(house, WHEEL.filename)
                    assert (hash_of(file), content) == (IMPOSTOR.sha256, IMPOSTOR.content)
                    return True
                return False

            await eventually(is_readable)
            assert [hash_of(file) for file in await house.files()] == [IMPOSTOR.sha256]

    run(scenario())


def test_a_share_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """What cannot be looked at is unknown, not gone: its projects stay local and never go upstream."""

    async def scenario() -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        first.mkdir()
        WHEEL.write(second)
        async with opened(first, second, policy=Policy()) as house:
            await listed(house, WHEEL.filename)
            second.rename(tmp_path / "unmounted")
            await house.index._holdings.compare(None)
            await house.index._holdings.compare([(str(second), WHEEL.filename)])
            assert isinstance(await house.index.project_page(DEMO, KEY), Body)

    run(scenario())


@pytest.mark.parametrize("mode", (0o000, 0o444, 0o111))
def test_a_directory_that_cannot_be_read(packages: Path, mode: int) -> None:
    """Its projects stay, and what happens elsewhere is noticed."""

    async def scenario() -> None:
        deep = packages / "deep"
        WHEEL.write(deep)
        async with opened(packages) as house:
            await listed(house, WHEEL.filename)
            deep.chmod(mode)
            try:
                if os.access(deep, os.R_OK | os.X_OK):
                    pytest.skip("this user may read everything")
                await house.index._holdings.compare([(str(packages), f"deep/{WHEEL.filename}")])
                NEWER.write(packages)
                await listed(house, WHEEL.filename, NEWER.filename)
            finally:
                deep.chmod(0o700)

    run(scenario())


def test_a_link_that_leads_nowhere(packages: Path) -> None:
    """A file that became one is gone, and what happens elsewhere is noticed."""

    async def scenario() -> None:
        path = WHEEL.write(packages)
        async with opened(packages) as house:
            await listed(house, WHEEL.filename)
            path.unlink()
            path.symlink_to(path)
            SDIST.write(packages)
            await listed(house, SDIST.filename)

    run(scenario())


# Files that are not whole.


@pytest.mark.parametrize("built", (WHEEL, SDIST), ids=("wheel", "sdist"))
@pytest.mark.parametrize("hold", (True, False), ids=("open", "closed"))
def test_a_file_that_is_being_copied_is_not_listed(packages: Path, built: Distribution, hold: bool) -> None:
    """Until its end is there; meanwhile the project is here, but not whole: neither empty nor upstream's."""

    async def scenario() -> None:
        half = len(built.content) // 2
        async with opened(packages, policy=Policy()) as house:
            with (packages / built.filename).open("wb") as copy:
                copy.write(built.content[:half])
                copy.flush()
                if hold:
                    await eventually(house.is_pending)
            await eventually(house.is_pending)
            with (packages / built.filename).open("ab") as copy:
                copy.write(built.content[half:])
            await listed(house, built.filename)
            assert [hash_of(file) for file in await house.files()] == [built.sha256]

    run(scenario())


def test_a_file_whose_end_cannot_be_told_waits_for_its_writer(packages: Path) -> None:
    """An installer's bytes do not say where they end, but whoever writes them does."""

    async def scenario() -> None:
        async with opened(packages) as house:
            with (packages / "demo-1.0.win32-py3.8.exe").open("wb") as copy:
                copy.write(b"MZ and half of it")
                copy.flush()
                await eventually(house.is_pending)
                copy.write(b" and the rest")
            await listed(house, "demo-1.0.win32-py3.8.exe")
            (file,) = await house.files()
            assert hash_of(file) == hashlib.sha256(b"MZ and half of it and the rest").hexdigest()

    run(scenario())


def test_other_files_are_listed_while_one_is_copied(packages: Path) -> None:
    """A copy in progress hides nothing but itself."""

    async def scenario() -> None:
        SDIST.write(packages)
        async with opened(packages) as house:
            with (packages / NEWER.filename).open("wb") as copy:
                copy.write(NEWER.content[:100])
                copy.flush()

                async def condition() -> bool:
                    return (await house.index.project(DEMO)).pending == 1

                await eventually(condition)
                assert await house.names() == [SDIST.filename]

    run(scenario())


BROKEN = (WHEEL.content[:200], b"", b"<html>not found</html>", WHEEL.content[:-30] + b"\0" * 30)


@pytest.mark.parametrize("mtime", (-(10**10), 0, 2**33), ids=("before 1677", "1970", "the future"))
def test_times_that_nobody_expects(packages: Path, mtime: int) -> None:
    """Whoever copied the file may have set them: neither a whole file nor a broken one is held up by them."""

    async def scenario() -> None:
        for path in (WHEEL.write(packages), packages / SDIST.filename):
            if path.name == SDIST.filename:
                path.write_bytes(SDIST.content[:60])
            os.utime(path, (mtime, mtime))
        async with opened(packages) as house:
            await listed(house, WHEEL.filename, SDIST.filename)
            page = await house.index.project_page(DEMO, KEY)
            assert isinstance(page, Body)

    run(scenario())


@pytest.mark.parametrize("content", BROKEN, ids=("truncated", "empty", "something else", "damaged"))
def test_a_broken_file_from_before_is_listed_without_metadata(packages: Path, content: bytes) -> None:
    """It makes its project local; nobody is still copying what was left alone since before the start."""

    async def scenario() -> None:
        (packages / WHEEL.filename).write_bytes(content)
        async with opened(packages) as house:
            await listed(house, WHEEL.filename)
            (file,) = await house.files()
            assert (file.metadata_sha256, file.requires_python) == (None, None)
            assert (await read(house, file.path))[1] == content
            with pytest.raises(NotFound):
                await house.index.metadata_file(file.path)

    run(scenario())


def test_a_file_that_moves_keeps_its_project(tmp_path: Path) -> None:
    """Told only that it went from its old place, the index looks for it before it gives its project away."""

    async def scenario() -> None:
        (tmp_path / "old").mkdir()
        WHEEL.write(tmp_path / "old")
        async with opened(tmp_path, policy=Policy(fallback=True)) as house:
            await listed(house, WHEEL.filename)
            (tmp_path / "old" / WHEEL.filename).rename(tmp_path / WHEEL.filename)
            await house.index._holdings.compare([(str(tmp_path), f"old/{WHEEL.filename}")])
            assert isinstance(await house.index.project_page(DEMO, KEY), Body)
            assert (await house.index.file(WHEEL.filename)).path == WHEEL.filename

    run(scenario())
