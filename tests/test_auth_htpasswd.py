"""The htpasswd file: what matches, what never does, and when it is read again."""

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from passlib.hash import (
    apr_md5_crypt,
    argon2,
    bcrypt,
    des_crypt,
    ldap_sha1,
    md5_crypt,
    sha256_crypt,
    sha512_crypt,
)

from pypiserver_ng.auth import Htpasswd, PasswordFile, parse_htpasswd

SECRET = "correct horse ä"
#: Fixed, so that tests have the same names in every process that collects them.
SALT = "saltsalt"
BCRYPT_SALT = "a" * 21 + "e"
#: One real hash of the secret for each accepted scheme, as cheap as the scheme allows.
HASHES = {
    "2a": bcrypt.using(rounds=4, salt=BCRYPT_SALT, ident="2a").hash(SECRET),
    "2b": bcrypt.using(rounds=4, salt=BCRYPT_SALT, ident="2b").hash(SECRET),
    "2y": bcrypt.using(rounds=4, salt=BCRYPT_SALT, ident="2y").hash(SECRET),
    "apr1": apr_md5_crypt.using(salt=SALT).hash(SECRET),
    "sha": ldap_sha1.hash(SECRET),
    "sha256": sha256_crypt.using(rounds=1000, salt=SALT).hash(SECRET),
    "sha256-plain": sha256_crypt.using(rounds=5000, salt=SALT).hash(SECRET),
    "sha512": sha512_crypt.using(rounds=1000, salt=SALT).hash(SECRET),
    "argon2id": argon2.using(type="ID", rounds=1, memory_cost=8, parallelism=1, salt=SALT.encode()).hash(SECRET),
    "argon2i": argon2.using(type="I", rounds=1, memory_cost=8, parallelism=1, salt=SALT.encode()).hash(SECRET),
}
BCRYPT = HASHES["2y"]
SHA = HASHES["sha"]
ALICE_LINE, BOB_LINE = f"alice:{BCRYPT}\n", f"bob:{SHA}\n"


def without_pause(_: float) -> None:
    """Take the place of the pause around a read where nobody else writes."""


def parse(*lines: str) -> Htpasswd:
    return parse_htpasswd("\n".join(lines).encode())


def open_file(path: Path, pause: Callable[[float], None] = without_pause) -> PasswordFile:
    # Long after whatever a test writes.
    return PasswordFile(path, pause=pause, clock=lambda: time.time() + 60)


