"""The machine fails under a running server: the request that meets it is refused, and all others go on.

When the fault is over everything works again, without a restart.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.faults.answers import ask, find_false_links, list_files, traced
from tests.faults.expected import LARGE, NEW, NOISE, OLD, OTHER, expect_reads, expect_recovery, expect_refusal, names_in
from tests.tools.crashes import Disk, start
from tests.tools.distributions import build_wheel, make_wheel
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, wait_until
from tests.tools.uploads import remove, upload

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")

CLOSED = (*OPEN, "--disable-fallback")


def mount(*arguments: str | Path) -> None:
    if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 3 MiB."""
    point = tmp_path / "small"
    point.mkdir()
    mount("-t", "tmpfs", "-o", "size=3m", "tmpfs", point)
    yield point
    subprocess.run(["umount", "-l", point], capture_output=True, check=False)


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Cover the directory with a view of itself that takes no writes; it works also where files are open."""
    mount("--bind", directory, directory)
    try:
        mount("-o", "remount,bind,ro", directory)
        yield
    finally:
        subprocess.run(["umount", "-l", directory], capture_output=True, check=False)


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """Not a byte is free."""
    filler = directory / ".filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1):
            try:
                while stream.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


# Space


@needs_root
def test_full_disk(small: Path, serve: Serve) -> None:
    """507 while not a byte is free, and for a file that does not fit; nothing stays of either."""
    packages = small / "packages"
    packages.mkdir()
    server = serve(*CLOSED, packages=packages)
    assert upload(server.url, OLD).status_code == 200
    with full(small):
        for built in (NEW, LARGE):
            expect_refusal(server, built, 507)
        expect_reads(server, OLD)
        assert (names_in(packages / ".pypiserver-ng" / "scratch"), names_in(packages)) == (set(), {OLD.filename})
    large = build_wheel("demo", "9.1", extra_files={"demo/noise.bin": NOISE * 6})
    expect_refusal(server, large, 507)
    assert (names_in(packages / ".pypiserver-ng" / "scratch"), names_in(packages)) == (set(), {OLD.filename})
    expect_recovery(server, NEW)


@needs_root
def test_disk_that_fills_up_while_many_upload(small: Path, serve: Serve) -> None:
    """Whoever was told 200 is there, whoever was told 507 is not, and the catalog is whole."""
    packages = small / "packages"
    packages.mkdir()
    server = serve(*CLOSED, "--workers", "4", packages=packages)
    told: dict[str, int] = {}
    number = 0
    while list(told.values()).count(507) < 5:
        number += 1
        assert number < 200
        built = build_wheel("demo", f"1.{number}", extra_files={"demo/noise.bin": os.urandom(100_000)})
        told[built.filename] = upload(server.url, built).status_code
    assert set(told.values()) == {200, 507}
    stored = {filename for filename, status in told.items() if status == 200}
    assert {file.filename for file in list_files(server.url, "demo")} == names_in(packages) == stored
    assert names_in(packages / ".pypiserver-ng" / "scratch") == set()
    # A deletion is what frees space.
    assert remove(server.url, name="demo", version="1.1").status_code == 200
    assert find_false_links(server.url) == []


@needs_root
def test_full_state_directory(small: Path, packages: Path, serve: Serve, program: Program) -> None:
    """The catalog's disk is full, the files' is not: no file without its row, no yank that is not recorded."""
    state = small / "state"
    server = serve(*CLOSED, "--state-dir", str(state))
    assert upload(server.url, OLD).status_code == 200
    with full(small):
        expect_refusal(server, NEW, 507)
        assert remove(server.url, name="demo", version="1.0").status_code == 507
        done = program.run("yank", "demo", "1.0", "--state-dir", state, packages)
        assert (done.returncode, "no space" in done.stderr.splitlines()[-1]) == (1, True), done
        expect_reads(server, OLD)
        assert {file.yanked for file in list_files(server.url, "demo")} == {None}
        assert names_in(packages) == {OLD.filename}
        assert names_in(packages / ".pypiserver-ng-scratch") == set()
        # Whatever is copied in now must not be taken for a project that is not here.
        make_wheel(packages, "copied", "1.0")
        wait_until(lambda: ask(server.url, "/simple/copied/").status == 503, within=10)
    expect_recovery(server, NEW)
    wait_until(lambda: ask(server.url, "/simple/copied/").status == 200, within=30)
    assert program.run("yank", "demo", "1.0", "--state-dir", state, packages).returncode == 0
    assert {file.yanked for file in list_files(server.url, "demo")} == {"", None}


@needs_root
def test_start_on_a_full_state_directory(small: Path, packages: Path, serve: Serve) -> None:
    """What was known is answered, what was copied in meanwhile is local, and is listed when there is room again."""
    state = small / "state"
    server = serve(*CLOSED, "--state-dir", str(state))
    assert upload(server.url, OLD).status_code == 200
    server.stop()
    for number in range(200):
        make_wheel(packages, f"copied{number}", "1.0")
    with full(small):
        again = serve(*CLOSED, "--state-dir", str(state))
        expect_reads(again, OLD)
        assert ask(again.url, "/simple/copied7/").status == 503
    wait_until(lambda: ask(again.url, "/simple/copied7/").status == 200, within=30)


@pytest.fixture
def program(tmp_path: Path, environment: dict[str, str]) -> Program:
    return Program(tmp_path, environment)


# Disks that take no writes


@needs_root
@pytest.mark.parametrize("is_state_apart", (False, True), ids=["everything", "files"])
def test_read_only(packages: Path, tmp_path: Path, serve: Serve, program: Program, is_state_apart: bool) -> None:
    """The file system turns read-only: 503 for every write, and every page and file as before."""
    state = tmp_path / "state" if is_state_apart else packages / ".pypiserver-ng"
    server = serve(*CLOSED, "--state-dir", str(state))
    assert upload(server.url, OLD).status_code == 200
    with read_only(packages):
        for _ in range(3):
            expect_refusal(server, NEW, 503)
        assert remove(server.url, name="demo", version="1.0").status_code in {403, 503}
        expect_reads(server, OLD)
        if not is_state_apart:
            done = program.run("yank", "demo", "1.0", packages)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
        expect_reads(server, OLD)
    expect_reads(server, OLD)
    expect_recovery(server, NEW)
    assert names_in(packages) == {OLD.filename, NEW.filename}
    assert names_in(state / "scratch") == set()


@needs_root
def test_state_disk_that_dies(packages: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """Every access to the catalog's disk is an I/O error: 503 for writes; files on another disk are served."""
    try:
        disk = Disk(tmp_path)
        disk.mount()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no ext4 can be made and mounted here")
    with ExitStack() as cleaning:
        cleaning.callback(disk.unmount)
        server = start(packages, environment, "--state-dir", str(disk.point / "state"))
        cleaning.callback(server.kill)
        assert upload(server.url, OLD).status_code == 200
        expect_reads(server, OLD)
        disk.cut()
        expect_reads(server, OLD)
        expect_refusal(server, NEW, 503)
        assert remove(server.url, name="demo", version="1.0").status_code == 503
        expect_reads(server, OLD)
        assert names_in(packages) == {OLD.filename}


