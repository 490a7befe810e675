"""What only the catalog knows outlives its database: deleted, damaged, or older than its journal."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pypiserver_ng.catalog import Arrival, Catalog, Contents, Presence
from pypiserver_ng.errors import Invalid
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import Digests, NormalizedName, Status
from tests.tools.catalogs import add_upload, tombstone

DEMO = NormalizedName("demo")
CONTENTS = Contents(Digests("a" * 64, "b" * 32, "c" * 64))
MTIME = 1_704_164_645_678_901_000
PROVENANCE = b'{"version":1}'


@contextmanager
def opened(state: Path) -> Iterator[Catalog]:
    catalog = Catalog(state)
    try:
        yield catalog
    finally:
        catalog.close()


def presence(filename: str, **changes: Any) -> Presence:
    parsed = parse_found(filename)
    assert parsed is not None
    return replace(Presence("r", filename, parsed, 1, MTIME), **changes)


def fill(catalog: Catalog) -> None:
    """One of everything that only the catalog knows."""
    for filename in ("demo-1.0.tar.gz", "demo-2.0.tar.gz", "old-1.0.tar.gz"):
        add_upload(catalog, presence(filename), CONTENTS, "alice", provenance=PROVENANCE)
    catalog.yank(DEMO, "1.0", "broken", "bob")
    catalog.yank(DEMO, "2.0", None, None)
    catalog.unyank(DEMO, "2.0", None)
    catalog.set_status(DEMO, Status.DEPRECATED, "old", None)
    catalog.set_status(NormalizedName("evil"), Status.QUARANTINED, None, None)
    catalog.remove([known.file for known in catalog.project_rows(NormalizedName("old")).known if known.file], "carol")
    catalog.finish_removal(catalog.doomed(), [], "carol")


def find_again(catalog: Catalog) -> None:
    """What a start does: the files are still in the directory, their times were changed."""
    catalog.sync([presence("demo-1.0.tar.gz", mtime_ns=5), presence("demo-2.0.tar.gz", mtime_ns=5)], [])
    catalog.record([(known, CONTENTS) for known in catalog.unread(9)])


def assert_known(catalog: Catalog) -> None:
    """Everything that `fill` did."""
    rows = catalog.project_rows(DEMO)
    assert (rows.status, rows.status_reason) == (Status.DEPRECATED, "old")
    files = [known.file for known in rows.known if known.file]
    assert [(file.version, file.yanked, file.yanked_reason) for file in files] == [
        ("1.0", True, "broken"),
        ("2.0", False, None),
    ]
    assert {file.upload_time.timestamp() for file in files} == {MTIME // 1000 / 10**6}
    assert {file.has_provenance for file in files} == {True}
    assert catalog.provenance("demo-1.0.tar.gz", "a" * 64) == PROVENANCE
    assert tombstone(catalog, "old-1.0.tar.gz") == "a" * 64
    assert catalog.status(NormalizedName("evil")) == (Status.QUARANTINED, None)


def read_journal(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "journal.jsonl").read_bytes().splitlines()]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that knows one of everything."""
    with opened(tmp_path) as catalog:
        fill(catalog)
    return tmp_path


def test_every_event_is_a_line(state: Path) -> None:
    """Who did what, in the order in which it was committed."""
    lines = read_journal(state)
    assert [line["id"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["action"] for line in lines] == [
        *["upload"] * 3,
        *["yank"] * 2,
        "unyank",
        *["status"] * 2,
        "delete",
    ]
    assert [line.get("user") for line in lines[:4]] == ["alice", "alice", "alice", "bob"]
    assert (lines[3]["project"], lines[3]["version"], lines[3]["reason"]) == ("demo", "1.0", "broken")
    assert lines[-1] | {"time": 0} == {
        "id": 9,
        "time": 0,
        "action": "delete",
        "project": "old",
        "user": "carol",
        "version": "1.0",
        "filename": "old-1.0.tar.gz",
        "sha256": "a" * 64,
    }


def test_from_where_it_was_done(tmp_path: Path) -> None:
    """An address is in the catalog and in the journal, and comes back; older lines have none."""
    found = presence("demo-1.0.tar.gz")
    with opened(tmp_path) as catalog:
        arrivals = [Arrival(found, CONTENTS, "alice", None, "192.0.2.1")]
        assert catalog.add_uploads(arrivals) == [None]
        catalog.add_provenance(found.parsed, "a" * 64, PROVENANCE, "bob", "192.0.2.2")
        catalog.yank(DEMO, "1.0", None, "owner")
        files = [known.file for known in catalog.project_rows(DEMO).known if known.file]
        catalog.remove(files, "carol", "2001:db8::1")
        catalog.finish_removal(catalog.doomed(), [], "carol", "2001:db8::1")
        history = list(catalog.history())
    (tmp_path / "catalog.sqlite").unlink()
    addresses = ["192.0.2.1", "192.0.2.2", None, "2001:db8::1", "2001:db8::1"]
    assert [event.address for event in history] == addresses
    assert [line.get("address") for line in read_journal(tmp_path)] == addresses
    with opened(tmp_path) as catalog:
        assert list(catalog.history()) == history
        assert list(catalog.history(3)) == history[3:]


def test_a_long_history_is_read_in_parts(tmp_path: Path) -> None:
    """Each event once, in order."""
    with opened(tmp_path) as catalog:
        for number in range(450):
            catalog.set_status(DEMO, Status.QUARANTINED, str(number), None)
        assert [event.reason for event in catalog.history()] == [str(number) for number in range(450)]


def delete_it(path: Path, _: bytes) -> None:
    path.unlink()


def empty_it(path: Path, _: bytes) -> None:
    path.write_bytes(b"")


def cut_it(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])


