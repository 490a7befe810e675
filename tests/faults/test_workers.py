"""Several processes on one port: what one acknowledged all know, and any of them may die."""

import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.tools.distributions import build_wheel, make_wheel
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, Server, wait_until
from tests.tools.uploads import upload

FOUR = (*OPEN, "--disable-fallback", "--workers", "4")
JSON = {"accept": "application/vnd.pypi.simple.v1+json"}


def list_workers(server: Server) -> set[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return {int(pid) for pid in children.read_text().split()}


def ask(server: Server, name: str) -> list[str]:
    """The versions of a project, over a connection of its own: any worker may answer."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request("GET", f"/simple/{name}/", headers=JSON)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return list(json.loads(content)["versions"]) if answer.status == 200 else []


def ask_all(server: Server, name: str, times: int) -> set[tuple[str, ...]]:
    """The different answers that so many new connections get."""
    with ThreadPoolExecutor(8) as threads:
        return {tuple(versions) for versions in threads.map(lambda _: ask(server, name), range(times))}


def test_what_one_acknowledged_all_know(serve: Serve, packages: Path, program: Program) -> None:
    """Uploads, yanks, deletions and statuses, in the very next answer of each."""
    server = serve(*FOUR)
    assert len(list_workers(server)) == 4
    versions: list[str] = []
    for number in range(12):
        version = f"1.{number}"
        assert upload(server.url, build_wheel("demo", version)).status_code == 200
        versions.append(version)
        assert ask_all(server, "demo", 40) == {tuple(versions)}
    assert program.run("delete", "demo", "1.3").returncode == 0
    versions.remove("1.3")
    assert ask_all(server, "demo", 40) == {tuple(versions)}
    assert program.run("status", "demo", "quarantined").returncode == 0
    assert ask_all(server, "demo", 40) == {()}


@pytest.fixture
def program(tmp_path: Path, environment: dict[str, str]) -> Program:
    return Program(tmp_path, environment)


def test_what_is_copied_in_is_noticed_by_all(serve: Serve, packages: Path) -> None:
    """And read by one of them."""
    server = serve(*FOUR)
    make_wheel(packages, "demo", "1.0")
    wait_until(lambda: ask_all(server, "demo", 12) == {("1.0",)}, within=10)


def start_upload(server: Server) -> socket.socket:
    """Half of an upload, so that a worker holds a scratch file."""
    parts = urlsplit(server.url)
    connection = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
    head = (
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 9000000\r\n\r\n"
        '--b\r\ncontent-disposition: form-data; name="content"; filename="demo-9.0.tar.gz"\r\n\r\n'
    )
    connection.sendall(head.encode() + b"x" * 3_000_000)
    return connection


def test_a_worker_that_dies_is_replaced(serve: Serve, packages: Path) -> None:
    """All at once, in the middle of uploads: what they left in scratch is swept, and the port answers again."""
    server = serve(*FOUR)
    assert upload(server.url, build_wheel("demo", "1.0")).status_code == 200
    scratch = packages / ".pypiserver-ng" / "scratch"
    connections = [start_upload(server) for _ in range(8)]
    wait_until(lambda: len(list(scratch.iterdir())) == 8, within=10)
    before = list_workers(server)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for connection in connections:
        connection.close()
    wait_until(lambda: len(list_workers(server) - before) == 4, within=15)
    assert ask_all(server, "demo", 20) == {("1.0",)}
    assert list(scratch.iterdir()) == []
    assert upload(server.url, build_wheel("demo", "2.0")).status_code == 200
    assert ask_all(server, "demo", 20) == {("1.0", "2.0")}


def test_workers_end_with_their_supervisor(serve: Serve, packages: Path, tmp_path: Path) -> None:
    """Nobody would replace or stop them, and the port would never be free."""
    server = serve(*FOUR)
    pids = list_workers(server)
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within=30)
    # The fixture expects a clean end.
    server.process.returncode = 0


def test_a_stop_loses_nothing_that_was_acknowledged(serve: Serve, packages: Path) -> None:
    """SIGTERM to the supervisor while clients upload: exit code 0, and every 200 is there afterwards."""
    server = serve(*FOUR)
    acknowledged: list[str] = []
    stopping = threading.Event()

    def keep_uploading(uploader: int) -> None:
        number = 0
        while True:
            version = f"{uploader}.{number}"
            try:
                answer = upload(server.url, build_wheel("demo", version))
            except httpx2.HTTPError:
                return
            if answer.status_code != 200:
                return
            acknowledged.append(version)
            if len(acknowledged) > 40:
                stopping.set()
            number += 1

    threads = [threading.Thread(target=keep_uploading, args=(uploader,)) for uploader in range(4)]
    for thread in threads:
        thread.start()
    assert stopping.wait(60)
    assert server.stop() == 0
    for thread in threads:
        thread.join(60)
    again = serve(*FOUR)
    assert set(acknowledged) <= set(ask(again, "demo"))


def test_what_keeps_the_first_from_starting_is_said_once(program: Program, packages: Path) -> None:
    """One line and exit code 2, as with one process."""
    packages.mkdir(exist_ok=True)
    done = program.run("run", "--port", "0", "--workers", "4", "--state-dir", "/proc/none", *OPEN, packages)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