#: System calls that fail, on which path below the package directory (None: on every one), and what an upload is
#: answered with then.
FAILING = (
    ("fsync,fdatasync:error=EIO", None, 503),
    ("fsync,fdatasync:error=EDQUOT", None, 507),
    ("link,linkat:error=EIO", None, 503),
    ("link,linkat:error=ENOSPC", None, 507),
    # The new name is there and may not be durable.
    ("fsync:error=EIO", ".", 503),
    # The catalog's pages, their flush, and what ends its transactions.
    ("pwrite64:error=EIO", None, 503),
    ("pwrite64:error=ENOSPC", None, 507),
    ("fsync,fdatasync:error=EIO", ".pypiserver-ng/catalog.sqlite", 503),
    ("fsync,fdatasync:error=EIO", ".pypiserver-ng/catalog.sqlite-journal", 503),
    ("ftruncate:error=EIO", None, 503),
)


@needs_strace
@pytest.mark.parametrize(("inject", "path", "status"), FAILING)
def test_failing_system_call(packages: Path, serve: Serve, inject: str, path: str | None, status: int) -> None:
    """The upload that meets one is refused and leaves nothing; afterwards it is stored."""
    server = serve(*CLOSED)
    assert upload(server.url, OLD).status_code == 200
    expect_reads(server, OLD)
    only = ("-P", str(packages / path)) if path else ()
    with traced(server.process.pid, *only, "-e", f"inject={inject}"):
        expect_refusal(server, NEW, status)
        expect_reads(server, OLD)
        assert names_in(packages) == {OLD.filename}
        assert names_in(packages / ".pypiserver-ng" / "scratch") == set()
    expect_recovery(server, NEW)
    expect_recovery(server, OTHER)
    assert names_in(packages) == {OLD.filename, NEW.filename, OTHER.filename}


