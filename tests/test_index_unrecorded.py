"""Files that are here and have no row: kept in mind, each once, and for as long as that is so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pypiserver_ng.catalog import Catalog, Presence
from pypiserver_ng.errors import NoSpace
from pypiserver_ng.index import tree
from pypiserver_ng.index.tree import Tree
from pypiserver_ng.storage import Directory, SharedLock
from tests.tools.distributions import build_sdist
from tests.tools.house import DEMO, SDIST, WHEEL, listed, opened, run


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    (tmp_path / "state").mkdir()
    catalog = Catalog(tmp_path / "state")
    yield catalog
    catalog.close()


@pytest.fixture
def trees(catalog: Catalog, packages: Path, tmp_path: Path) -> Iterator[Tree]:
    lock = SharedLock(tmp_path / "state" / "tree.lock")
    yield Tree(catalog, Directory([packages], tmp_path / "state"), lock, is_server=True)
    lock.close()


def refuse(*_: object) -> None:
    raise NoSpace("the disk is full")


def test_one_that_cannot_be_recorded_counts_once(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is found."""

    async def scenario() -> None:
        async with opened(packages) as house:
            with monkeypatch.context() as patch:
                patch.setattr(house.catalog, "sync", refuse)
                WHEEL.write(packages)
                for _ in range(3):
                    with pytest.raises(NoSpace):
                        await house.index.change(house.index._tree.scan)
                assert await house.index.counts() == (1, 1)
            await listed(house, WHEEL.filename)
            assert await house.index.counts() == (1, 1)

    run(scenario())


def test_an_old_note_takes_no_project_upstream(
    catalog: Catalog, trees: Tree, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a file was recorded once is nothing to go by when its row went and it cannot be recorded again."""
    for number in range(40):
        build_sdist(f"other{number}", "1.0").write(packages)
    trees.list_names()
    key = (str(packages), WHEEL.write(packages).name)
    # Recorded, and noted: with so many that are not, there is no hurry to forget what was noted.
    assert trees.look([key])
    # Another process saw it gone, and back again.
    catalog.sync([], [catalog.stamps([key])[key][0]])
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "sync", refuse)
        with pytest.raises(NoSpace):
            trees.look([key])
    for number in range(4):
        assert DEMO in trees.unrecorded
        assert trees.look([(str(packages), build_sdist(f"more{number}", "1.0").write(packages).name)])
    assert DEMO in trees.unrecorded


def test_what_is_recorded_of_a_project_is_not_all_of_it(
    catalog: Catalog, trees: Tree, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other files are kept in mind, so that it is local whatever happens to the one."""
    WHEEL.write(packages)
    SDIST.write(packages)
    trees.list_names()
    monkeypatch.setattr(tree, "_MOST_AT_ONCE", 1)
    sync = catalog.sync

    kept = {DEMO: [(str(packages), SDIST.filename)]}

    def fail_for_sdists(found: list[Presence], gone: list[int]) -> None:
        if found[0].path == SDIST.filename:
            assert trees.unrecorded == kept
            refuse()
        sync(found, gone)

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "sync", fail_for_sdists)
        with pytest.raises(NoSpace):
            trees.scan()
    assert {name: list(keys) for name, keys in trees.unrecorded.items()} == kept
    trees.record(DEMO)
    assert trees.unrecorded == {}
