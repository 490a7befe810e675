"""What is known: files by project, serials that rise with every change, names that were deleted."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pypiserver_ng.catalog import Arrival, Catalog, Change, Contents, Presence, Rows, finding
from pypiserver_ng.catalog.rows import from_microseconds, to_microseconds
from pypiserver_ng.errors import Denied
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import Digests, File, NormalizedName, Status
from tests.tools.catalogs import add_upload, tombstone

NOW = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
#: NOW in nanoseconds since 1970.
MTIME = 1_704_164_645_678_901_000
DEMO = NormalizedName("demo")
CONTENTS = Contents(
    Digests("a" * 64, "b" * 32, "c" * 64), requires_python=">=3.8", summary="Alpha Tool", metadata_sha256="d" * 64
)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(tmp_path)
    yield opened
    opened.close()


def presence(path: str, *, root: str = "r", size: int = 1, mtime_ns: int = MTIME) -> Presence:
    parsed = parse_found(path.rpartition("/")[2])
    assert parsed is not None
    return Presence(root, path, parsed, size, mtime_ns)


def add(catalog: Catalog, *paths: str) -> None:
    for path in paths:
        add_upload(catalog, presence(path), CONTENTS, "alice")


def read_files(catalog: Catalog, name: NormalizedName = DEMO) -> list[File]:
    return [known.file for known in catalog.project_rows(name).known if known.file]


# What goes in comes out.


def test_an_upload_is_known_whole(catalog: Catalog) -> None:
    """Every fact of it, at once."""
    add(catalog, "demo-1.0.tar.gz")
    (file,) = read_files(catalog)
    assert (file.root, file.path, file.filename, file.project) == ("r", "demo-1.0.tar.gz", "demo-1.0.tar.gz", "demo")
    assert (file.version, file.size, file.mtime_ns, file.upload_time) == ("1.0", 1, MTIME, NOW)
    facts = (file.digests, file.requires_python, file.summary, file.metadata_sha256)
    assert facts == (CONTENTS.digests, ">=3.8", "Alpha Tool", "d" * 64)
    assert (file.yanked, file.yanked_reason, file.has_provenance) == (False, None, False)


def test_a_found_file_is_listed_once_it_was_read(catalog: Catalog) -> None:
    """Until then it is a row without a file; its upload time is when it was last written."""
    catalog.sync([presence("demo-1.0.tar.gz", mtime_ns=1_700_000_000_123_456_789)], [])
    (known,) = catalog.unread(10)
    assert (known.file, read_files(catalog)) == (None, [])
    catalog.record([(known, CONTENTS)])
    (file,) = read_files(catalog)
    assert file.upload_time == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert (file.digests, catalog.unread(10)) == (CONTENTS.digests, [])


def test_a_changed_file_has_to_be_read_again(catalog: Catalog) -> None:
    """An unchanged one has not; what was read of the old bytes is not recorded for the new."""
    found = presence("demo-1.0.tar.gz")
    catalog.sync([found], [])
    (known,) = catalog.unread(10)
    catalog.record([(known, CONTENTS)])
    catalog.sync([found], [])
    assert catalog.unread(10) == []
    catalog.sync([replace(found, size=2)], [])
    catalog.record([(known, CONTENTS)])
    assert [row.presence.size for row in catalog.unread(10)] == [2]


def test_what_was_read_of_a_file_is_not_recorded_for_its_successor(catalog: Catalog) -> None:
    """Not even where the two have size and time in common, as reproducible builds do."""
    catalog.sync([presence("demo-1.0.tar.gz")], [])
    (known,) = catalog.unread(10)
    catalog.sync([], [known.id])
    catalog.sync([presence("demo-2.0.tar.gz")], [])
    catalog.record([(known, CONTENTS)])
    assert read_files(catalog) == []


def test_a_scan_does_not_undo_an_upload(catalog: Catalog) -> None:
    """It saw the file after it was published and before it was recorded, or the other way round."""
    found = presence("demo-1.0.tar.gz")
    for _ in range(2):
        catalog.sync([found], [])
        add_upload(catalog, found, CONTENTS, None)
    catalog.sync([found], [])
    (file,) = read_files(catalog)
    assert (file.digests, file.upload_time) == (CONTENTS.digests, NOW)


MOMENTS = (NOW, datetime(1970, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))


@pytest.mark.parametrize("moment", MOMENTS)
def test_moments_survive(moment: datetime) -> None:
    """To the microsecond, without a float on the way."""
    assert from_microseconds(to_microseconds(moment)) == moment


# Serials.


def test_every_change_has_a_serial_of_its_own(catalog: Catalog) -> None:
    """Readers learn which projects changed since a serial, each once; a project without files stays to say so."""
    add(catalog, "demo-1.0.tar.gz", "other-1.0.zip", "demo-2.0.tar.gz")
    assert catalog.serial() == catalog.shared.value == 3
    changes = sorted(catalog.changes_since(0), key=lambda change: change.name)
    assert changes == [Change(DEMO, 3, 2), Change(NormalizedName("other"), 2, 1)]
    assert catalog.changes_since(3) == []
    catalog.remove(read_files(catalog), None)
    assert catalog.changes_since(3) == [Change(DEMO, 4, 0)]
    assert catalog.project_rows(DEMO) == Rows(4, Status.ACTIVE, None, [])


def test_nothing_changed(catalog: Catalog) -> None:
    """A scan that found nothing new costs no serial."""
    catalog.sync([], [])
    assert catalog.serial() == 0


def test_a_failed_change_leaves_nothing(catalog: Catalog) -> None:
    """Neither a row nor a serial."""
    add(catalog, "demo-1.0.tar.gz")
    with pytest.raises(Exception, match="surrogates"):
        catalog.sync([presence("fine-1.0.zip"), presence("\udcff/other-1.0.zip")], [])
    assert catalog.serial() == catalog.shared.value == 1
    assert [change.name for change in catalog.changes_since(0)] == ["demo"]
    add(catalog, "demo-2.0.tar.gz")
    assert catalog.shared.value == 2


def test_writers_from_several_threads(catalog: Catalog) -> None:
    """None is lost, and no serial is given twice."""
    threads = [
        threading.Thread(target=add, args=(catalog, *(f"p{number}-{minor}.zip" for minor in range(5))))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalog.serial() == catalog.shared.value == 20
    assert sum(change.files for change in catalog.changes_since(0)) == 20


def test_two_processes_share_a_serial(catalog: Catalog, tmp_path: Path) -> None:
    """What one commits, the other sees in memory."""
    other = Catalog(tmp_path)
    add(catalog, "demo-1.0.tar.gz")
    assert other.shared.value == 1
    add(other, "demo-2.0.tar.gz")
    assert catalog.shared.value == 2
    assert len(read_files(catalog)) == 2
    other.close()


def test_a_catalog_that_is_older_than_its_counter(tmp_path: Path) -> None:
    """Removed or restored from a backup beside the old counter: changes still show in it."""
    first = Catalog(tmp_path)
    add(first, *(f"demo-{number}.0.tar.gz" for number in range(5)))
    first.close()
    (tmp_path / "catalog.sqlite").unlink()
    second = Catalog(tmp_path)
    before = second.shared.value
    add(second, "demo-9.0.tar.gz")
    assert second.shared.value != before
    second.close()


def test_an_older_catalog_under_a_running_server(tmp_path: Path) -> None:
    """Copied over the one that is in use: whatever changes afterwards is followed at once."""
    catalog = Catalog(tmp_path)
    add(catalog, "demo-1.0.tar.gz")
    older = (tmp_path / "catalog.sqlite").read_bytes()
    add(catalog, *(f"demo-{number}.0.tar.gz" for number in range(2, 6)))
    followed = catalog.shared.value
    (tmp_path / "catalog.sqlite").write_bytes(older)
    add(catalog, "late-1.0.tar.gz")
    assert catalog.shared.value == catalog.serial() == followed + 1
    assert [change.name for change in catalog.changes_since(followed)] == ["late"]
    catalog.close()


def test_a_catalog_is_kept(tmp_path: Path) -> None:
    """Closed and opened again, also where the path holds what a URL would not."""
    for name in ("state", "what?mode=memory", "100%25"):
        state = tmp_path / name
        state.mkdir()
        for path in ("demo-1.0.tar.gz", "demo-2.0.tar.gz"):
            catalog = Catalog(state)
            add(catalog, path)
            catalog.close()
        catalog = Catalog(state)
        assert len(read_files(catalog)) == catalog.shared.value == 2
        assert {"catalog.sqlite", "serial"} <= {path.name for path in state.iterdir()}
        catalog.close()


# Deleted names.


def test_a_deleted_name_is_remembered(catalog: Catalog) -> None:
    """By the hash it had, until the same file comes back."""
    add(catalog, "demo-1.0.tar.gz", "demo-2.0.tar.gz")
    catalog.remove(read_files(catalog)[:1], None)
    assert tombstone(catalog, "demo-1.0.tar.gz") == "a" * 64
    assert tombstone(catalog, "demo-2.0.tar.gz") is None
    assert [file.filename for file in read_files(catalog)] == ["demo-2.0.tar.gz"]
    add(catalog, "demo-1.0.tar.gz")
    assert tombstone(catalog, "demo-1.0.tar.gz") is None


def test_a_file_that_vanished_is_not_buried(catalog: Catalog) -> None:
    """Its owner took it away by hand and may put it back changed."""
    add(catalog, "demo-1.0.tar.gz")
    catalog.sync([], [file.id for file in read_files(catalog)])
    assert (read_files(catalog), tombstone(catalog, "demo-1.0.tar.gz")) == ([], None)


# Many.


def test_more_files_than_a_statement_takes(catalog: Catalog) -> None:
    """A large directory comes and goes in one scan."""
    found = [presence(f"p{number}-1.0.zip") for number in range(3000)]
    catalog.sync(found, [])
    assert len(catalog.changes_since(0)) == len(catalog.unread(5000)) == 3000
    catalog.sync([], [known.id for known in catalog.unread(5000)])
    assert [change for change in catalog.changes_since(0) if change.files] == []


def test_changes_do_not_wait_for_who_reads_everything(catalog: Catalog) -> None:
    """Who goes through all metadata holds nobody up, and misses none that was there before."""
    paths = [f"demo-{number}-py3-none-any.whl" for number in range(4500)]
    arrivals = [Arrival(presence(path), replace(CONTENTS, metadata_sha256=path), None) for path in paths]
    assert set(catalog.add_uploads(arrivals)) == {None}
    digests = catalog.metadata_digests()
    first = next(digests)
    catalog.yank(DEMO, "4499", None, None)
    catalog.remove([file for file in read_files(catalog) if file.version == "4499"], None)
    assert {first, *digests} == set(paths[:-1])


# Searching.

SEARCHES: tuple[tuple[list[str], list[str]], ...] = (
    ([], ["demo", "other"]),
    (["dem"], ["demo"]),
    (["alpha tool"], ["demo", "other"]),
    (["OTHER".lower(), "nothing"], ["other"]),
    (["%"], []),
    (["_"], []),
)


def search(catalog: Catalog, terms: list[str]) -> list[str]:
    return [found.name for found in catalog.found(catalog.search(terms), terms)]


@pytest.mark.parametrize(("terms", "names"), SEARCHES)
def test_a_search(catalog: Catalog, terms: list[str], names: list[str]) -> None:
    """One of the terms in the name or the summary, taken literally."""
    add(catalog, "demo-1.0.tar.gz", "other-1.0.zip")
    assert search(catalog, terms) == names


def test_what_is_not_here_is_not_found(catalog: Catalog) -> None:
    """Neither by a word that only a version had that went, nor once all are gone; every spelling of a word counts."""
    for version, summary in (("1.0", "Größte Zahl"), ("2.0", "Other")):
        add_upload(catalog, presence(f"De.mo-{version}.zip"), replace(CONTENTS, summary=summary), None)
    name = NormalizedName("de-mo")
    for term in ("größte", "de.mo", "de-mo", "other"):
        assert set(search(catalog, [term])) == {name}
    catalog.remove([file for file in read_files(catalog, name) if file.version == "1.0"], None)
    assert (search(catalog, ["größte"]), search(catalog, ["other"])) == ([], [name])
    catalog.sync([], [file.id for file in read_files(catalog, name)])
    assert (catalog.search(["other"]), catalog.search([])) == ([], [])


def test_a_file_that_was_copied_in_is_found_once_it_was_read(catalog: Catalog) -> None:
    """And by what it says when it is read again."""
    catalog.sync([presence("demo-1.0.zip")], [])
    assert search(catalog, []) == []
    catalog.record([(known, CONTENTS) for known in catalog.unread(1)])
    assert search(catalog, ["alpha"]) == ["demo"]
    catalog.record([(known, replace(CONTENTS, summary="Beta")) for known in catalog.everything()], again=True)
    assert (search(catalog, ["alpha"]), search(catalog, ["beta"])) == ([], ["demo"])


def test_finding_looks_at_few_rows(catalog: Catalog) -> None:
    """The newest by their index, words in their own table, and files of the projects that have them."""
    with catalog._database.reading() as connection:
        asked: list[str] = []
        connection.connection.set_trace_callback(asked.append)
        finding.read_newest(connection, 5)
        finding.read_found(connection, finding.find_names(connection, ["alpha"]), ["alpha"])
        connection.connection.set_trace_callback(None)
        plans = [row.detail for query in asked for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
    looks = [plan for plan in plans if "files" in plan]
    assert len(looks) == 2
    assert "SCAN files USING INDEX files_newest" in looks
    assert all(plan.startswith("SEARCH") or "files_newest" in plan for plan in looks)


def test_the_newest_first(catalog: Catalog) -> None:
    """By upload time."""
    for number, path in enumerate(("demo-1.0.tar.gz", "other-1.0.zip", "third-1.0.zip")):
        add_upload(catalog, presence(path, mtime_ns=MTIME + number % 2 * 10**9), CONTENTS, None)
    assert catalog.recent(1)[0].name == "other"


def test_uploads_that_are_recorded_together(catalog: Catalog) -> None:
    """One serial for all; who is refused is told in turn, and costs nobody else."""
    catalog.set_status(NormalizedName("evil"), Status.QUARANTINED, None, None)
    before = catalog.serial()
    found = [presence(path) for path in ("demo-1.0.zip", "evil-1.0.zip", "other-1.0.zip", "demo-2.0.zip")]
    refusals = catalog.add_uploads([Arrival(one, CONTENTS, "alice") for one in found])
    assert [type(refusal) for refusal in refusals] == [type(None), Denied, type(None), type(None)]
    changes = {change.name: (change.serial, change.files) for change in catalog.changes_since(before)}
    assert changes == {"demo": (before + 1, 2), "other": (before + 1, 1)}


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """Also in a directory that is open: it knows hashes of tokens."""
    tmp_path.chmod(0o755)
    Catalog(tmp_path).close()
    open_to_others = {path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o077}
    assert open_to_others <= {"catalog.sqlite.in-order"}