def replace(path: Path, text: str) -> None:
    """Replace the file atomically, as careful writers do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.mark.parametrize("scheme", HASHES)
def test_accepted_scheme_matches_its_password_only(scheme: str) -> None:
    """A hash of each accepted scheme takes its password, and neither another one nor its own text."""
    passwords = parse(f"alice:{HASHES[scheme]}")
    assert passwords.problems == ()
    assert passwords.verify("alice", SECRET)
    for wrong in ("", "x", SECRET + "x", SECRET.upper(), HASHES[scheme]):
        assert not passwords.verify("alice", wrong)
    assert not passwords.verify("Alice", SECRET)


@pytest.mark.parametrize(
    ("text", "password"),
    (
        ("", ""),
        ("", "x"),
        ("secret", "secret"),
        (des_crypt.using(salt="sa").hash(SECRET), SECRET),
        (md5_crypt.using(salt=SALT).hash(SECRET), SECRET),
        ("{PLAIN}secret", "secret"),
        ("{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password"),
        ("{sha}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password"),
        ("$7$whatever", "$7$whatever"),
        (BCRYPT.replace("$2y$", "$2x$"), SECRET),
        (BCRYPT.replace("$2y$", "$2$"), SECRET),
        (BCRYPT.replace("$04$", "$99$"), SECRET),
        ("$2y$xx", "$2y$xx"),
        ("$2y$05$", ""),
        (BCRYPT[:29], SECRET),
        (BCRYPT[:-1], SECRET),
        (SHA[:-1], SECRET),
        (SHA + "x", SECRET),
        (BCRYPT + "x", SECRET),
        (HASHES["apr1"][:-1], SECRET),
        (HASHES["sha512"][:-1], SECRET),
        (HASHES["sha256"].replace("rounds=1000", "rounds=1"), SECRET),
        (HASHES["sha256"].replace("rounds=1000", "rounds=١٠٠٠"), SECRET),
        (HASHES["argon2id"].rpartition("$")[0], SECRET),
        (HASHES["argon2id"].replace("p=1", "p=0"), SECRET),
        ("$argon2x$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$YWJjZGVmZ2g", "$argon2x$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$YWJjZGVmZ2g"),
    ),
)
def test_other_hashes_never_match(text: str, password: str) -> None:
    """Empty, plaintext, DES, unknown and damaged hashes match nothing and are named by line number."""
    passwords = parse("# users", f"alice:{text}", f"bob:{SHA}")
    assert not passwords.verify("alice", password)
    assert not passwords.verify("alice", text)
    assert not passwords.verify("alice", SECRET)
    assert passwords.verify("bob", SECRET)
    assert [number for number, _ in passwords.problems] == [2]
    assert not text or text not in passwords.problems[0][1]


def test_broken_lines_do_not_disturb_the_others() -> None:
    """Every faulty line is named with its number; the lines around it work."""
    passwords = parse_htpasswd(
        b"\r\n  # a comment\r\nno colon here\r\n:" + SHA.encode() + b"\r\n\xff\xfe:x\r\nempty:\r\n"
        b"\r\n  alice:" + SHA.encode() + b" \r\nbob:" + BCRYPT.encode() + b":Bob of the lab\r\nlast:plain"
    )
    assert [number for number, _ in passwords.problems] == [3, 4, 5, 6, 10]
    assert passwords.verify("alice", SECRET)
    assert passwords.verify("bob", SECRET)
    assert not passwords.verify("", SECRET)


def test_first_line_of_a_user_counts() -> None:
    """As in Apache the first of two lines decides, even where it is of no use."""
    other = ldap_sha1.hash("other")
    passwords = parse(f"alice:{SHA}", f"alice:{other}", "bob:plain", f"bob:{SHA}")
    assert passwords.verify("alice", SECRET)
    assert not passwords.verify("alice", "other")
    assert not passwords.verify("bob", SECRET)
    assert [number for number, _ in passwords.problems] == [2, 3, 4]


def test_byte_order_mark_is_no_part_of_the_first_user() -> None:
    """A file saved by an editor that puts a mark in front works."""
    assert parse_htpasswd(b"\xef\xbb\xbfalice:" + SHA.encode()).verify("alice", SECRET)


@pytest.mark.parametrize("scheme", HASHES)
@pytest.mark.parametrize("password", ("a\0b", "\0", "\ud800", "x" * 4097, "x" * 100_000))
def test_impossible_password_is_no_match(scheme: str, password: str, caplog: pytest.LogCaptureFixture) -> None:
    """NUL, lone surrogates and endless passwords are refused without a fault, for unknown users too."""
    passwords = parse(f"alice:{HASHES[scheme]}")
    assert not passwords.verify("alice", password)
    assert not passwords.verify("nobody", password)
    assert not passwords.verify(password, SECRET)
    assert caplog.text == ""


def test_empty_password_never_matches() -> None:
    """Not even the hash of an empty password lets anyone in."""
    passwords = parse(f"alice:{ldap_sha1.hash('')}", f"bob:{bcrypt.using(rounds=4).hash('')}")
    assert passwords.problems == ()
    assert not passwords.verify("alice", "")
    assert not passwords.verify("bob", "")


def test_bcrypt_password_of_73_bytes_is_no_match() -> None:
    """With bcrypt 72 bytes count; a longer password must not match by its beginning."""
    longest = "ä" * 36
    passwords = parse(f"alice:{bcrypt.using(rounds=4).hash(longest)}")
    assert passwords.verify("alice", longest)
    assert not passwords.verify("alice", longest + "x")
    assert not passwords.verify("nobody", longest + "x")


def test_long_password_matches_where_the_scheme_takes_it() -> None:
    """Schemes without bcrypt's limit take the whole password."""
    passwords = parse(f"alice:{sha256_crypt.using(rounds=1000).hash('x' * 100)}")
    assert passwords.verify("alice", "x" * 100)
    assert not passwords.verify("alice", "x" * 99)