def overwrite_its_head(path: Path, content: bytes) -> None:
    path.write_bytes(b"x" * 100 + content[100:])


def overwrite_it(path: Path, content: bytes) -> None:
    path.write_bytes(random.Random(1).randbytes(len(content)))


def overwrite_a_page(path: Path, content: bytes) -> None:
    path.write_bytes(content[:4096] + random.Random(1).randbytes(4096) + content[8192:])


@pytest.mark.parametrize("harm", (delete_it, empty_it, cut_it, overwrite_its_head, overwrite_it, overwrite_a_page))
def test_a_lost_database_is_made_again(state: Path, harm: Any) -> None:
    """From the journal at once, from the directory as its files are found; no serial comes twice."""
    with opened(state) as catalog:
        serial = catalog.serial()
    path = state / "catalog.sqlite"
    harm(path, path.read_bytes())
    for _ in range(2):
        with opened(state) as catalog:
            find_again(catalog)
            assert_known(catalog)
            assert catalog.serial() > serial
    assert len(read_journal(state)) == 9


def test_an_older_database_catches_up(state: Path) -> None:
    """Somebody restored a backup of it: what happened since is in the journal."""
    shutil.copy(state / "catalog.sqlite", state / "backup")
    with opened(state) as catalog:
        catalog.yank(DEMO, "2.0", "too", None)
        catalog.set_status(DEMO, Status.ARCHIVED, None, None)
        serial = catalog.serial()
    (state / "backup").replace(state / "catalog.sqlite")
    with opened(state) as catalog:
        rows = catalog.project_rows(DEMO)
        assert [known.file.yanked_reason for known in rows.known if known.file] == ["broken", "too"]
        assert rows.status is Status.ARCHIVED
        assert rows.serial == catalog.serial() == catalog.shared.value > serial
        catalog.unyank(DEMO, "2.0", None)
    assert [line["id"] for line in read_journal(state)] == list(range(1, 13))


def test_a_lost_journal_is_written_again(state: Path) -> None:
    """The database has every event too."""
    lines = read_journal(state)
    (state / "journal.jsonl").unlink()
    with opened(state) as catalog:
        written = read_journal(state)
        catalog.set_status(DEMO, Status.ACTIVE, None, None)
    assert written == lines
    assert len(read_journal(state)) == 10


def test_a_line_that_was_cut_off_is_removed(state: Path) -> None:
    """A crash in the middle of it: nobody was told that it happened, or the database has it."""
    path = state / "journal.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with opened(state):
        pass
    assert path.read_bytes() == content


#: Lines in the form of events that no catalog wrote.
HOSTILE = (
    b'{"id":100,"time":1,"action":"upload","project":"demo"}\n',
    b'{"id":101,"time":1,"action":"upload","project":"demo","filename":"demo-3.0.tar.gz","upload_time":1}\n',
    b'{"id":102,"time":1,"action":"delete","project":"demo","sha256":"a"}\n',
    b'{"id":103,"time":1,"action":"yank","project":"demo"}\n',
    b'{"id":104,"time":1,"action":"status","project":"demo"}\n',
    b'{"id":105,"time":1,"action":"status","project":"demo","status":"bogus"}\n',
    b'{"id":-5,"time":1,"action":"unyank","project":"demo","version":"1.0"}\n',
    b'{"id":0,"time":1,"action":"unyank","project":"demo","version":"1.0"}\n',
    b'{"id":9223372036854775808,"time":1,"action":"unyank","project":"demo","version":"1.0"}\n',
    b'{"id":106,"time":18446744073709551615,"action":"unyank","project":"demo","version":"1.0"}\n',
    b'{"id":107,"time":-1,"action":"unyank","project":"demo","version":"1.0"}\n',
    b'{"id":108,"time":1,"action":"unyank","project":"demo","version":{}}\n',
    b'{"id":109,"a":' + b"[" * 200_000 + b"\n",
)


