"""What the system tells of a package directory: names that come, go or are closed after writing, and nothing else."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from pypiserver_ng.index import watcher
from pypiserver_ng.index.inotify import Notices
from pypiserver_ng.index.watcher import Watcher
from tests.tools.house import NEWER, WHEEL, eventually, listed, opened, run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory behind a link, with a file, a directory of files, and one beside it to move things to."""
    (tmp_path / "real" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "real" / ".state").mkdir()
    (tmp_path / "beside").mkdir()
    for path in ("real/one.whl", "real/deep/two.whl", "real/deep/deeper/three.whl", "real/.state/four", "beside/five"):
        (tmp_path / path).write_bytes(b"1")
    (tmp_path / "root").symlink_to("real")
    return tmp_path / "root"


@pytest.fixture
def notices(root: Path) -> Iterator[Notices]:
    with closing(Notices([str(root)])) as opened:
        opened.watch()
        yield opened


def write(path: Path) -> None:
    path.write_bytes(b"2")


def overflow(root: Path) -> None:
    for _ in range(20_000):
        for name in ("one", "deep/two"):
            os.utime(root / f"{name}.whl")


QUIET: dict[str, Callable[[Path], object]] = {
    "a download": lambda root: (root / "deep" / "two.whl").read_bytes(),
    "a listing": lambda root: list(root.rglob("*")),
    "what the program keeps": lambda root: write(root / ".state" / "four"),
    "its new directories": lambda root: (root / ".other" / "more").mkdir(parents=True),
    "other rights": lambda root: (root / "deep").chmod(0o700),
    "a name that is no text": lambda root: write(Path(os.fsdecode(bytes(root) + b"/\xff.whl"))),
}
TOLD: dict[str, tuple[Callable[[Path], object], set[str] | None]] = {
    "a new file": (lambda root: write(root / "new.whl"), {"new.whl"}),
    "a changed file": (lambda root: write(root / "deep" / "two.whl"), {"deep/two.whl"}),
    "a deletion": (lambda root: (root / "one.whl").unlink(), {"one.whl"}),
    "a move": (lambda root: (root / "one.whl").rename(root / "deep" / "one.whl"), {"one.whl", "deep/one.whl"}),
    "a link": (lambda root: (root / "link.whl").symlink_to("one.whl"), {"link.whl"}),
    "a hard link": (lambda root: os.link(root / "one.whl", root / "hard.whl"), {"hard.whl"}),
    "another time": (lambda root: os.utime(root / "one.whl", (1, 1)), {"one.whl"}),
    "a new directory": (
        lambda root: shutil.copytree(root / "deep", root / "new"),
        {"new/two.whl", "new/deeper/three.whl"},
    ),
    "one that is moved in": (lambda root: (root.parent / "beside").rename(root / "in"), {"in/five"}),
    "one that is moved out": (lambda root: (root / "deep").rename(root.parent / "out"), None),
    "one that goes": (lambda root: shutil.rmtree(root / "deep"), None),
    "more than fits": (overflow, None),
}


@pytest.mark.parametrize("act", QUIET.values(), ids=QUIET)
def test_what_nobody_is_woken_for(root: Path, notices: Notices, act: Callable[[Path], object]) -> None:
    """Downloads open files, and the program writes beside them."""
    act(root)
    assert notices.read() == set()


def test_a_file_is_told_of_when_it_comes_and_when_it_was_closed(root: Path, notices: Notices) -> None:
    """Not at each write: a copy that takes long is one."""
    with (root / "new.whl").open("wb", buffering=0) as file:
        assert notices.read() == {f"{root}/new.whl"}
        for _ in range(3):
            file.write(b"more")
            assert notices.read() == set()
    assert notices.read() == {f"{root}/new.whl"}


@pytest.mark.parametrize(("act", "told"), TOLD.values(), ids=TOLD)
def test_what_is_told(root: Path, notices: Notices, act: Callable[[Path], object], told: set[str] | None) -> None:
    """Files by their paths; None where everything has to be compared. Whatever happened, what follows is told too."""
    act(root)
    changed = notices.read()
    assert changed == (None if told is None else {f"{root}/{path}" for path in told})
    (root / "last" / "of").mkdir(parents=True)
    notices.read()
    write(root / "last" / "of" / "all.whl")
    assert notices.read() == {f"{root}/last/of/all.whl"}


def test_a_directory_is_told_of_where_it_is_now(root: Path, notices: Notices) -> None:
    """Not where it was when it was first seen; nothing where it left what is served."""
    (root / "deep").rename(root / "new")
    notices.read()
    write(root / "new" / "deeper" / "three.whl")
    assert notices.read() == {f"{root}/new/deeper/three.whl"}
    (root / "new").rename(root.parent / "out")
    notices.read()
    write(root.parent / "out" / "deeper" / "three.whl")
    assert notices.read() == set()


def test_a_root_that_goes_ends_it(root: Path, notices: Notices) -> None:
    """Somebody has to begin anew when it is back."""
    root.resolve().rename(root.parent / "away")
    with pytest.raises(FileNotFoundError):
        notices.read()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every directory")
def test_a_directory_that_becomes_readable(root: Path) -> None:
    """Its files are told of, and what comes into it afterwards."""
    (root / "deep").chmod(0)
    with closing(Notices([str(root)])) as notices:
        notices.watch()
        (root / "deep").chmod(0o700)
        assert notices.read() == {f"{root}/deep/two.whl", f"{root}/deep/deeper/three.whl"}
        write(root / "deep" / "new.whl")
        assert notices.read() == {f"{root}/deep/new.whl"}


def test_everything_is_compared_when_the_system_tells_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody told of what changed meanwhile."""
    monkeypatch.setattr(watcher, "_RETRY_SECONDS", 0.05)
    # Comparing from time to time would hide it.
    monkeypatch.setattr(watcher, "_SCAN_SECONDS", (600.0, 600.0))
    compared: list[Sequence[tuple[str, str]] | None] = []

    async def compare(paths: Sequence[tuple[str, str]] | None) -> None:
        compared.append(paths)

    async def is_noticed() -> bool:
        write(root / "one.whl")
        return [(str(root), "one.whl")] in compared

    async def is_given_up() -> bool:
        return any("by comparing only" in message for message in caplog.messages)

    async def is_compared() -> bool:
        return None in compared

    async def scenario() -> None:
        watching = asyncio.create_task(Watcher([str(root)], compare).run(compare_first=False))
        await eventually(is_noticed)
        assert None not in compared
        (root.parent / "real").rename(root.parent / "away")
        await eventually(is_given_up)
        assert None not in compared
        (root.parent / "away").rename(root.parent / "real")
        await eventually(is_compared)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    run(scenario())


def test_a_directory_of_files_is_served_and_follows_its_moves(tmp_path: Path) -> None:
    """All the way to the page."""

    async def scenario() -> None:
        WHEEL.write(tmp_path / "beside")
        packages = tmp_path / "packages"
        packages.mkdir()
        async with opened(packages, state=tmp_path / "state") as house:
            (tmp_path / "beside").rename(packages / "in")
            await listed(house, WHEEL.filename)
            (packages / "in").rename(packages / "there")
            NEWER.write(packages / "there")
            await listed(house, WHEEL.filename, NEWER.filename)
            shutil.rmtree(packages / "there")

            async def is_gone() -> bool:
                return not await house.files()

            await eventually(is_gone)

    run(scenario())