def test_unknown_user_costs_one_hash_of_the_most_used_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown or unusable user is hashed against the scheme and cost that most lines have."""
    many = [bcrypt.using(rounds=5).hash(SECRET) for _ in range(2)]
    passwords = parse(f"a:{SHA}", f"b:{many[0]}", f"c:{BCRYPT}", f"d:{many[1]}", "e:plain")
    seen: list[str] = []
    verify = bcrypt.verify

    def note(secret: bytes, text: str) -> bool:
        seen.append(text)
        return bool(verify(secret, text))

    monkeypatch.setattr(bcrypt, "verify", note)
    for user in ("nobody", "e"):
        assert not passwords.verify(user, SECRET)
    assert [text[:7] for text in seen] == ["$2b$05$", "$2b$05$"]


def test_file_without_usable_lines_refuses_everyone() -> None:
    """An empty file is no error and lets nobody in."""
    for passwords in (parse_htpasswd(b""), parse("# nobody", "alice:plain")):
        assert not passwords.verify("alice", "plain")
        assert not passwords.verify("nobody", "x")


@pytest.mark.parametrize(
    "costly",
    (
        HASHES["2b"].replace("$04$", "$17$"),
        HASHES["sha256"].replace("rounds=1000", "rounds=999999999"),
        HASHES["sha512"].replace("rounds=1000", f"rounds={'9' * 5000}"),
        HASHES["argon2id"].replace("m=8", "m=4294967295"),
        HASHES["argon2id"].replace("t=1", "t=1000"),
    ),
)
def test_hash_that_costs_too_much_is_refused(costly: str) -> None:
    """A line whose verification would stop every other login is named, and leaves the others alone."""
    passwords = parse(f"alice:{costly}", f"bob:{SHA}")
    assert [number for number, _ in passwords.problems] == [1]
    assert not passwords.verify("alice", SECRET)
    assert passwords.verify("bob", SECRET)


@given(st.binary() | st.text(alphabet=":$#{}2aby\n\r =,mtp0159/.é").map(str.encode), st.text(), st.text())
def test_any_bytes_and_any_credentials_are_answered(data: bytes, user: str, password: str) -> None:
    """Neither the file nor the caller can raise anything, and none of these match."""
    assert not parse_htpasswd(data).verify(user, password)


def test_nothing_secret_is_shown_by_repr() -> None:
    """A snapshot that ends up in a traceback or a log shows no hash."""
    assert SHA not in repr(parse(f"alice:{SHA}"))


@pytest.mark.skipif(shutil.which("htpasswd") is None, reason="the program htpasswd (apache2-utils) is not here")
@pytest.mark.parametrize(
    ("options", "accepted"),
    (("-m", True), ("-B", True), ("-s", True), ("-2", True), ("-5", True), ("-d", False), ("-p", False)),
)
def test_output_of_the_htpasswd_program(tmp_path: Path, options: str, accepted: bool) -> None:
    """Lines written by Apache's own program match, except DES and plaintext."""
    path = tmp_path / "htpasswd"
    done = subprocess.run(
        ["htpasswd", "-c", "-b", options, str(path), "alice", "pass123"], check=False, capture_output=True
    )
    if done.returncode == 2:
        pytest.skip(f"this htpasswd program does not know {options}")
    assert open_file(path).current.verify("alice", "pass123") is accepted


@pytest.mark.parametrize("kind", ("missing", "directory", "pipe"))
def test_unreadable_file_at_the_start_is_one_line(tmp_path: Path, kind: str) -> None:
    """The person who starts the server reads which file and which option."""
    path = tmp_path / "htpasswd"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(ValueError, match="--passwords") as caught:
        open_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_replaced_or_edited_in_place_is_read_again(tmp_path: Path) -> None:
    """Both ways of writing take effect at the next look, and an unchanged file is not read."""
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{SHA}\n")
    file = open_file(path)
    first = file.current
    assert file.refresh() is first

    replace(path, f"bob:{SHA}\n")
    assert file.refresh().verify("bob", SECRET)
    assert not file.current.verify("alice", SECRET)

    with path.open("a") as out:
        out.write(f"carol:{SHA}\n")
    assert file.refresh().verify("carol", SECRET)


def test_same_size_and_time_but_another_file_is_read_again(tmp_path: Path) -> None:
    """A replacement that copies the old time stamps is still seen, by its inode."""
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{SHA}\n")
    file = open_file(path)
    status = path.stat()
    new = tmp_path / "new"
    new.write_text(f"carol:{SHA}\n")
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(path)
    assert file.refresh().verify("carol", SECRET)


