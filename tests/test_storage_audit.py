"""The audit log: lines that are appended by many, bounded, and never in anybody's way."""

import json
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pypiserver_ng.storage import audit
from pypiserver_ng.storage.audit import AuditLog, Entry, clean_text
from pypiserver_ng.storage.trail import Trail
from tests.tools.server import wait_until

ALICE = {"outcome": "refused", "user": "alice", "address": "192.0.2.1"}


@contextmanager
def opened(state: Path) -> Iterator[AuditLog]:
    log = AuditLog(state)
    try:
        yield log
    finally:
        log.close()


def read(state: Path) -> list[Entry]:
    trail = Trail(state)
    try:
        return list(trail.read())
    finally:
        trail.close()


def list_reasons(state: Path) -> list[str | None]:
    return [entry.reason for entry in read(state)]


def test_what_is_noted_can_be_read(tmp_path: Path) -> None:
    """At once, not at the end; as JSON without what is not known; for its owner alone."""
    with opened(tmp_path) as log:
        log.note("upload", **ALICE, project="demo", version="1.0", filename="demo-1.0.tar.gz", reason="no")
        log.note("token", outcome="done", user="token:ci")
        wait_until(lambda: len(read(tmp_path)) == 2, within=5)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    assert lines[0].pop("time").endswith("Z")
    assert lines[0] == {
        "action": "upload",
        "outcome": "refused",
        "user": "alice",
        "address": "192.0.2.1",
        "project": "demo",
        "version": "1.0",
        "filename": "demo-1.0.tar.gz",
        "reason": "no",
    }
    assert lines[1].keys() == {"time", "action", "outcome", "user"}
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_nothing_is_made_for_nothing(tmp_path: Path) -> None:
    """Neither file nor thread."""
    threads = threading.active_count()
    with opened(tmp_path):
        assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path) == []


def test_the_same_again_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written when it comes first, and then once in a while with how often it came."""
    monkeypatch.setattr(audit, "SAME_SECONDS", 0.2)
    with opened(tmp_path) as log:
        for _ in range(50):
            log.note("login", **ALICE, reason="wrong")
            log.note("login", **ALICE | {"address": "192.0.2.2"}, reason="wrong")
        wait_until(lambda: len(read(tmp_path)) == 4, within=5)
        assert [(entry.address, entry.count) for entry in read(tmp_path)] == [
            *(("192.0.2.1", 1), ("192.0.2.2", 1)),
            *(("192.0.2.1", 49), ("192.0.2.2", 49)),
        ]
        # Later it is new.
        wait_until(lambda: not log._held, within=5)
        log.note("login", **ALICE, reason="wrong")
        wait_until(lambda: len(read(tmp_path)) == 5, within=5)


def test_an_end_writes_what_was_counted(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        for _ in range(7):
            log.note("login", **ALICE)
    assert [entry.count for entry in read(tmp_path)] == [1, 6]


def test_counts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of different entries loses counts, not entries."""
    monkeypatch.setattr(audit, "_MOST_HELD", 10)
    with opened(tmp_path) as log:
        for number in range(2000):
            log.note("login", **ALICE, reason=str(number))
            log.note("login", **ALICE, reason=str(number))
        wait_until(log._waiting.empty, within=10)
        wait_until(lambda: len(log._held) <= 10, within=5)
    assert sum(entry.count for entry in read(tmp_path)) == 4000


def test_files_are_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest four old ones stay, and are read in order."""
    monkeypatch.setattr(audit, "MOST_BYTES", 2000)
    monkeypatch.setattr(audit, "_BATCH", 1)
    with opened(tmp_path) as log:
        for number in range(300):
            log.note("login", **ALICE, reason=str(number))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["audit.1.jsonl", "audit.2.jsonl", "audit.3.jsonl", "audit.4.jsonl", "audit.jsonl"]
    assert all(path.stat().st_size < 2200 for path in tmp_path.iterdir())
    reasons = list_reasons(tmp_path)
    assert reasons == [str(number) for number in range(300 - len(reasons), 300)]
    assert len(reasons) > 50


def test_several_processes_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the files are rotated: every line is whole, and each is there once."""
    monkeypatch.setattr(audit, "MOST_BYTES", 60_000)
    monkeypatch.setattr(audit, "_BATCH", 3)
    children = []
    for name in "abc":
        pid = os.fork()
        if pid == 0:
            with opened(tmp_path) as log:
                for number in range(500):
                    log.note("login", **ALICE, reason=f"{name}{number}")
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    reasons = list_reasons(tmp_path)
    assert sorted(map(str, reasons)) == sorted(f"{name}{number}" for name in "abc" for number in range(500))
    for name in "abc":
        assert [reason for reason in reasons if reason and reason[0] == name] == [f"{name}{n}" for n in range(500)]
    assert (tmp_path / "audit.2.jsonl").exists()


