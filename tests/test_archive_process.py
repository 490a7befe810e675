"""Archives are read by processes with limits: the same answers, and whatever happens to one harms nobody else."""

import base64
import gzip
import hashlib
import lzma
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pypiserver_ng.archive.found import Found, inspect_found
from pypiserver_ng.archive.inspector import Inspector, Limits
from pypiserver_ng.archive.uploads import inspect_upload
from pypiserver_ng.archive.wire import Broken, Late, receive_answer, send_answer
from pypiserver_ng.errors import Invalid, Unavailable
from pypiserver_ng.filenames import parse_found, parse_upload
from tests import test_archive, test_archive_sdists
from tests.tools import house
from tests.tools.raw_archives import Member, block, entry, make_zip, pax

WHEEL, SDIST, INFO, METADATA = test_archive.WHEEL, test_archive_sdists.SDIST, test_archive.INFO, test_archive.METADATA
BEYOND = "The archive cannot be read within the limits of memory and time"
TOO_LATE = "The archive takes too long to read"
MIB = 2**20
NOTHING = base64.urlsafe_b64encode(hashlib.sha256().digest()).rstrip(b"=").decode()


@pytest.fixture
def inspector() -> Iterator[Inspector]:
    """With the usual limits."""
    inspector = Inspector()
    yield inspector
    inspector.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Inspector]:
    """For tests that only ask."""
    inspector = Inspector()
    yield inspector
    inspector.close()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel in order."""
    return put(tmp_path / "good", test_archive.make_wheel())


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def add(inspector: Inspector, path: Path, filename: str = WHEEL) -> bytes | str:
    """The metadata of an upload, or why it is refused."""
    try:
        return inspector.inspect_upload(path, parse_upload(filename))
    except Invalid as refused:
        return refused.message


def find(inspector: Inspector, path: Path, filename: str = WHEEL) -> Found:
    parsed = parse_found(filename)
    assert parsed is not None
    with path.open("rb") as file:
        return inspector.inspect_found(file.fileno(), parsed)


def add_here(path: Path, filename: str) -> bytes | str:
    """As `add`, in this process."""
    try:
        with path.open("rb") as file:
            return inspect_upload(file, parse_upload(filename))
    except Invalid as refused:
        return refused.message


def find_here(path: Path, filename: str) -> Found:
    parsed = parse_found(filename)
    assert parsed is not None
    with path.open("rb") as file:
        return inspect_found(file, parsed)


def processes(inspector: Inspector) -> set[int]:
    """The ids of its processes."""
    return {process._process.pid for process in inspector._running}


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def measure(pid: int) -> int:
    """Bytes of address space."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as it holds; fail when it does not for ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.001)


def list_descriptors(pid: int) -> list[str]:
    return sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


def is_reading(pid: int) -> bool:
    """Whether a process was given a file: it has the socket, the null device twice, and /proc otherwise."""
    return len(list_descriptors(pid)) > 4


_WHOLE = [*test_archive.GOOD.items(), *test_archive_sdists.GOOD.items()]
_FOUND = [*test_archive.FOUND.items(), *test_archive_sdists.FOUND.items()]
SAMPLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    **{f"good: {name}": (filename, partial(bytes, content)) for name, (filename, content) in _WHOLE},
    **{f"bad wheel: {name}": (WHEEL, make) for name, (make, _) in test_archive.BAD_WHEELS.items()},
    **{f"bad sdist: {name}": (SDIST, make) for name, (make, _) in test_archive_sdists.BAD_SDISTS.items()},
    **{f"found: {name}": (filename, partial(bytes, content)) for name, (filename, content, _) in _FOUND},
}


@pytest.mark.parametrize(("filename", "make"), SAMPLES.values(), ids=SAMPLES)
def test_a_process_says_what_the_reader_says(
    tmp_path: Path, shared: Inspector, filename: str, make: Callable[[], bytes]
) -> None:
    """Metadata, reason and state come back as they are."""
    path = put(tmp_path / "sample", make())
    assert find_here(path, filename) == find(shared, path, filename)
    if filename.endswith((".whl", ".zip", ".tar.gz")):
        assert add_here(path, filename) == add(shared, path, filename)


# The worst that the readers allow


def wheel_of(members: list[Member], record: bytes | None = None, metadata: bytes = METADATA) -> bytes:
    """A wheel with these empty members in its RECORD."""
    files = {f"{INFO}/METADATA": metadata, f"{INFO}/WHEEL": b"Wheel-Version: 1.0\n"}
    rows = [f"{member.name.decode()},sha256={NOTHING},0\n" for member in members] + [f"{name},,\n" for name in files]
    files[f"{INFO}/RECORD"] = record if record is not None else "".join(rows).encode()
    return make_zip([*members, *(Member(name.encode(), data, 8) for name, data in files.items())])