@needs_strace
def test_a_counter_that_cannot_be_written(packages: Path, serve: Serve) -> None:
    """It only tells other processes of what is committed: the upload is stored, and in the next answer."""
    server = serve(*CLOSED)
    assert upload(server.url, OLD).status_code == 200
    expect_reads(server, OLD)
    with traced(server.process.pid, "-P", str(packages / ".pypiserver-ng/serial"), "-e", "inject=pwrite64:error=EIO"):
        assert upload(server.url, NEW).status_code == 200
        assert {file.filename for file in list_files(server.url, "demo")} == {OLD.filename, NEW.filename}
    expect_recovery(server, OTHER)


@needs_strace
@pytest.mark.parametrize("path", (".", ".pypiserver-ng/catalog.sqlite"))
def test_replacement_that_is_not_durable(packages: Path, serve: Serve, path: str) -> None:
    """With --overwrite: what was refused has not replaced anything."""
    server = serve(*CLOSED, "--overwrite")
    assert upload(server.url, OLD).status_code == 200
    expect_reads(server, OLD)
    other = build_wheel("demo", "1.0", description="other bytes")
    with traced(server.process.pid, "-P", str(packages / path), "-e", "inject=fsync,fdatasync:error=EIO"):
        assert upload(server.url, other).status_code == 503
        assert (packages / OLD.filename).read_bytes() == OLD.content
    wait_until(lambda: {file.sha256 for file in list_files(server.url, "demo")} == {OLD.sha256}, within=10)
    expect_reads(server, OLD)
    assert upload(server.url, other).status_code == 200
    expect_reads(server, other)


@needs_strace
def test_deletion_that_fails(packages: Path, serve: Serve) -> None:
    """The file cannot be removed: the deletion is refused and the file is listed; later it succeeds."""
    server = serve(*CLOSED)
    for built in (OLD, NEW):
        assert upload(server.url, built).status_code == 200
    with traced(server.process.pid, "-P", str(packages / OLD.filename), "-e", "inject=unlink,unlinkat:error=EIO"):
        assert remove(server.url, name="demo", version="1.0").status_code == 503
        wait_until(lambda: {file.filename for file in list_files(server.url, "demo")} == names_in(packages), within=10)
        expect_reads(server, OLD)
    assert remove(server.url, name="demo", version="1.0").status_code == 200
    assert {file.filename for file in list_files(server.url, "demo")} == names_in(packages) == {NEW.filename}


@needs_strace
def test_file_that_cannot_be_read(packages: Path, environment: dict[str, str]) -> None:
    """Its download breaks off, visibly; its neighbours and its page are served."""
    server = start(packages, environment)
    try:
        for built in (OLD, NEW):
            assert upload(server.url, built).status_code == 200
        bad = packages / OLD.filename
        with traced(server.process.pid, "-P", str(bad), "-e", "inject=pread64,preadv2,sendfile:error=EIO"):
            for _ in range(3):
                with pytest.raises(httpx2.HTTPError):
                    httpx2.get(f"{server.url}/packages/{OLD.filename}", trust_env=False).raise_for_status()
                expect_reads(server, NEW)
        expect_reads(server, OLD)
    finally:
        assert server.stop() == 0
