"""When a start reads the whole database: after an end that was none, after it was touched, and where it was damaged."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from pypiserver_ng.catalog import Catalog, Contents, Presence, database
from pypiserver_ng.errors import Invalid, Unavailable
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import Digests, NormalizedName

CONTENTS = Contents(Digests("a" * 64, "b" * 32, "c" * 64))
PROJECTS = 1000


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that the whole database was checked."""
    check, found = database._check, list[str]()

    def note(connection: Connection) -> None:
        found.append("a look")
        check(connection)

    monkeypatch.setattr(database, "_check", note)
    return found


@pytest.fixture
def state(tmp_path: Path, looks: list[str]) -> Iterator[Path]:
    """With a catalog that was left in order."""
    with closing(Catalog(tmp_path)) as catalog:
        fill(catalog)
    looks.clear()
    yield tmp_path
    with closing(Catalog(tmp_path)) as catalog:
        assert read_everything(catalog) == PROJECTS


def fill(catalog: Catalog) -> None:
    """As a scan does."""
    parsed = [parse_found(f"p{number}-1.0.zip") for number in range(PROJECTS)]
    catalog.sync([Presence("r", one.filename, one, 1, 1) for one in parsed if one], [])
    catalog.record([(known, CONTENTS) for known in catalog.unread(PROJECTS)])


def read_everything(catalog: Catalog) -> int:
    if not catalog.everything():
        fill(catalog)
    return len(catalog.everything())


def lose_pages(state: Path) -> None:
    """As a disk does, which tells nobody."""
    path = state / "catalog.sqlite"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        file.write(random.Random(1).randbytes(before.st_size // 2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_left_in_order_is_not_read(state: Path, looks: list[str]) -> None:
    """However often, and whoever was the last of several."""
    for _ in range(2):
        first, second = Catalog(state), Catalog(state)
        first.yank(NormalizedName("p1"), "1.0", None, None)
        first.close()
        second.unyank(NormalizedName("p1"), "1.0", None)
        second.close()
    assert looks == []


def end_at_once(state: Path) -> None:
    code = "from pypiserver_ng.catalog import Catalog; Catalog(pathlib.Path(sys.argv[1])); os._exit(9)"
    code = f"import os, pathlib, sys; {code}"
    assert subprocess.run([sys.executable, "-c", code, str(state)], check=False).returncode == 9


def copy(state: Path) -> None:
    path = state / "catalog.sqlite"
    path.write_bytes(path.read_bytes())


def cut_the_mark(state: Path) -> None:
    (mark,) = state.glob("*.in-order")
    mark.write_text(mark.read_text()[:5])


@pytest.mark.parametrize("harm", (end_at_once, copy, cut_the_mark))
def test_what_may_be_out_of_order_is_read(state: Path, looks: list[str], harm: Callable[[Path], None]) -> None:
    """Once: the next end is in order again."""
    harm(state)
    for _ in range(2):
        with closing(Catalog(state)):
            pass
    assert looks == ["a look"]


def test_damage_that_a_question_meets_is_mended_by_the_next_start(state: Path, looks: list[str]) -> None:
    """Also where another process, which did not meet it, is the last to leave."""
    lose_pages(state)
    first, second = Catalog(state), Catalog(state)
    with pytest.raises(Unavailable):
        first.everything()
    first.close()
    second.close()
    assert looks == []
    with closing(Catalog(state)) as catalog:
        assert read_everything(catalog) == PROJECTS
    assert (looks, len(list(state.glob("catalog.sqlite.damaged-*")))) == (["a look"], 1)


def test_who_joins_does_not_look(state: Path, looks: list[str]) -> None:
    """The first of them did; where there is no database at all any more, it says so."""
    end_at_once(state)
    with closing(Catalog(state)):
        with closing(Catalog(state)):
            assert looks == ["a look"]
        content = (state / "catalog.sqlite").read_bytes()
        (state / "catalog.sqlite").write_bytes(b"x" * len(content))
        with pytest.raises(Invalid, match="stop the server that uses it"):
            Catalog(state)
        (state / "catalog.sqlite").write_bytes(content)