def sdist_of(entries: Iterator[bytes]) -> bytes:
    return gzip.compress(test_archive_sdists.PKG_INFO + b"".join(entries) + bytes(1024), 1)


PAX = entry(b"PaxHeader/x", b"".join(b"8 %04x=\n" % number for number in range(8_000)), b"x")
WORST: dict[str, tuple[str, Callable[[], bytes], bytes | str]] = {
    "50,000 members with long names": (
        WHEEL,
        lambda: wheel_of([Member(b"demo/%06d/%s.py" % (i, b"n" * 80)) for i in range(49_997)]),
        METADATA,
    ),
    "60,000 members": (
        WHEEL,
        lambda: wheel_of([Member(b"demo/%06d" % i) for i in range(60_000)]),
        "The archive has more than 50000 members",
    ),
    "names that take four bytes a letter": (
        WHEEL,
        lambda: wheel_of(
            [Member(f"demo/\N{GRINNING FACE}{i:04d}/{'d' * 3_000}".encode(), flags=0x800) for i in range(2_600)]
        ),
        METADATA,
    ),
    "a RECORD of nothing but lines": (
        WHEEL,
        lambda: wheel_of([], b"\n" * (8 * MIB)),
        "The wheel's RECORD is malformed",
    ),
    "a RECORD of other files": (
        WHEEL,
        lambda: wheel_of([], b"".join(b"%x,,\n" % i for i in range(900_000))),
        "The wheel's RECORD names '0', which is not there",
    ),
    "a RECORD of columns": (
        WHEEL,
        lambda: wheel_of([], b'"\n",' * (2 * MIB)),
        "The wheel's RECORD is malformed",
    ),
    "the largest METADATA": (
        WHEEL,
        lambda: wheel_of([], metadata=METADATA.ljust(4 * MIB, b"\n")),
        METADATA.ljust(4 * MIB, b"\n"),
    ),
    "a METADATA that is larger": (
        WHEEL,
        lambda: wheel_of([], metadata=METADATA.ljust(4 * MIB + 1, b"\n")),
        f"The archive has a member larger than 4 MiB: '{INFO}/METADATA'",
    ),
    "120,000 members of a tar": (
        SDIST,
        lambda: sdist_of(iter([entry(b"demo-1.0/x/", kind=b"5") * 120_000])),
        "The archive has more than 100000 members",
    ),
    "hard links": (
        SDIST,
        lambda: sdist_of(entry(b"demo-1.0/%06d" % i, kind=b"1", target=b"demo-1.0/t%06d" % i) for i in range(99_998)),
        METADATA,
    ),
    "deep directories": (
        SDIST,
        lambda: sdist_of(
            part for i in range(2_000) for part in (pax(path=b"demo-1.0/%d" % i + b"/d" * 2_000), entry(b"x"))
        ),
        "The archive's names of directories and links have more than 2097152 characters",
    ),
    "pax headers of thousands of records": (
        SDIST,
        lambda: sdist_of(PAX + entry(b"demo-1.0/%d" % i) for i in range(130)),
        METADATA,
    ),
    "pax headers without end": (
        SDIST,
        lambda: sdist_of(part for i in range(150) for part in (pax(comment=b"x" * 60_000), entry(b"demo-1.0/%d" % i))),
        "The archive has too long an extension header",
    ),
    "just below a bomb": (
        SDIST,
        lambda: sdist_of(iter([entry(b"demo-1.0/random", os.urandom(MIB)), entry(b"demo-1.0/x", bytes(50 * MIB))])),
        METADATA,
    ),
}


@pytest.mark.parametrize(("filename", "make", "expected"), WORST.values(), ids=WORST)
def test_the_worst_archive_has_an_answer_of_its_own(
    tmp_path: Path, shared: Inspector, filename: str, make: Callable[[], bytes], expected: bytes | str
) -> None:
    """Within 64 MiB and a few seconds: it is the readers that decide, not what ends a process."""
    path = put(tmp_path / "worst", make())
    assert expected == add(shared, path, filename)
    assert find(shared, path, filename).problem != BEYOND