def test_vanished_file_keeps_the_last_good_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Users can still log in, the log says so once, and the file counts again when it is back."""
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{SHA}\n")
    file = open_file(path)
    for make_unreadable in (path.unlink, path.mkdir):
        make_unreadable()
        for _ in range(3):
            assert file.refresh().verify("alice", SECRET)
    assert len(caplog.records) == 1
    path.rmdir()
    replace(path, f"bob:{SHA}\n")
    assert file.refresh().verify("bob", SECRET)
    assert not file.current.verify("alice", SECRET)
    path.unlink()
    file.refresh()
    assert len(caplog.records) == 2


def test_half_written_file_is_never_used(tmp_path: Path) -> None:
    """A writer that is between its first and its last byte is waited for."""
    path = tmp_path / "htpasswd"
    whole = f"alice:{SHA}\nbob:{SHA}\n"
    path.write_text(whole)
    steps: list[Callable[[], object]] = []

    def write_on(_: float) -> None:
        if steps:
            steps.pop(0)()

    file = open_file(path, write_on)
    path.write_text(whole[:20])
    steps[:] = [lambda: path.write_text(whole[:50]), lambda: path.write_text(whole + f"carol:{SHA}\n")]
    found = file.refresh()
    assert all(found.verify(user, SECRET) for user in ("alice", "bob", "carol"))
    assert found.problems == ()


def test_file_that_never_rests_keeps_the_last_good_content(tmp_path: Path) -> None:
    """Somebody who writes all the time does not stop anyone from logging in, but stops a start."""
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{SHA}\n")
    busy: list[bool] = []

    def write_on(_: float) -> None:
        if busy:
            path.write_text(path.read_text() + "x")

    file = open_file(path, write_on)
    busy.append(True)
    path.write_text("half")
    assert file.refresh().verify("alice", SECRET)
    with pytest.raises(ValueError, match="being written"):
        open_file(path, write_on)


def test_faulty_lines_are_logged_once_without_their_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the line number of each fault once, over any number of reloads, and nothing of the line."""
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{SHA}\nmallory:hunter2\n")
    file = open_file(path)
    path.write_text(f"alice:{SHA}\nmallory:hunter2\nbob:{SHA}\ntrent:{BCRYPT[:-1]}\n")
    file.refresh()
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.WARNING]
    assert "line 2" in caplog.messages[0]
    assert "line 4" in caplog.messages[1]
    for secret in ("mallory", "hunter2", "trent", BCRYPT[:-1], SHA):
        assert secret not in caplog.text


def test_many_threads_refresh_at_once(tmp_path: Path) -> None:
    """Every thread that looks after a change gets the new content."""
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{SHA}\n")
    file = open_file(path)
    replace(path, f"bob:{SHA}\n")
    found: list[Htpasswd] = []
    threads = [threading.Thread(target=lambda: found.append(file.refresh())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [passwords.verify("bob", SECRET) for passwords in found] == [True] * 8
    assert len(set(map(id, found))) == 1


class Moments:
    """What time it is, by the last change of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.later = 0.0

    def __call__(self) -> float:
        return self._path.stat().st_mtime + self.later


@pytest.mark.parametrize(
    "half", ("", "alice:", "alice:$2b$", ALICE_LINE[:-1], ALICE_LINE + "bob", BOB_LINE[:-1], BOB_LINE)
)
def test_what_may_be_half_a_file_waits(tmp_path: Path, half: str) -> None:
    """Its writer is given a second: then it is what it says."""
    path = tmp_path / "htpasswd"
    path.write_text(ALICE_LINE + BOB_LINE)
    moments = Moments(path)
    file = PasswordFile(path, pause=without_pause, clock=moments)
    first = file.current
    path.write_text(half)
    for moments.later in (0.0, 0.99):
        assert file.refresh() is first
    path.write_text(ALICE_LINE + BOB_LINE + "carol:x\n")
    moments.later = 0.0
    assert file.refresh().entries.keys() == {"alice", "bob", "carol"}
    path.write_text(half)
    moments.later = 1.01
    assert file.refresh() is not first
    assert file.current.entries.keys() < {"alice", "bob", "carol"}


def test_another_file_in_its_place_is_whole(tmp_path: Path) -> None:
    """Whoever is not in it is refused at once."""
    path = tmp_path / "htpasswd"
    path.write_text(ALICE_LINE + BOB_LINE)
    file = PasswordFile(path, pause=without_pause, clock=Moments(path))
    new = tmp_path / "new"
    new.write_text(BOB_LINE)
    new.replace(path)
    assert file.refresh().entries.keys() == {"bob"}


def test_nobody_left_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(ALICE_LINE)
    file = open_file(path)
    assert caplog.text == ""
    path.write_text("")
    file.refresh()
    assert "has no user who can log in" in caplog.text