def test_a_trail_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one file into the next, each entry once."""
    monkeypatch.setattr(audit, "MOST_BYTES", 400)
    monkeypatch.setattr(audit, "_BATCH", 1)
    trail = Trail(tmp_path)
    assert list(trail.read()) == []
    seen: list[str | None] = []
    for number in range(60):
        with opened(tmp_path) as log:
            log.note("login", **ALICE, reason=str(number))
        if number % 7 == 0:
            seen += [entry.reason for entry in trail.read()]
            assert list(trail.read()) == []
    seen += [entry.reason for entry in trail.read()]
    trail.close()
    assert seen == [str(number) for number in range(60)]


LINE = b'{"time":"2026-01-02T03:04:05Z","action":"login","outcome":"refused","reason":"%d"}\n'


def write_files(state: Path) -> None:
    """Three, with two entries each; the oldest entry has the lowest number."""
    for number, name in enumerate(("audit.2.jsonl", "audit.1.jsonl", "audit.jsonl")):
        (state / name).write_bytes(LINE % (2 * number) + LINE % (2 * number + 1))


def list_open(state: Path) -> list[str]:
    """The files of the directory that this process has open."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    # The descriptor of the listing itself is gone by now.
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]  # noqa: PTH115 - texts
    return sorted(target.rpartition("/")[2] for target in targets if target.startswith(f"{state}/"))


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """By a trail that has seen its first half already."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(LINE % 0 + (LINE % 1)[:30])
    with closing(Trail(tmp_path)) as trail:
        assert [entry.reason for entry in trail.read()] == ["0"]
        assert list(trail.read()) == []
        with path.open("ab") as file:
            file.write((LINE % 1)[30:])
        assert [entry.reason for entry in trail.read()] == ["1"]


def test_elder_files_are_read_once(tmp_path: Path) -> None:
    """What is older than the file that is open was read before that one."""
    write_files(tmp_path)
    with closing(Trail(tmp_path)) as trail:
        assert [entry.reason for entry in trail.read()] == list("012345")
        assert list(trail.read()) == []
        for old, new in (("audit.2", "audit.3"), ("audit.1", "audit.2"), ("audit", "audit.1")):
            (tmp_path / f"{old}.jsonl").rename(tmp_path / f"{new}.jsonl")
        (tmp_path / "audit.jsonl").write_bytes(LINE % 6)
        assert [entry.reason for entry in trail.read()] == ["6"]


def test_who_stops_early_leaves_nothing_open(tmp_path: Path) -> None:
    """But the file that is being read; and can read on where that was."""
    write_files(tmp_path)
    with closing(Trail(tmp_path)) as trail:
        entries = trail.read()
        assert next(entries).reason == "0"
        assert len(list_open(tmp_path)) == 3
        del entries
        assert list_open(tmp_path) == ["audit.2.jsonl"]
        assert [entry.reason for entry in trail.read()] == list("12345")
    assert list_open(tmp_path) == []


def test_a_file_that_cannot_be_read_leaves_nothing_open(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "audit.1.jsonl").unlink()
    (tmp_path / "audit.1.jsonl").mkdir()
    with closing(Trail(tmp_path)) as trail:
        with pytest.raises(OSError, match="not a regular file"):
            list(trail.read())
        assert list_open(tmp_path) == []


def test_lines_that_are_none_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each is named; a line that has no end yet is read when it has, and is ended by who writes next."""
    path = tmp_path / "audit.jsonl"
    good = b'{"time":"2026-01-02T03:04:05Z","action":"login","outcome":"refused","later":[1]}\n'
    bad = (b"\xff\n", b"[]\n", b"{}\n", good.replace(b"Z", b""), b"[" * 5000 + b"\n", b"\0" * 9 + b"\n")
    path.write_bytes(b"\n".join([good, *bad, good]) + good[:30])
    assert [entry.action for entry in read(tmp_path)] == ["login", "login"]
    assert len(caplog.messages) == len(bad)
    with opened(tmp_path) as log:
        log.note("upload", outcome="refused")
    assert [entry.action for entry in read(tmp_path)] == ["login", "login", "upload"]


