"""The disk lets us down: mounts that go, files that cannot be removed, space that ends."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pypiserver_ng.errors import Failure, Unavailable
from pypiserver_ng.model import ANONYMOUS
from pypiserver_ng.policy import Origin
from tests.tools.house import DEMO, IMPOSTOR, NEWER, WHEEL, listed, opened, read, run

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


def call(*command: str | Path) -> bool:
    """Whether it succeeded."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fill(directory: Path) -> None:
    """Leave no byte."""
    fd = os.open(directory / "filler", os.O_CREAT | os.O_WRONLY)
    try:
        while os.write(fd, b"x" * 4096):
            pass
    except OSError as fault:
        if fault.errno != errno.ENOSPC:
            raise
    finally:
        os.close(fd)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 1 MiB."""
    point = tmp_path / "mounted"
    point.mkdir()
    if not call("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point):
        pytest.skip("nothing can be mounted here")
    yield point
    call("umount", "-l", point)


@needs_root
def test_unmounted_directory_keeps_its_projects_local(mount: Path, tmp_path: Path) -> None:
    """A share that goes leaves an empty directory; nothing of it may be asked from upstream meanwhile."""
    WHEEL.write(mount)

    async def scenario() -> None:
        async with opened(mount, state=tmp_path / "state") as house:
            await listed(house, WHEEL.filename)
            call("umount", mount)
            for _ in range(2):
                await house.index._holdings.compare(None)
                assert (await house.index.decide(DEMO)).origin is Origin.LOCAL
            with pytest.raises(Unavailable):
                await house.index.open_file(WHEEL.filename)
        async with opened(mount, state=tmp_path / "state") as house:
            assert (await house.index.decide(DEMO)).origin is Origin.LOCAL

    run(scenario())


@needs_root
def test_file_that_cannot_be_recorded_is_local(mount: Path, tmp_path: Path) -> None:
    """A full state directory must not send a project upstream whose file was copied in."""

    async def scenario() -> None:
        packages = tmp_path / "packages"
        packages.mkdir()
        async with opened(packages, state=mount) as house:
            fill(mount)
            WHEEL.write(packages)
            with pytest.raises(Failure):
                await house.index._holdings.compare(None)
            assert (await house.index.decide(DEMO)).origin is Origin.LOCAL
            with pytest.raises(Unavailable):
                await house.index.project(DEMO)
            (mount / "filler").unlink()
            await listed(house, WHEEL.filename)

    run(scenario())


@needs_root
def test_replacement_that_cannot_be_recorded_is_undone(mount: Path, tmp_path: Path) -> None:
    """With --overwrite, a refused upload leaves the old bytes in place."""

    async def scenario() -> None:
        packages = tmp_path / "packages"
        packages.mkdir()
        async with opened(packages, state=mount, overwrite=True) as house:
            await house.add(WHEEL)
            fill(mount)
            with pytest.raises(Failure):
                await house.add(IMPOSTOR)
            assert (await read(house, WHEEL.filename))[1] == WHEEL.content
            assert [WHEEL.filename] == [path.name for path in packages.glob("*.whl")]

    run(scenario())


@needs_root
def test_file_that_cannot_be_deleted_stays_known(tmp_path: Path) -> None:
    """A deletion that fails is refused, and the project stays local."""
    if shutil.which("chattr") is None:
        pytest.skip("chattr is missing")

    async def scenario() -> None:
        async with opened(tmp_path) as house:
            await house.add(WHEEL)
            stuck = tmp_path / WHEEL.filename
            if not call("chattr", "+i", stuck):
                pytest.skip("this file system knows no immutable files")
            try:
                with pytest.raises(Unavailable, match="not everything was deleted"):
                    await house.index.remove(DEMO, "1.0", ANONYMOUS)
                assert (await house.index.decide(DEMO)).origin is Origin.LOCAL
                assert await house.names() == [WHEEL.filename]
            finally:
                assert call("chattr", "-i", stuck)

    run(scenario())


def test_file_that_is_open_for_writing_is_not_listed(tmp_path: Path) -> None:
    """A file that ends as it should may still have holes while somebody writes it."""

    async def scenario() -> None:
        async with opened(tmp_path) as house:
            NEWER.write(tmp_path)
            await listed(house, NEWER.filename)
            with (tmp_path / WHEEL.filename).open("wb") as writer:
                writer.write(WHEEL.content)
                writer.flush()
                await house.index._holdings.compare(None)
                assert await house.names() == [NEWER.filename]
            await listed(house, WHEEL.filename, NEWER.filename)

    run(scenario())
