"""What the catalog knows beside the files: yanks, statuses, provenance, and how an older catalog becomes today's."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from pypiserver_ng.catalog import Catalog, Contents, Presence, schema
from pypiserver_ng.errors import Denied, Invalid, NotFound
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import Digests, File, NormalizedName, Status
from tests.tools.catalogs import add_upload, tombstone

DEMO = NormalizedName("demo")
CONTENTS = Contents(Digests("a" * 64, "b" * 32, "c" * 64))
PROVENANCE = b'{"version":1}'


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(tmp_path)
    yield opened
    opened.close()


def presence(filename: str) -> Presence:
    parsed = parse_found(filename)
    assert parsed is not None
    return Presence("r", filename, parsed, 1, 10**18)


def add(catalog: Catalog, *filenames: str) -> None:
    for filename in filenames:
        add_upload(catalog, presence(filename), CONTENTS, "alice")


def read_files(catalog: Catalog, name: NormalizedName = DEMO) -> list[File]:
    return [known.file for known in catalog.project_rows(name).known if known.file]


def read_yanks(catalog: Catalog) -> dict[str, str | None]:
    return {file.filename: file.yanked_reason for file in read_files(catalog) if file.yanked}


# Yanks.


def test_a_yank_is_of_a_release(catalog: Catalog) -> None:
    """Every file of it, also one that comes later, and no other; however the version is spelled."""
    add(catalog, "demo-1.0.tar.gz", "demo-2.0.tar.gz")
    catalog.yank(DEMO, "1", "broken", "alice")
    add(catalog, "demo-1.0-py3-none-any.whl")
    assert read_yanks(catalog) == {"demo-1.0.tar.gz": "broken", "demo-1.0-py3-none-any.whl": "broken"}
    catalog.yank(DEMO, "1.0.0", None, None)
    assert set(read_yanks(catalog).values()) == {None}
    catalog.unyank(DEMO, "v1.0", None)
    assert read_yanks(catalog) == {}


def test_a_yank_outlives_a_moved_file(catalog: Catalog) -> None:
    """The row goes when the file does, and another one comes."""
    add(catalog, "demo-1.0.tar.gz")
    catalog.yank(DEMO, "1.0", "broken", None)
    (row,) = catalog.project_rows(DEMO).known
    catalog.sync([], [row.id])
    moved = replace(presence("demo-1.0.tar.gz"), path="old/demo-1.0.tar.gz")
    catalog.sync([moved], [])
    catalog.record([(known, CONTENTS) for known in catalog.unread(1)])
    assert read_yanks(catalog) == {"demo-1.0.tar.gz": "broken"}


def test_a_deleted_release_is_not_yanked_when_it_comes_again(catalog: Catalog) -> None:
    """As long as one of its files is left, it is the same release; and until they are gone from the disk."""
    add(catalog, "demo-1.0.tar.gz", "demo-1.0.zip")
    catalog.yank(DEMO, "1.0", None, None)
    catalog.remove(read_files(catalog)[:1], None)
    catalog.finish_removal(catalog.doomed(), [], None)
    assert list(read_yanks(catalog)) == ["demo-1.0.zip"]
    catalog.remove(read_files(catalog), None)
    (doomed,) = catalog.doomed()
    catalog.finish_removal([], [doomed], None)
    add(catalog, "demo-1.0.zip")
    assert list(read_yanks(catalog)) == ["demo-1.0.zip"]
    catalog.remove(read_files(catalog), None)
    catalog.finish_removal(catalog.doomed(), [], None)
    assert catalog.doomed() == []
    add(catalog, "demo-1.0.zip")
    assert read_yanks(catalog) == {}


def test_only_what_was_meant_is_removed(catalog: Catalog) -> None:
    """Not what another upload put in its place meanwhile."""
    add(catalog, "demo-1.0.tar.gz")
    meant = read_files(catalog)
    add_upload(
        catalog, presence("demo-1.0.tar.gz"), Contents(Digests("d" * 64, "e" * 32, "f" * 64)), None, overwrite=True
    )
    catalog.remove(meant, None)
    assert [file.digests.sha256 for file in read_files(catalog)] == ["d" * 64]
    assert (catalog.doomed(), tombstone(catalog, "demo-1.0.tar.gz")) == ([], None)


def test_a_yank_may_be_taken_back_when_no_file_is_left(catalog: Catalog) -> None:
    """Somebody moved them away by hand."""
    add(catalog, "demo-1.0.tar.gz")
    catalog.yank(DEMO, "1.0", None, None)
    catalog.sync([], [row.id for row in catalog.project_rows(DEMO).known])
    assert catalog.unyank(DEMO, "1.0", None)
    with pytest.raises(NotFound):
        catalog.unyank(DEMO, "1.0", None)


def test_a_yanked_release_is_found_as_such(catalog: Catalog) -> None:
    """Searches choose another version to show."""
    add(catalog, "demo-1.0.tar.gz", "demo-2.0.tar.gz")
    catalog.yank(DEMO, "2", None, None)
    assert {found.version: found.yanked for found in catalog.found([DEMO], [])} == {"1.0": False, "2.0": True}


def test_what_is_not_here_cannot_be_yanked(catalog: Catalog) -> None:
    """The message names what is."""
    with pytest.raises(NotFound, match="demo has no file here"):
        catalog.yank(DEMO, "1.0", None, None)
    add(catalog, "demo-1.0.tar.gz", "demo-1.10.tar.gz", "demo-1.9.tar.gz")
    missing = r"demo '3' is not here; its newest versions are 1\.10, 1\.9, 1\.0"
    with pytest.raises(NotFound, match=missing):
        catalog.yank(DEMO, "3", None, None)
    with pytest.raises(NotFound, match=missing):
        catalog.unyank(DEMO, "3", None)
    catalog.unyank(DEMO, "1.0", None)


# Statuses.


def test_a_status_stays_with_the_project(catalog: Catalog) -> None:
    """Also when its last file goes; every change has its serial."""
    add(catalog, "demo-1.0.tar.gz")
    catalog.set_status(DEMO, Status.DEPRECATED, "use other", None)
    rows = catalog.project_rows(DEMO)
    assert (rows.serial, rows.status, rows.status_reason) == (2, Status.DEPRECATED, "use other")
    catalog.remove(read_files(catalog), None)
    assert catalog.status(DEMO) == (Status.DEPRECATED, "use other")
    catalog.set_status(DEMO, Status.ACTIVE, None, None)
    assert catalog.status(DEMO) == (Status.ACTIVE, None)
    assert catalog.changes_since(3)[0].serial == 4


@pytest.mark.parametrize("status", (Status.ARCHIVED, Status.QUARANTINED))
def test_a_closed_project_takes_no_file(catalog: Catalog, status: Status) -> None:
    """The last look is in the transaction that would record it."""
    add(catalog, "demo-1.0.tar.gz")
    catalog.set_status(DEMO, status, "moved", None)
    with pytest.raises(Denied, match=rf"demo is {status} \(moved\)"):
        add(catalog, "demo-2.0.tar.gz")
    assert [file.version for file in read_files(catalog)] == ["1.0"]


def test_only_a_quarantine_may_come_before_the_project(catalog: Catalog) -> None:
    """It keeps a name away; the other markers describe what is here."""
    for status in (Status.ACTIVE, Status.ARCHIVED, Status.DEPRECATED):
        with pytest.raises(NotFound):
            catalog.set_status(DEMO, status, None, None)
    catalog.set_status(DEMO, Status.QUARANTINED, None, None)
    assert [(change.name, change.files, change.status) for change in catalog.changes_since(0)] == [
        (DEMO, 0, Status.QUARANTINED)
    ]


def test_a_quarantined_project_is_not_found(catalog: Catalog) -> None:
    """Neither by a search nor among the newest."""
    add(catalog, "demo-1.0.tar.gz", "other-1.0.zip")
    catalog.set_status(DEMO, Status.QUARANTINED, None, None)
    assert catalog.search([]) == [found.name for found in catalog.recent(9)] == ["other"]


# Provenance.


def test_provenance_is_of_exact_bytes(catalog: Catalog) -> None:
    """Other bytes under the name have none."""
    found = presence("demo-1.0.tar.gz")
    add_upload(catalog, found, CONTENTS, None, provenance=PROVENANCE)
    assert [file.has_provenance for file in read_files(catalog)] == [True]
    assert catalog.provenance("demo-1.0.tar.gz", "a" * 64) == PROVENANCE
    other = Contents(Digests("d" * 64, "e" * 32, "f" * 64))
    add_upload(catalog, found, other, None, overwrite=True)
    assert [file.has_provenance for file in read_files(catalog)] == [False]
    assert catalog.provenance("demo-1.0.tar.gz", "d" * 64) is None


def test_provenance_may_come_with_the_same_bytes_again(catalog: Catalog) -> None:
    """What was verified first stays."""
    add(catalog, "demo-1.0.tar.gz")
    for content in (PROVENANCE, b"{}"):
        catalog.add_provenance(presence("demo-1.0.tar.gz").parsed, "a" * 64, content, None)
    assert catalog.provenance("demo-1.0.tar.gz", "a" * 64) == PROVENANCE


def test_provenance_goes_with_its_file(catalog: Catalog) -> None:
    """The same bytes that come again without attestations have none."""
    add_upload(catalog, presence("demo-1.0.tar.gz"), CONTENTS, None, provenance=PROVENANCE)
    catalog.remove(read_files(catalog), None)
    add(catalog, "demo-1.0.tar.gz")
    assert [file.has_provenance for file in read_files(catalog)] == [False]


# Older catalogs.

_SCHEMA_1 = """
CREATE TABLE state ("key" VARCHAR NOT NULL, value BIGINT NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE projects (name VARCHAR NOT NULL, serial BIGINT NOT NULL, files INTEGER NOT NULL, PRIMARY KEY (name));
CREATE INDEX ix_projects_serial ON projects (serial);
CREATE TABLE files (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, root VARCHAR NOT NULL, path VARCHAR NOT NULL,
  filename VARCHAR NOT NULL, project VARCHAR NOT NULL, display_name VARCHAR NOT NULL, version VARCHAR NOT NULL,
  kind VARCHAR NOT NULL, size BIGINT NOT NULL, mtime_ns BIGINT NOT NULL, upload_time BIGINT NOT NULL, sha256 VARCHAR,
  md5 VARCHAR, blake2b_256 VARCHAR, requires_python VARCHAR, summary VARCHAR, metadata_sha256 VARCHAR, problem VARCHAR,
  yanked BOOLEAN DEFAULT 0 NOT NULL, yanked_reason VARCHAR, uploaded_by VARCHAR, UNIQUE (root, path),
  FOREIGN KEY(project) REFERENCES projects (name));
CREATE INDEX ix_files_filename ON files (filename);
CREATE INDEX ix_files_project ON files (project);
CREATE INDEX files_unread ON files (id) WHERE sha256 IS NULL;
CREATE TABLE mounts (path VARCHAR NOT NULL, PRIMARY KEY (path));
CREATE TABLE tombstones (filename VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, deleted_at BIGINT NOT NULL,
  PRIMARY KEY (filename));
INSERT INTO state VALUES ('schema', 1), ('serial', 7);
INSERT INTO projects VALUES ('demo', 7, 1);
INSERT INTO files VALUES (5, 'r', 'demo-1.0.tar.gz', 'demo-1.0.tar.gz', 'demo', 'Demo', '1.0', 'sdist', 1, 2, 3, 'aa',
  'bb', 'cc', NULL, NULL, NULL, NULL, 0, NULL, 'alice');
INSERT INTO tombstones VALUES ('demo-0.1.tar.gz', 'dd', 4);
"""


#: From schema 1 to schema 2, with one of everything that came then.
_SCHEMA_2 = """
UPDATE state SET value = 2 WHERE "key" = 'schema';
ALTER TABLE projects ADD COLUMN status VARCHAR DEFAULT 'active' NOT NULL;
ALTER TABLE projects ADD COLUMN status_reason VARCHAR;
ALTER TABLE files DROP COLUMN yanked;
ALTER TABLE files DROP COLUMN yanked_reason;
CREATE TABLE yanks (project VARCHAR NOT NULL, version VARCHAR NOT NULL, reason VARCHAR, PRIMARY KEY (project, version));
CREATE TABLE provenances (filename VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, project VARCHAR NOT NULL,
  content BLOB NOT NULL, PRIMARY KEY (filename, sha256));
CREATE INDEX ix_provenances_project ON provenances (project);
INSERT INTO yanks VALUES ('demo', '1', 'broken');
INSERT INTO provenances VALUES ('demo-1.0.tar.gz', 'aa', 'demo', CAST('{"version":1}' AS BLOB));
UPDATE projects SET status = 'archived', status_reason = 'old' WHERE name = 'demo';
"""


def test_a_catalog_of_schema_2_keeps_its_marks_without_its_database(tmp_path: Path) -> None:
    """They are in the journal from the first start on."""
    with sqlite3.connect(tmp_path / "catalog.sqlite") as old:
        old.executescript(_SCHEMA_1 + _SCHEMA_2)
    old.close()
    Catalog(tmp_path).close()
    (tmp_path / "catalog.sqlite").unlink()
    catalog = Catalog(tmp_path)
    try:
        contents = Contents(Digests("aa", "bb", "cc"))
        catalog.sync([presence("demo-1.0.tar.gz")], [])
        catalog.record([(known, contents) for known in catalog.unread(1)])
        assert read_yanks(catalog) == {"demo-1.0.tar.gz": "broken"}
        assert catalog.status(DEMO) == (Status.ARCHIVED, "old")
        assert catalog.provenance("demo-1.0.tar.gz", "aa") == PROVENANCE
        assert tombstone(catalog, "demo-0.1.tar.gz") == "dd"
    finally:
        catalog.close()


#: From schema 2 to schema 3.
_SCHEMA_3 = """
UPDATE state SET value = 3 WHERE "key" = 'schema';
CREATE TABLE events (id INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (id));
CREATE TABLE uploads (filename VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, upload_time BIGINT NOT NULL, user VARCHAR,
  PRIMARY KEY (filename, sha256));
CREATE TABLE doomed (root VARCHAR NOT NULL, path VARCHAR NOT NULL, project VARCHAR NOT NULL, version VARCHAR NOT NULL,
  size BIGINT NOT NULL, mtime_ns BIGINT NOT NULL, PRIMARY KEY (root, path));
ALTER TABLE files DROP COLUMN uploaded_by;
UPDATE files SET summary = 'Gr\u00f6\u00dfte Zahl';
"""
_SCRIPTS = (_SCHEMA_1, _SCHEMA_1 + _SCHEMA_2, _SCHEMA_1 + _SCHEMA_2 + _SCHEMA_3)


@pytest.mark.parametrize("script", _SCRIPTS, ids=("1", "2", "3"))
def test_an_older_catalog_is_brought_to_todays_schema(tmp_path: Path, script: str) -> None:
    """Nothing it knew is lost, and its tables are those of a new one."""
    with sqlite3.connect(tmp_path / "catalog.sqlite") as old:
        old.executescript(script)
    old.close()
    catalog = Catalog(tmp_path)
    try:
        (file,) = read_files(catalog)
        assert (file.id, file.display_name, file.digests.sha256) == (5, "Demo", "aa")
        assert catalog.search([file.summary.lower() if file.summary else "demo"]) == ["demo"]
        assert (catalog.serial(), catalog.shared.value, tombstone(catalog, "demo-0.1.tar.gz")) == (7, 7, "dd")
        catalog.yank(DEMO, "1.0", None, None)
        with catalog._database.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    finally:
        catalog.close()
    again = Catalog(tmp_path)
    assert again.serial() == 8
    again.close()


def test_a_later_catalog_is_refused(tmp_path: Path) -> None:
    """Nothing in it is touched: a later version knows what it means."""
    Catalog(tmp_path).close()
    with sqlite3.connect(tmp_path / "catalog.sqlite") as later:
        later.execute("UPDATE state SET value = 99 WHERE key = 'schema'")
    later.close()
    with pytest.raises(Invalid, match="schema 99"):
        Catalog(tmp_path)