def test_a_process_has_limits(inspector: Inspector, wheel: Path) -> None:
    """It may write nothing, start nothing, open little, and leaves no core; memory and time are per archive."""
    add(inspector, wheel)
    (pid,) = processes(inspector)
    limits = {line[:26].strip(): line[26:47].strip() for line in Path(f"/proc/{pid}/limits").read_text().splitlines()}
    assert {"0"} == {limits[name] for name in ("Max file size", "Max processes", "Max core file size")}
    assert limits["Max open files"] == "16"
    assert 64 * MIB <= int(limits["Max address space"]) <= measure(pid) + 64 * MIB
    assert 4 <= int(limits["Max cpu time"]) <= 6
    assert "SECRET" not in Path(f"/proc/{pid}/environ").read_text()


# What happens to processes


def slow_sdist() -> bytes:
    """An sdist for seconds of processor: some noise, packed once and there many times."""
    streams = [test_archive_sdists.PKG_INFO + block(b"demo-1.0/noise", 120 * MIB), os.urandom(MIB // 2).hex().encode()]
    head, noise = (lzma.compress(stream, preset=0) for stream in streams)
    return head + noise * 120 + lzma.compress(bytes(1024))


def test_an_archive_that_needs_too_much_memory(tmp_path: Path, wheel: Path) -> None:
    """Its process ends, it is refused or listed without metadata, and the next one is read."""
    hog = put(tmp_path / "hog", wheel_of([], metadata=METADATA.ljust(4 * MIB, b"\n")))
    inspector = Inspector(Limits(memory=3 * MIB))
    try:
        assert add(inspector, wheel) == METADATA
        assert add(inspector, hog) == BEYOND
        assert add(inspector, wheel) == METADATA
        assert find(inspector, hog) == Found(None, complete=True, problem=BEYOND)
        assert find(inspector, wheel) == Found(METADATA, complete=True)
    finally:
        inspector.close()


def test_an_archive_that_needs_too_much_processor(tmp_path: Path, wheel: Path) -> None:
    """As with memory; the clock has not run out."""
    hog = put(tmp_path / "hog", slow_sdist())
    inspector = Inspector(Limits(processor=1, clock=60))
    try:
        assert find(inspector, hog, "demo-1.0.tar.xz") == Found(None, complete=True, problem=BEYOND)
        assert find(inspector, wheel) == Found(METADATA, complete=True)
    finally:
        inspector.close()


def test_an_answer_that_does_not_come_in_time(wheel: Path) -> None:
    """A process that hangs is replaced."""
    inspector = Inspector(Limits(clock=0.3))
    try:
        assert add(inspector, wheel) == METADATA
        (hanging,) = processes(inspector)
        os.kill(hanging, signal.SIGSTOP)
        assert add(inspector, wheel) == TOO_LATE
        assert not is_running(hanging)
        assert add(inspector, wheel) == METADATA
        assert hanging not in processes(inspector)
    finally:
        inspector.close()


def test_a_process_killed_at_work(tmp_path: Path, inspector: Inspector, wheel: Path) -> None:
    """No limit of ours does that: the file may be as good as any, and is tried again."""
    add(inspector, wheel)
    (pid,) = processes(inspector)
    slow = put(tmp_path / "slow", slow_sdist())
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(find, inspector, slow, "demo-1.0.tar.xz")
        wait_until(lambda: is_reading(pid))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InterruptedError):
            answer.result(10)
    assert add(inspector, wheel) == METADATA


@pytest.mark.parametrize("stopped", (False, True))
def test_a_process_killed_while_idle(inspector: Inspector, wheel: Path, stopped: bool) -> None:
    """That is no file's fault, whether the next one was sent to it already or not."""
    add(inspector, wheel)
    (pid,) = processes(inspector)
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        if stopped:
            answer = threads.submit(add, inspector, wheel)
            wait_until(lambda: inspector._places.qsize() == 1)
            # What was sent lies unread in its socket.
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        if not stopped:
            answer = threads.submit(add, inspector, wheel)
        assert answer.result(10) == METADATA
    assert pid not in processes(inspector)


def test_signals_for_the_server_reach_no_job(inspector: Inspector, wheel: Path) -> None:
    """Who tells all processes of a service to end wants the server to finish what it does."""
    add(inspector, wheel)
    (pid,) = processes(inspector)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    assert add(inspector, wheel) == METADATA
    assert processes(inspector) == {pid}
    assert os.getpgid(pid) == os.getsid(pid) == pid


def test_a_process_makes_room_after_many_archives(inspector: Inspector, wheel: Path) -> None:
    """What one left behind in it does not stay for ever."""
    seen: set[int] = set()
    for _ in range(5001):
        assert add(inspector, wheel) == METADATA
        seen |= processes(inspector)
    assert len(seen) == 2
    assert sum(map(is_running, seen)) == 1


def test_a_process_that_grew_makes_room(tmp_path: Path, inspector: Inspector, wheel: Path) -> None:
    """What one archive took is not there for good."""
    add(inspector, wheel)
    (pid,) = processes(inspector)
    first = measure(pid)
    name = "names that take four bytes a letter"
    assert add(inspector, put(tmp_path / "large", WORST[name][1]())) == METADATA
    assert add(inspector, wheel) == METADATA
    (later,) = processes(inspector)
    assert measure(later) < first + 18 * MIB


def test_many_threads_ask_at_once(tmp_path: Path, inspector: Inspector) -> None:
    """Each gets the answer to its own question, from two processes at most."""
    paths = [
        put(tmp_path / f"{i}", wheel_of([], metadata=METADATA + b"Summary: %d\n" % i) if i % 5 else b"garbage")
        for i in range(40)
    ]
    expected = [METADATA + b"Summary: %d\n" % i if i % 5 else "The file is not a zip archive" for i in range(40)]
    most = 0

    def ask(path: Path) -> bytes | str:
        nonlocal most
        answer = add(inspector, path)
        most = max(most, len(processes(inspector)))
        return answer

    with ThreadPoolExecutor(16) as threads:
        for _ in range(5):
            assert expected == list(threads.map(ask, paths))
    assert most == 2


def test_nothing_is_left_open(tmp_path: Path, wheel: Path) -> None:
    """Neither descriptors nor processes, whatever became of the jobs."""
    before = list_descriptors(os.getpid())
    inspector = Inspector(Limits(memory=3 * MIB, clock=0.3))
    hog = put(tmp_path / "hog", wheel_of([], metadata=METADATA.ljust(4 * MIB, b"\n")))
    seen: set[int] = set()
    for path in (wheel, hog, put(tmp_path / "bad", b"x"), wheel):
        add(inspector, path)
        find(inspector, path)
        seen |= processes(inspector)
    os.kill(next(iter(processes(inspector))), signal.SIGSTOP)
    assert add(inspector, wheel) == TOO_LATE
    inspector.close()
    assert before == list_descriptors(os.getpid())
    assert not [pid for pid in seen if Path(f"/proc/{pid}").exists()]


def test_closing_ends_what_is_being_read(tmp_path: Path, wheel: Path) -> None:
    """Who waits is told that it says nothing of the file; so is who asks later."""
    inspector = Inspector()
    add(inspector, wheel)
    (pid,) = processes(inspector)
    slow = put(tmp_path / "slow", slow_sdist())
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(find, inspector, slow, "demo-1.0.tar.xz")
        wait_until(lambda: is_reading(pid))
        inspector.close()
        with pytest.raises(InterruptedError):
            answer.result(10)
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(Unavailable):
        add(inspector, wheel)
    with pytest.raises(InterruptedError):
        find(inspector, wheel)


@pytest.mark.parametrize("program", ("/nonexistent/python", "/bin/false"))
def test_no_process_can_be_had(
    monkeypatch: pytest.MonkeyPatch, inspector: Inspector, wheel: Path, program: str
) -> None:
    """An upload has to be tried again, a found file stays unread; both work once there is one."""
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", program)
        with pytest.raises(Unavailable) as refused:
            add(inspector, wheel)
        assert refused.value.retry_after
        with pytest.raises(OSError, match=r"nonexistent|does not start"):
            find(inspector, wheel)
    assert add(inspector, wheel) == METADATA


def test_an_index_without_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Uploads are to be tried again, and files that lie in the directory appear once they can be read."""

    async def scenario() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", "/nonexistent/python")
            house.WHEEL.write(tmp_path)
            async with house.opened(tmp_path) as opened:
                await house.eventually(opened.is_pending)
                with pytest.raises(Unavailable):
                    await opened.add(house.NEWER)
                patched.undo()
                await house.listed(opened, house.WHEEL.filename)
                await opened.add(house.NEWER)
                assert await opened.names() == [house.WHEEL.filename, house.NEWER.filename]

    house.run(scenario())


def test_a_file_that_cannot_be_read(tmp_path: Path, inspector: Inspector) -> None:
    """A fault of the disk is no property of the archive."""
    with pytest.raises(IsADirectoryError):
        inspector.inspect_found(os.open(tmp_path, os.O_RDONLY), parse_upload(SDIST))


def test_the_position_in_the_file_stays(inspector: Inspector, wheel: Path) -> None:
    """Whoever asks goes on reading where it was, even beside a process that was given up."""
    parsed = parse_upload(WHEEL)
    with wheel.open("rb", buffering=0) as file:
        file.seek(7)
        inspector.inspect_found(file.fileno(), parsed)
        assert file.tell() == 7


# The server that asks

SERVER = """
import os, signal, sys, time
from pathlib import Path
from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.filenames import parse_upload

inspector = Inspector()
inspector.inspect_upload(Path(sys.argv[1]), parse_upload(sys.argv[2]))
try:
    print(next(iter(inspector._running))._process.pid, flush=True)
    signal.pause()
except KeyboardInterrupt:
    inspector.close()
"""


@pytest.fixture
def server(tmp_path: Path, wheel: Path) -> Iterator["subprocess.Popen[str]"]:
    """A program elsewhere that finds the project by its path and has read one archive."""
    command = [sys.executable, "-c", SERVER, str(wheel), WHEEL]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "SECRET": "SECRET"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        yield program
        program.kill()


def read_pid(program: "subprocess.Popen[str]") -> int:
    assert program.stdout
    return int(program.stdout.readline())


def test_the_processes_end_with_the_server(server: "subprocess.Popen[str]") -> None:
    """However it ends, they notice."""
    pid = read_pid(server)
    assert is_running(pid)
    server.kill()
    wait_until(lambda: not is_running(pid))


def test_the_secrets_of_the_server_stay_with_it(server: "subprocess.Popen[str]") -> None:
    """What reads hostile bytes has neither its environment nor its arguments."""
    pid = read_pid(server)
    for kind in ("environ", "cmdline"):
        assert "SECRET" not in Path(f"/proc/{pid}/{kind}").read_text()


def test_ctrl_c_is_for_the_server(server: "subprocess.Popen[str]") -> None:
    """The processes end with it and say nothing."""
    pid = read_pid(server)
    os.killpg(server.pid, signal.SIGINT)
    assert server.stderr
    assert server.stderr.read() == ""
    assert server.wait(10) == 0
    assert not is_running(pid)


# Answers that no reader gives


FORGED = {
    "nothing": (b"", True),
    "half a head": (b"u", True),
    "metadata cut short": (b"f\0" + bytes(4) + (10).to_bytes(4, "big") + bytes(4) + b"short", True),
    "too much metadata": (b"u\0" + bytes(4) + (4 * MIB + 1).to_bytes(4, "big") + bytes(4), False),
    "too long a reason": (b"i\0" + bytes(4) + b"\xff" * 4 + (2**31).to_bytes(4, "big"), False),
    "no metadata": (b"u\0" + bytes(4) + b"\xff" * 4 + bytes(4), False),
    "no such kind": (b"?\0" + bytes(12), False),
}


@pytest.mark.parametrize(("forged", "ends"), FORGED.values(), ids=FORGED)
def test_a_forged_answer_is_none(forged: bytes, ends: bool) -> None:
    """A process that hostile bytes took over cannot make the server read more than an answer may have."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(forged)
        if ends:
            theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(Broken):
            receive_answer(ours, time.monotonic() + 0.5)


def test_an_answer_in_drops_is_late() -> None:
    """Every byte comes soon after the last, and the whole too late."""
    ours, theirs = socket.socketpair()
    done = threading.Event()

    def drip() -> None:
        for byte in b"u\0" + bytes(4) + (4).to_bytes(4, "big") + bytes(4) + b"drop":
            theirs.send(bytes([byte]))
            done.wait(0.05)

    with ours, theirs:
        dripping = threading.Thread(target=drip)
        dripping.start()
        with pytest.raises(Late):
            receive_answer(ours, time.monotonic() + 0.2)
        done.set()
        dripping.join()


@pytest.mark.parametrize(
    "result",
    (b"", b"x" * MIB, Found(None, complete=False), Found(b"", complete=True, problem="why"), Invalid("why \udcff é")),
    ids=repr,
)
def test_an_answer_comes_back_as_it_was(result: bytes | Found | Invalid) -> None:
    """None and nothing are two things; text that cannot be sent is spelled out."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = threading.Thread(target=send_answer, args=(theirs, result), kwargs={"spent": True})
        sending.start()
        received, spent = receive_answer(ours, time.monotonic() + 10)
        sending.join()
    assert spent
    if isinstance(result, Invalid):
        assert isinstance(received, Invalid)
        assert received.message == r"why \udcff é"
    else:
        assert result == received
