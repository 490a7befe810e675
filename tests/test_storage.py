"""Where bytes live: scratch, publishing, scanning, and the cache of metadata."""

import errno
import fcntl
import hashlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pypiserver_ng.errors import NoSpace, Unavailable
from pypiserver_ng.storage import (
    Directory,
    Exists,
    MetadataStore,
    Scratch,
    Seat,
    Seen,
    SharedLock,
    hash_stream,
    is_being_written,
    make_private_directory,
    translate_os_error,
)

NAME = "demo-1.0.tar.gz"


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two package directories, the first with a state directory in it."""
    pair = (tmp_path / "first", tmp_path / "second")
    for root in pair:
        root.mkdir()
    make_private_directory(pair[0] / ".state")
    return pair


@pytest.fixture
def directory(roots: tuple[Path, Path]) -> Directory:
    return Directory(roots, roots[0] / ".state")


@pytest.fixture
def scratch(directory: Directory) -> Iterator[Scratch]:
    """A finished file of the bytes ``new``."""
    made = directory.new_scratch()
    made.write(b"new")
    yield made
    made.discard()


def list_scratch(roots: tuple[Path, Path]) -> list[Path]:
    return list((roots[0] / ".state" / "scratch").iterdir())


def list_paths(directory: Directory) -> list[str]:
    return sorted(file.path for file in directory.scan()[0])


# Scratch.


def test_scratch_is_hashed_while_it_is_written(directory: Directory) -> None:
    """The three digests and the size are those of what lies on the disk."""
    scratch = directory.new_scratch()
    for block in (b"one", bytearray(b"two"), b"", b"x" * 100_000):
        scratch.write(block)
    content = scratch.path.read_bytes()
    assert content == b"onetwo" + b"x" * 100_000
    assert scratch.size == len(content)
    digests = scratch.digests()
    assert digests.sha256 == hashlib.sha256(content).hexdigest()
    assert digests.md5 == hashlib.md5(content).hexdigest()
    assert digests.blake2b_256 == hashlib.blake2b(content, digest_size=32).hexdigest()
    with scratch.path.open("rb", buffering=0) as stream:
        assert hash_stream(stream) == digests
    scratch.discard()


def test_discarded_scratch_is_gone(directory: Directory, roots: tuple[Path, Path]) -> None:
    """The file and its descriptor; discarding twice does no harm."""
    scratch = directory.new_scratch()
    scratch.write(b"content")
    with scratch.lock:
        fd = scratch.descriptor()
    scratch.discard()
    scratch.discard()
    assert list_scratch(roots) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_sweep_leaves_what_is_in_use(directory: Directory, roots: tuple[Path, Path], scratch: Scratch) -> None:
    """A process that died left an unlocked file; a living one holds its lock."""
    code = "import os; os.write(os.open('0' * 32, os.O_CREAT | os.O_WRONLY), b'x')"
    subprocess.run([sys.executable, "-c", code], cwd=scratch.path.parent, check=True)
    (scratch.path.parent / "notes.txt").write_text("somebody else's")
    with directory.keep_aside(NAME) as kept:
        assert kept is None
    (roots[0] / NAME).write_bytes(b"old")
    with directory.keep_aside(NAME) as kept:
        Directory(roots, roots[0] / ".state")
        assert kept is not None
        assert set(list_scratch(roots)) == {scratch.path, kept, scratch.path.with_name("notes.txt")}
    assert set(list_scratch(roots)) == {scratch.path, scratch.path.with_name("notes.txt")}


# Publishing.


def test_what_is_published_is_there(directory: Directory, roots: tuple[Path, Path], scratch: Scratch) -> None:
    """In the first directory, readable as the umask says, and with the facts that a scan sees."""
    directory.flush(scratch)
    seen = directory.publish(scratch, NAME, overwrite=False)
    path = roots[0] / NAME
    assert path.read_bytes() == b"new"
    assert [seen] == directory.scan()[0]
    mask = os.umask(0o022)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    scratch.discard()
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("links", (True, False))
def test_publishing_never_overwrites(
    directory: Directory, roots: tuple[Path, Path], scratch: Scratch, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Whoever was first stays, also on a file system without hard links."""
    if not links:
        monkeypatch.setattr(os, "link", refuse_link)
    (roots[0] / NAME).write_bytes(b"old")
    with pytest.raises(Exists):
        directory.publish(scratch, NAME, overwrite=False)
    assert (roots[0] / NAME).read_bytes() == b"old"


