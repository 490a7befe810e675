"""Asking a server over plain connections: what it lists, as JSON and as HTML, and what is behind the links.

Knows HTTP and the simple API, and from /proc which process has which end of a connection; nothing of the program.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

from tests.tools.server import OPEN, Server

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
_STOP_SECONDS = 30
_MOST_TRIES = 400


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a project's page; `path` begins with ``/``, `yanked` is the reason or ""."""

    filename: str
    path: str
    sha256: str
    yanked: str | None


def connect(url: str) -> HTTPConnection:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.connect()
    return connection


def ask_on(connection: HTTPConnection, path: str, accept: str = JSON) -> Answer:
    """GET over this connection. Raises OSError and HTTPException when the server is gone."""
    connection.request("GET", path, headers={"accept": accept})
    answer = connection.getresponse()
    return Answer(answer.status, answer.read())


def ask(url: str, path: str, accept: str = JSON) -> Answer:
    """GET over a connection of its own."""
    connection = connect(url)
    try:
        return ask_on(connection, path, accept)
    finally:
        connection.close()


def parse_json(page: str, content: bytes) -> set[Listed]:
    """The files of a project's page whose path is `page`."""
    return {
        Listed(
            file["filename"],
            urljoin(page, file["url"]),
            file["hashes"]["sha256"],
            (file["yanked"] if isinstance(file["yanked"], str) else "") if file["yanked"] else None,
        )
        for file in json.loads(content)["files"]
    }


class _Anchors(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self._page = page
        self.files: set[Listed] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            given = dict(attrs)
            path, fragment = urldefrag(urljoin(self._page, given["href"] or ""))
            yanked = (given["data-yanked"] or "") if "data-yanked" in given else None
            filename = path.rpartition("/")[2]
            self.files.add(Listed(filename, path, fragment.removeprefix("sha256="), yanked))


def parse_html(page: str, content: bytes) -> set[Listed]:
    anchors = _Anchors(page)
    anchors.feed(content.decode())
    return anchors.files


def list_files(url: str, name: str) -> set[Listed]:
    """What the project's JSON page lists; nothing where there is no such project."""
    page = f"/simple/{name}/"
    answer = ask(url, page)
    assert answer.status in {200, 404}, (page, answer)
    return parse_json(page, answer.content) if answer.status == 200 else set()


def list_projects(url: str) -> list[str]:
    answer = ask(url, "/simple/")
    assert answer.status == 200, answer
    return [project["name"] for project in answer.json()["projects"]]


def find_false_links(url: str) -> list[str]:
    """What is wrong with any page or file that the server lists, while nobody changes anything."""
    wrong: list[str] = []
    names = list_projects(url)
    connection = connect(url)
    for name in names:
        page = f"/simple/{name}/"
        answer = ask_on(connection, page)
        listed = parse_json(page, answer.content)
        if listed != parse_html(page, ask_on(connection, page, HTML).content):
            wrong.append(f"{page} differs between JSON and HTML")
        sizes = {file["filename"]: file["size"] for file in answer.json()["files"]}
        for file in listed:
            got = ask_on(connection, file.path)
            found = (got.status, hashlib.sha256(got.content).hexdigest(), len(got.content))
            if found != (200, file.sha256, sizes[file.filename]):
                wrong.append(f"{file.path}: {found}, listed with {file.sha256}")
    connection.close()
    return wrong


# Which process answers


def list_workers(server: Server) -> set[int]:
    """The processes that serve: the children of a supervisor, or the one process itself."""
    pid = server.process.pid
    arguments = [*server.process.args] if isinstance(server.process.args, list) else []
    if "--workers" not in arguments or arguments[arguments.index("--workers") + 1] == "1":
        return {pid}
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


class Panel:
    """One open connection to every worker, so that a question can be put to all of them."""

    def __init__(self, server: Server) -> None:
        workers = list_workers(server)
        self.connections: dict[int, HTTPConnection] = {}
        spare: list[HTTPConnection] = []
        try:
            for _ in range(_MOST_TRIES):
                if self.connections.keys() == workers:
                    return
                connection = connect(server.url)
                # An answer proves that somebody has accepted it.
                ask_on(connection, "/health")
                owner = _find_owner(connection, workers)
                if owner is None or owner in self.connections:
                    # It stays open, so that the next one goes to somebody else.
                    spare.append(connection)
                else:
                    self.connections[owner] = connection
        finally:
            for connection in spare:
                connection.close()
        raise AssertionError(f"of {workers} only {self.connections.keys()} took a connection")

    def ask_all(self, path: str, accept: str = JSON) -> list[Answer]:
        return [ask_on(connection, path, accept) for connection in self.connections.values()]

    def post_all(self, body: bytes, content_type: str) -> list[Answer]:
        answers = []
        for connection in self.connections.values():
            connection.request("POST", "/", body, {"content-type": content_type})
            answer = connection.getresponse()
            answers.append(Answer(answer.status, answer.read()))
        return answers

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()


def _find_owner(connection: HTTPConnection, pids: Iterable[int]) -> int | None:
    """The process that has the other end."""
    port = f"{connection.sock.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(f":{port}"):
            socket = f"socket:[{fields[9]}]"
            return next((pid for pid in pids if socket in _list_descriptors(pid)), None)
    return None


def _list_descriptors(pid: int) -> set[str]:
    targets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            targets.add(str(entry.readlink()))
    return targets


# Programs around the server


@contextmanager
def limited_server(limits: Sequence[str], packages: Path, environment: dict[str, str]) -> Iterator[Server]:
    """A server that `prlimit` started with these options; it must end well."""
    command = ["prlimit", *limits, sys.executable, "-m", "pypiserver_ng", "run", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [*command, *OPEN, "--disable-fallback", str(packages)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process)
    try:
        server.wait_until_ready()
        yield server
    finally:
        status = server.stop()
    assert (status, "Traceback" in server.log) == (0, False), server.describe()


@contextmanager
def traced(pid: int, *options: str) -> Iterator[None]:
    """The process, with threads and children to come, under `strace` with these options for the length of a block."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-p", str(pid), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_traced(pid):
            assert tracer.poll() is None, "strace could not attach"
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(_STOP_SECONDS)


def _is_traced(pid: int) -> bool:
    """Whether every thread has a tracer."""
    for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are enough
        status = Path(f"/proc/{pid}/task/{task}/status").read_text()
        if "TracerPid:\t0" in status:
            return False
    return True
