"""What commands learn of the directories before they act: of what they name, whether a server watches or not."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.errors import NotFound
from pypiserver_ng.index.curation import Curator
from pypiserver_ng.index.reading import Reader
from pypiserver_ng.index.store import Store, open_store
from pypiserver_ng.storage import Directory
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.house import DEMO, NEWER, SDIST, WHEEL

OTHER = build_wheel("demo-tools", "1.0")


@pytest.fixture
def store(packages: Path, tmp_path: Path) -> Iterator[Store]:
    with closing(open_store([packages], tmp_path / "state", is_server=False)) as opened:
        yield opened


@pytest.fixture
def curator(store: Store) -> Iterator[Curator]:
    with closing(Inspector()) as inspector:
        yield Curator(store, Reader(store.directory, store.metadata, inspector, started=0.0))


def list_known(store: Store) -> list[str]:
    return sorted(known.presence.path for known in store.catalog.everything())


def refuse(*_: object) -> None:
    raise AssertionError("everything was looked through")


def test_what_is_known_is_not_looked_for(
    store: Store, curator: Curator, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much lies beside it; of the project itself, what went and what changed is noticed."""
    for built in (WHEEL, SDIST, NEWER, OTHER):
        built.write(packages)
    curator.scan()
    for name in ("names", "walk"):
        monkeypatch.setattr(Directory, name, refuse)
    (packages / SDIST.filename).unlink()
    (packages / OTHER.filename).unlink()
    for version in ("1.0", "2", None):
        curator.learn(DEMO, version)
    assert list_known(store) == sorted([WHEEL.filename, NEWER.filename, OTHER.filename])


def test_what_nobody_recorded_is_found(store: Store, curator: Curator, packages: Path) -> None:
    """A release, or a project, that came while no server ran; nothing else is recorded for it."""
    WHEEL.write(packages)
    curator.scan()
    NEWER.write(packages / "deep")
    OTHER.write(packages)
    curator.learn(DEMO, "1.0")
    assert list_known(store) == [WHEEL.filename]
    curator.learn(DEMO, "2.0")
    assert list_known(store) == [f"deep/{NEWER.filename}", WHEEL.filename]
    curator.yank(DEMO, "2.0", None, None)
    curator.learn(DEMO, "3.0")
    with pytest.raises(NotFound, match=r"newest versions are 2\.0, 1\.0"):
        curator.yank(DEMO, "3.0", None, None)


def test_a_release_that_was_moved_is_still_here(store: Store, curator: Curator, packages: Path) -> None:
    """All that is known of its project lies elsewhere now."""
    path = WHEEL.write(packages)
    curator.scan()
    (packages / "new").mkdir()
    path.rename(packages / "new" / path.name)
    curator.learn(DEMO, "1.0")
    assert list_known(store) == [f"new/{WHEEL.filename}"]


def test_a_deletion_takes_files_that_nobody_recorded(store: Store, curator: Curator, packages: Path) -> None:
    """However their names are spelled: what is left would come to light at the next start."""
    spelled = build_sdist("demo", "1.0").content
    WHEEL.write(packages)
    curator.scan()
    for name in ("Demo-1.0.zip", "demo-1.0.tar.gz.asc", "demo-tools-1.0.tar.gz", "DEMO-1.0.tar.gz"):
        (packages / name).write_bytes(spelled)
    curator.learn_all(DEMO)
    gone = {file.path for file in curator.delete(DEMO, "1.0", None)}
    assert gone == {WHEEL.filename, "Demo-1.0.zip", "demo-1.0.tar.gz.asc", "DEMO-1.0.tar.gz"}
    assert [path.name for path in packages.iterdir() if path.suffix] == ["demo-tools-1.0.tar.gz"]
