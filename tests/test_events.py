"""`events`: what was done and what was refused, from both books, by time."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pypiserver_ng.catalog import Catalog
from pypiserver_ng.index.history import History, Selection
from pypiserver_ng.model import NormalizedName, Status
from pypiserver_ng.storage.audit import AuditLog, Entry
from tests.tools.distributions import build_wheel, make_wheel
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, wait_until
from tests.tools.uploads import remove, upload

KEYS = ["time", "action", "outcome", "user", "address", "project", "version", "filename", "sha256", "reason"]


@pytest.fixture
def program(tmp_path: Path, packages: Path, environment: dict[str, str]) -> Program:
    make_wheel(packages, "demo", "1.0")
    return Program(tmp_path, environment)


@contextmanager
def auditing(state: Path) -> Iterator[AuditLog]:
    with closing(AuditLog(state)) as log:
        yield log


def list_events(program: Program, *args: str | Path) -> list[dict[str, Any]]:
    done = program.run("events", "--json", *args)
    assert (done.returncode, done.stderr) == (0, ""), done
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_both_books_are_one_story(tmp_path: Path) -> None:
    """By time, each entry once, also when more comes."""
    with closing(History(tmp_path)) as history, closing(Catalog(tmp_path)) as catalog:
        assert list(history.read()) == []
        told: list[str] = []
        for number in range(12):
            name = f"p{number}"
            if number % 3:
                with auditing(tmp_path) as log:
                    log.note("login", outcome="refused", project=name)
            else:
                catalog.set_status(NormalizedName(name), Status.QUARANTINED, None, None)
            if number % 5 == 4:
                told += [entry.project or "" for entry in history.read()]
        assert list(history.read()) != []
        assert told == [f"p{number}" for number in range(10)]
        assert list(history.read()) == []


def test_a_history_is_in_nobodys_way(tmp_path: Path) -> None:
    """While somebody follows, a server may start that has to have the catalog alone."""
    with closing(Catalog(tmp_path)) as catalog:
        catalog.set_status(NormalizedName("demo"), Status.QUARANTINED, None, None)
    with closing(History(tmp_path)) as history:
        assert len(list(history.read())) == 1
        (tmp_path / "catalog.sqlite").unlink()
        with closing(Catalog(tmp_path)) as catalog:
            catalog.set_status(NormalizedName("demo"), Status.ACTIVE, None, None)
        assert [entry.status for entry in history.read()] == ["active"]


def test_a_catalog_without_news_is_not_opened(tmp_path: Path) -> None:
    """Whoever follows asks twice a second; opening would make the database that is not there."""
    database = tmp_path / "catalog.sqlite"
    with closing(Catalog(tmp_path)) as catalog:
        catalog.set_status(NormalizedName("demo"), Status.QUARANTINED, None, None)
    with closing(History(tmp_path)) as history:
        assert [entry.status for entry in history.read()] == ["quarantined"]
        database.unlink()
        with auditing(tmp_path) as log:
            log.note("login", outcome="refused")
        assert [entry.action for entry in history.read()] == ["login"]
        assert not database.exists()


NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("selection", "chosen"),
    (
        (Selection(), "abcd"),
        (Selection(projects="acme-*"), "ab"),
        (Selection(projects="demo"), "c"),
        (Selection(user="alice"), "ac"),
        (Selection(user="root"), "b"),
        (Selection(user="root (command line)"), "b"),
        (Selection(user=""), "d"),
        (Selection(since=NOW), "cd"),
        (Selection(projects="*", user="alice", since=NOW), "c"),
    ),
)
def test_what_is_chosen(selection: Selection, chosen: str) -> None:
    """All that was asked for has to fit."""
    entries = [
        Entry(NOW - timedelta(2), "upload", "done", "alice", project="acme-core", reason="a"),
        Entry(NOW - timedelta(1), "upload", "done", "root (command line)", project="acme-x", reason="b"),
        Entry(NOW, "upload", "done", "alice", project="demo", reason="c"),
        Entry(NOW + timedelta(1), "login", "refused", reason="d"),
    ]
    assert [entry.reason for entry in selection.choose(iter(entries))] == list(chosen)


def test_beside_a_running_server(serve: Serve, program: Program, packages: Path) -> None:
    """Who, from where, what, and with what outcome; a command has no address."""
    server = serve(*OPEN, "--disable-fallback")
    wheel = build_wheel("demo", "2.0")
    assert upload(server.url, wheel).status_code == 200
    for args in (("yank", "demo", "1.0", "--reason", "no"), ("status", "demo", "deprecated", "--reason", "old")):
        assert program.run(*args).returncode == 0
    assert remove(server.url, name="demo", version="2.0").status_code == 200
    told = list_events(program, packages)
    assert all(list(event)[: len(KEYS)] == KEYS for event in told)
    uploaded, yanked, deprecated, deleted = told
    moments = [datetime.fromisoformat(event.pop("time")) for event in told]
    assert moments == sorted(moments)
    assert datetime.now(UTC) - moments[0] < timedelta(minutes=5)
    what = {"project": "demo", "version": "2.0", "filename": wheel.filename, "sha256": wheel.sha256, "reason": None}
    assert uploaded == {"action": "upload", "outcome": "done", "user": None, "address": "127.0.0.1"} | what
    assert deleted == {"action": "delete", "outcome": "done", "user": None, "address": "127.0.0.1"} | what
    assert (yanked["action"], yanked["version"], yanked["reason"]) == ("yank", "1.0", "no")
    assert yanked["user"].endswith(" (command line)")
    assert yanked["address"] is None
    assert (deprecated["action"], deprecated["status"], deprecated["reason"]) == ("status", "deprecated", "old")


def test_tokens(program: Program, packages: Path) -> None:
    """Which was made and which revoked, and nothing of its secret."""
    text = program.run("token", "create", "ci").stdout.strip()
    assert program.run("token", "revoke", "ci").returncode == 0
    made, revoked = list_events(program)
    assert (made["action"], made["token"], made["project"]) == ("token", "ci", None)
    assert (revoked["action"], revoked["token"]) == ("revoke", "ci")
    assert text[-43:] not in program.run("events", "--json").stdout
    assert " ci" in program.run("events").stdout


def test_filters(program: Program, packages: Path) -> None:
    """The newest of what fits, and a person gets few of many."""
    state = packages / ".pypiserver-ng"
    assert program.run("yank", "demo", "1.0").returncode == 0
    with auditing(state) as log:
        for number in range(150):
            log.note("login", outcome="refused", user="alice", reason=f"reason{number}")
    reasons = [event["reason"] for event in list_events(program, "--limit", "2")]
    assert reasons == ["reason148", "reason149"]
    assert len(list_events(program)) == 151
    assert [event["action"] for event in list_events(program, "--project", "D?mo")] == ["yank"]
    assert len(list_events(program, "--user", "alice", "--since", "1h")) == 150
    assert list_events(program, "--since", "2999-01-01") == []
    assert len(list_events(program, "--since", "2000-01-01", "--limit", "1")) == 1
    table = program.run("events").stdout.splitlines()
    assert len(table) == 101
    assert table[0].split() == ["TIME", "ACTION", "OUTCOME", "USER", "ADDRESS", "WHAT", "WHY"]
    assert len(program.run("events", "--limit", "120").stdout.splitlines()) == 121


def test_what_is_shown_on_a_terminal(program: Program, packages: Path) -> None:
    """Control characters are escaped, and nothing of an entry starts a line of its own."""
    assert program.run("yank", "demo", "1.0").returncode == 0
    with auditing(packages / ".pypiserver-ng") as log:
        log.note("login", outcome="refused", user="a\x1b[2J\n\x9b", filename="\u202egpj.exe", reason="x\ry")
        for _ in range(3):
            log.note("upload", outcome="refused", project="demo", version="2", reason="no")
    done = program.run("events", PYTHONIOENCODING="utf-8")
    assert [line for line in done.stdout.splitlines() if not line.isprintable()] == []
    assert len(done.stdout.splitlines()) == 5
    assert "a\\x1b[2J\\n\\x9b" in done.stdout
    assert "demo 2" in done.stdout
    assert "no (2 times)" in done.stdout
    assert program.run("events", "--json").stdout.isascii()


def test_an_index_without_events(serve: Serve, program: Program, packages: Path) -> None:
    serve(*OPEN, "--disable-fallback")
    done = program.run("events", packages)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("args", "says"),
    (
        (("--since", "yesterday"), "must be a duration such as 7d, or a date"),
        (("--since", ""), "must be a duration"),
        (("--project", "a b"), "must be a project name or pattern"),
        (("--limit", "-1"), "-1"),
        ((), "there is no catalog"),
        (("absent",), "there is no package directory"),
    ),
)
def test_bad_usage(program: Program, args: tuple[str, ...], says: str) -> None:
    assert says in program.refuse("events", *args)


def test_follow(program: Program, packages: Path, tmp_path: Path) -> None:
    """What happens is said as it happens, until nobody reads it any more."""
    assert program.run("yank", "demo", "1.0").returncode == 0
    command = [sys.executable, "-m", "pypiserver_ng", "events", "--json", "--follow", "--limit", "0", str(packages)]
    lines = tmp_path / "lines"
    with (
        lines.open("wb") as out,
        subprocess.Popen(command, cwd=tmp_path, env=program.environment, stdout=out, stderr=out) as following,
    ):
        try:

            def see(action: str) -> bool:
                with auditing(packages / ".pypiserver-ng") as log:
                    log.note("login", outcome="refused")
                return action in lines.read_text()

            wait_until(lambda: see("login"), within=20)
            assert program.run("unyank", "demo", "1.0").returncode == 0
            wait_until(lambda: see("unyank"), within=20)
        finally:
            following.terminate()
    assert '"yank"' not in lines.read_text()