def test_lines_that_are_none_are_left_out(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And named; all others count."""
    path = state / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1:1] = [b"garbage\n", b"{}\n", b'{"id":1,"time":1,"action":"explode","project":"demo"}\n', b"\xff\n", b"\n"]
    path.write_bytes(b"".join([*lines, *HOSTILE]))
    (state / "catalog.sqlite").unlink()
    with opened(state) as catalog:
        find_again(catalog)
        assert_known(catalog)
    assert [f"line {number} of " in caplog.text for number in range(1, 8)] == [False, *[True] * 5, False]
    assert caplog.text.count(" is left out: ") == 5 + len(HOSTILE)
    assert not list(state.glob("*.damaged*"))


def test_a_line_with_a_number_that_nobody_counted(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What happens afterwards is written down all the same, and the next start takes up both."""
    with opened(state) as catalog, (state / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"id":999999,"time":1,"action":"status","project":"far","status":"quarantined"}\n')
        journal.flush()
        catalog.yank(DEMO, "2.0", "late", None)
        catalog.set_status(DEMO, Status.ARCHIVED, None, None)
        assert "events after number 10 that the catalog does not know" in caplog.text
    assert [line["id"] for line in read_journal(state)[9:]] == [999999, 10, 11]
    for lost in (False, True):
        if lost:
            (state / "catalog.sqlite").unlink()
        with opened(state) as catalog:
            find_again(catalog)
            files = [known.file for known in catalog.project_rows(DEMO).known]
            assert [file.yanked_reason for file in files if file] == ["broken", "late"]
            assert catalog.status(DEMO)[0] is Status.ARCHIVED
            assert catalog.status(NormalizedName("far"))[0] is Status.QUARANTINED
    with opened(state) as catalog:
        catalog.set_status(DEMO, Status.ACTIVE, None, None)
    assert [line["id"] for line in read_journal(state)[12:]] == [1_000_000]


def test_a_damaged_database_is_kept(state: Path) -> None:
    """Each of them: the next start must not put an empty one in its place."""
    for _ in range(2):
        (state / "catalog.sqlite").write_bytes(b"x" * 5000)
        with opened(state):
            pass
    assert [path.read_bytes() for path in state.glob("catalog.sqlite.damaged-*")] == [b"x" * 5000] * 2


def test_a_journal_that_is_no_file(tmp_path: Path) -> None:
    """A pipe would take every line and keep none."""
    os.mkfifo(tmp_path / "journal.jsonl")
    with pytest.raises(OSError, match="not a regular file"):
        Catalog(tmp_path)


@pytest.mark.parametrize("harm", (delete_it, empty_it, overwrite_it))
def test_nobody_makes_a_new_one_under_a_running_server(state: Path, harm: Any) -> None:
    """Its changes would go where nobody looks: a command says what to do."""
    path = state / "catalog.sqlite"
    with opened(state):
        harm(path, path.read_bytes())
        with pytest.raises(Invalid, match=r"removed under a running server|stop the server"):
            Catalog(state)
    with opened(state) as catalog:
        find_again(catalog)
        assert_known(catalog)


def test_processes_share_one_journal(state: Path) -> None:
    """Every event of each is in it once, in the database's order."""
    script = (
        "import sys; from pathlib import Path; from pypiserver_ng.catalog import Catalog\n"
        "from pypiserver_ng.model import NormalizedName, Status\n"
        "catalog = Catalog(Path(sys.argv[1]))\n"
        "name = NormalizedName(sys.argv[2])\n"
        "for number in range(40): catalog.set_status(name, Status.QUARANTINED, str(number), None)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(state), f"p{number}"]) for number in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = read_journal(state)
    assert [line["id"] for line in lines] == list(range(1, 130))
    for number in range(3):
        reasons = [line["reason"] for line in lines if line["project"] == f"p{number}"]
        assert reasons == [str(count) for count in range(40)]


def test_a_journal_that_cannot_be_written_is_caught_up(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was committed is true; the next change brings the journal up to it."""
    with opened(state) as catalog:
        journal = catalog._database._journal
        fd = journal._fd
        journal._fd = os.open(state / "journal.jsonl", os.O_RDONLY)
        catalog.yank(DEMO, "2.0", "late", None)
        os.close(journal._fd)
        journal._fd = fd
        assert len(read_journal(state)) == 9
        assert "cannot be written to the journal" in caplog.text
        catalog.set_status(DEMO, Status.ACTIVE, None, None)
    assert [line["action"] for line in read_journal(state)[9:]] == ["yank", "status"]