@pytest.mark.parametrize("kind", ("directory", "link", "pipe", "absent"))
def test_a_file_that_cannot_be_written(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Costs entries and one warning; when it can be again, what came meanwhile is said to be lost."""
    path = tmp_path / "state" / "audit.jsonl"
    path.parent.mkdir()
    match kind:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.parent.rmdir()
    with opened(tmp_path / "state") as log:
        for number in range(3):
            log.note("login", **ALICE, reason=str(number))
            wait_until(lambda: log._lost == number + 1, within=5)  # noqa: B023
        assert len(caplog.messages) == 1
        if kind == "directory":
            path.rmdir()
        elif kind == "absent":
            path.parent.mkdir()
        else:
            path.unlink()
        log.note("login", **ALICE, reason="3")
        wait_until(lambda: list_reasons(tmp_path / "state") == ["3"], within=5)
        wait_until(lambda: len(caplog.messages) == 2, within=5)
    assert caplog.messages[1] == "3 entries of the audit log were lost"
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Leaves no half line."""
    with opened(tmp_path) as log:
        log.note("login", **ALICE)
        wait_until(lambda: len(read(tmp_path)) == 1, within=5)
        path = tmp_path / "audit.jsonl"
        before = path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
        try:
            log.note("upload", **ALICE)
            wait_until(lambda: log._lost == 1, within=5)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
        log.note("delete", **ALICE)
    assert [entry.action for entry in read(tmp_path)] == ["login", "delete"]
    assert len(caplog.messages) == 2


def test_a_disk_that_hangs_costs_entries_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever notes waits for nothing; what is too much is counted as lost."""
    monkeypatch.setattr(audit, "_MOST_WAITING", 100)
    monkeypatch.setattr(audit, "_END_SECONDS", 0.1)
    hold = threading.Event()
    monkeypatch.setattr(AuditLog, "_append", lambda _log, _lines: hold.wait(30))
    log = AuditLog(tmp_path)
    for number in range(5000):
        log.note("login", **ALICE, reason=str(number))
    log.close()
    assert log._lost > 1000
    hold.set()
    assert log._thread is not None
    log._waiting.put(None)
    log._thread.join()


def test_whatever_is_noted_is_written(tmp_path: Path) -> None:
    """Lone surrogates, control characters, and more than anybody reads."""
    with opened(tmp_path) as log:
        log.note("login", outcome="refused", user="\ud800\n\x1b[31m", reason="x" * 100_000)
    (entry,) = read(tmp_path)
    assert entry.user == "\\ud800\n\x1b[31m"
    assert len(entry.reason or "") == 500
    assert (tmp_path / "audit.jsonl").read_bytes().count(b"\n") == 1


SECRET = "A" * 43
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "kept"),
    (
        (f"the token pypi-ng-0123456789abcdef-{SECRET} is", "the token pypi-ng-0123456789abcdef-*** is"),
        (f"'pypi-AgEIcHlwaS5vcmc{SECRET}'", "'pypi-***'"),
        (f"project {JWT!r}", "project '***'"),
        (JWT.rpartition(".")[0], "***"),
        ("at https://me:secret@mirror.example/simple/", "at https://***@mirror.example/simple/"),
        ("at https://mirror.example/a@b", "at https://mirror.example/a@b"),
        ("pypi-attestations-of-a-long-name is a project", "pypi-attestations-of-a-long-name is a project"),
        ("eyJ is no token", "eyJ is no token"),
        (f"{'x' * 490}pypi-ng-0123456789abcdef-{SECRET}", f"{'x' * 490}pypi-ng-01"),
    ),
)
def test_secrets_are_left_out(text: str, kept: str) -> None:
    """Whatever somebody put where."""
    assert clean_text(text) == kept