def refuse_link(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


def test_publishing_without_hard_links(
    directory: Directory, roots: tuple[Path, Path], scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same result by another way."""
    monkeypatch.setattr(os, "link", refuse_link)
    seen = directory.publish(scratch, NAME, overwrite=False)
    assert (roots[0] / NAME).read_bytes() == b"new"
    assert [seen] == directory.scan()[0]


def test_overwriting_when_told_to(directory: Directory, roots: tuple[Path, Path], scratch: Scratch) -> None:
    """Readers who opened the old file keep it."""
    (roots[0] / NAME).write_bytes(b"old")
    with (roots[0] / NAME).open("rb") as reader:
        directory.publish(scratch, NAME, overwrite=True)
        assert reader.read() == b"old"
    assert (roots[0] / NAME).read_bytes() == b"new"


def test_a_dangling_link_is_not_written_through(
    directory: Directory, roots: tuple[Path, Path], scratch: Scratch
) -> None:
    """A name is a name, wherever it points."""
    (roots[0] / NAME).symlink_to(roots[1] / "elsewhere")
    with pytest.raises(Exists):
        directory.publish(scratch, NAME, overwrite=False)
    assert not (roots[1] / "elsewhere").exists()


def test_deleting(directory: Directory, roots: tuple[Path, Path]) -> None:
    """What is gone already is no fault."""
    (roots[0] / NAME).write_bytes(b"x")
    directory.delete(directory.roots[0], NAME)
    directory.delete(directory.roots[0], NAME)
    assert list_paths(directory) == []


FAULTS = ((errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EIO, Unavailable), (errno.EROFS, Unavailable))


@pytest.mark.parametrize(("number", "failure"), FAULTS)
def test_what_a_failed_write_means(number: int, failure: type) -> None:
    """Full is full; anything else may pass. No path of the server is told."""
    translated = translate_os_error(OSError(number, os.strerror(number), "secret-path"))
    assert type(translated) is failure
    assert "secret-path" not in translated.message


# Scanning.


def test_what_a_scan_sees(directory: Directory, roots: tuple[Path, Path], tmp_path: Path) -> None:
    """Regular files at any depth and links to files; no dot names, no links to directories, no pipes."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "target-1.0.zip").write_bytes(b"target")
    for path in ("a-1.0.zip", "deep/er/b-1.0.zip", ".hidden/c-1.0.zip", "deep/.d-1.0.zip"):
        (roots[0] / path).parent.mkdir(parents=True, exist_ok=True)
        (roots[0] / path).write_bytes(b"x")
    (roots[1] / "link-1.0.zip").symlink_to(outside / "target-1.0.zip")
    (roots[1] / "dangling-1.0.zip").symlink_to(outside / "nothing")
    (roots[1] / "directory").symlink_to(outside)
    os.mkfifo(roots[1] / "pipe-1.0.zip")
    seen, failed = directory.scan()
    assert failed == []
    first, second = directory.roots
    assert sorted((file.root, file.path, file.size) for file in seen) == [
        (first, "a-1.0.zip", 1),
        (first, "deep/er/b-1.0.zip", 1),
        (second, "link-1.0.zip", 6),
    ]
    assert all(directory.look(file.root, file.path) == file for file in seen)
    for path in ("directory/target-1.0.zip", "pipe-1.0.zip", "dangling-1.0.zip", "nothing", "link-1.0.zip/x"):
        assert directory.look(second, path) is None


def test_a_directory_that_cannot_be_read_is_named(directory: Directory, roots: tuple[Path, Path]) -> None:
    """So that nobody takes its files for gone."""
    (roots[0] / "a-1.0.zip").write_bytes(b"x")
    roots[1].rmdir()
    seen, failed = directory.scan()
    assert [file.path for file in seen] == ["a-1.0.zip"]
    assert failed == [(directory.roots[1], "")]


def test_names_that_are_not_utf8_are_passed_over(
    directory: Directory, roots: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """No URL and no row can hold them; the log names them, and what lies beside them is served."""
    strange = os.fsencode(roots[0]) + b"/\xff"
    os.mkdir(strange)  # noqa: PTH102 - bytes
    (roots[0] / os.fsdecode(b"\xff") / "a-1.0.zip").write_bytes(b"x")
    (roots[0] / os.fsdecode(b"b\xff-1.0.zip")).write_bytes(b"x")
    (roots[0] / "c-1.0.zip").write_bytes(b"x")
    assert list_paths(directory) == ["c-1.0.zip"]
    assert "udcff" in caplog.text
    assert "rename it" in caplog.text


def test_opening(directory: Directory, roots: tuple[Path, Path]) -> None:
    """Regular files only, and a pipe does not hang the reader."""
    (roots[0] / NAME).write_bytes(b"content")
    fd = directory.open(directory.roots[0], NAME)
    assert os.pread(fd, 100, 0) == b"content"
    os.close(fd)
    os.mkfifo(roots[0] / "pipe-1.0.zip")
    for path in ("pipe-1.0.zip", ".state", "nothing"):
        with pytest.raises(OSError, match=r"."):
            directory.open(directory.roots[0], path)


# Who writes.


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="this system has no leases")
def test_a_writer_is_noticed(tmp_path: Path) -> None:
    """As long as its descriptor is open, and no longer."""
    path = tmp_path / "x"
    with path.open("wb"), path.open("rb") as reader:
        assert is_being_written(reader.fileno())
    with path.open("rb") as reader:
        assert not is_being_written(reader.fileno())


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="this system has no leases")
def test_a_writer_who_comes_while_we_ask_harms_nobody(tmp_path: Path) -> None:
    """The kernel signals whoever holds a lease when a writer comes; by default that signal ends the process."""
    (tmp_path / "x").touch()
    done = subprocess.run([sys.executable, "-c", _WRITER_COMES], cwd=tmp_path, env=_FIND_US, check=False)
    assert done.returncode == 0


_FIND_US = {"PYTHONPATH": str(Path(__file__).parents[1])}

#: Asks, and a writer comes just before the lease is given back.
_WRITER_COMES = """
import fcntl, os
from pypiserver_ng.storage import is_being_written

ask, broken = fcntl.fcntl, []

def interrupted(fd, command, argument):
    if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_UNLCK):
        try:
            os.open("x", os.O_WRONLY | os.O_NONBLOCK)
        except BlockingIOError:
            broken.append(True)
    return ask(fd, command, argument)

fcntl.fcntl = interrupted
assert not is_being_written(os.open("x", os.O_RDONLY))
assert broken
"""


# Core metadata.


def test_metadata_is_kept_by_its_digest(tmp_path: Path) -> None:
    """What is damaged is missing, and putting it again repairs it."""
    store = MetadataStore(tmp_path / "metadata")
    digest = store.put(b"Name: demo")
    assert digest == hashlib.sha256(b"Name: demo").hexdigest()
    assert store.get(digest) == b"Name: demo"
    assert store.get("0" * 64) is None
    (file,) = (path for path in (tmp_path / "metadata").rglob("*") if path.is_file())
    file.write_bytes(b"Name: dem")
    assert store.get(digest) is None
    assert store.put(b"Name: demo") == digest
    assert store.get(digest) == b"Name: demo"
    assert [path for path in (tmp_path / "metadata").rglob("*") if path.is_file()] == [file]


def test_a_private_directory(tmp_path: Path) -> None:
    """Others may not look into it, also when it was there before."""
    path = tmp_path / "a" / "b"
    make_private_directory(path)
    path.chmod(0o755)
    make_private_directory(path)
    assert path.stat().st_mode & 0o777 == 0o700


def test_facts_of_a_file(roots: tuple[Path, Path], directory: Directory) -> None:
    """Size and time to the nanosecond: they tell whether a file changed."""
    path = roots[0] / "deep" / NAME
    path.parent.mkdir()
    path.write_bytes(b"12345")
    moment = time.time_ns() // 10**9 * 10**9 + 123_456_000
    os.utime(path, ns=(moment, moment))
    seen = directory.look(directory.roots[0], f"deep/{NAME}")
    assert seen == Seen(directory.roots[0], f"deep/{NAME}", 5, moment)
    assert seen.filename == NAME


def test_sweep_leaves_what_is_referred_to(tmp_path: Path) -> None:
    """Metadata of deleted files goes, once it is old; what a file refers to stays."""
    store = MetadataStore(tmp_path)
    kept, old, young = (store.put(content) for content in (b"kept", b"old", b"young"))
    for digest in (kept, old):
        os.utime(tmp_path / digest[:2] / digest, (1, 1))
    store.sweep({kept})
    assert [store.get(digest) is not None for digest in (kept, old, young)] == [True, False, True]


def test_scratch_that_was_given_up_takes_no_more(directory: Directory) -> None:
    """A thread that still writes for a request that is gone writes into nobody's file."""
    scratch = directory.new_scratch()
    scratch.discard()
    with pytest.raises(OSError, match="given up"):
        scratch.write(b"late")
    with pytest.raises(OSError, match="given up"):
        directory.publish(scratch, NAME, overwrite=False)
    scratch.discard()


# Locks.


def test_a_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    """Whoever has it, has it alone, until he gives it up or dies."""
    lock = SharedLock(tmp_path / "lock")
    script = (
        "import sys; from pathlib import Path; from pypiserver_ng.storage import SharedLock\n"
        "lock = SharedLock(Path(sys.argv[1]))\n"
        "with lock: print('in', flush=True); sys.stdin.read(1)\n"
        "print('out', flush=True); sys.stdin.read(1)"
    )
    with lock:
        other = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout is not None
        ready, _, _ = select.select([other.stdout], [], [], 0.7)
        assert ready == []
    with other:
        assert other.stdout.readline() == "in\n"
        taken = threading.Event()

        def take() -> None:
            with lock:
                taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.2)
        other.kill()
        assert taken.wait(10)
        thread.join()
    lock.close()


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped with the lock in its hands costs others their change, not their life."""
    monkeypatch.setattr("pypiserver_ng.storage.lock._PATIENCE_SECONDS", 0.05)
    one, other = SharedLock(tmp_path / "lock"), SharedLock(tmp_path / "lock")
    with one, pytest.raises(TimeoutError), other:
        pass
    with one, pytest.raises(TimeoutError), one:
        pass
    with other:
        pass
    one.close()
    other.close()


def test_who_waited_for_threads_waits_less_for_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds in all, by a clock that only waiting moves."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    mine, other = SharedLock(tmp_path / "lock"), SharedLock(tmp_path / "lock")
    with other, monkeypatch.context() as patch:
        patch.setattr("pypiserver_ng.storage.lock.time", clock)
        threads = SimpleNamespace(acquire=lambda timeout: not clock.sleep(timeout - 1), release=lambda: None)
        patch.setattr(mine, "_threads", threads)
        with pytest.raises(TimeoutError), mine:
            pass
        assert 10 < now[0] < 10.1
    mine.close()
    other.close()


def test_a_seat_is_for_one(tmp_path: Path) -> None:
    """Until who has it leaves."""
    one, other = Seat(tmp_path / "seat"), Seat(tmp_path / "seat")
    assert (one.take(), other.take(), one.take()) == (True, False, True)
    one.close()
    assert other.take()
    other.close()
