"""One request and its whole answer, torn ones included, and what a client can see of one upstream file.

It speaks plain HTTP/1.1 over a connection of its own for each request, and knows nothing of the program's insides.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tests.tools.distributions import Distribution
from tests.tools.server import Server

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html"
#: For `--config`: every page is asked for again each time.
ASK_EACH_TIME = '[[policy]]\nprojects = ["*"]\nmax-age = "0"\n'
#: An outage, which says when to come again.
OUTAGE = {502, 503}


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names in lower case; `is_whole` says whether the body came to its end."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    is_whole: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


#: The connection was closed before there was a head.
NOTHING = Answer(0, "", {}, b"", is_whole=False)


def connect(server: Server) -> HTTPConnection:
    return HTTPConnection(urlsplit(server.url).netloc, timeout=60)


def ask(server: Server, path: str, *, method: str = "GET", accept: str = "*/*", **headers: str) -> Answer:
    """One request; a redirect, an error and half a body are answers. `_` in header names is `-`."""
    connection = connect(server)
    try:
        return ask_on(connection, path, method=method, accept=accept, **headers)
    finally:
        connection.close()


def ask_on(
    connection: HTTPConnection, path: str, *, method: str = "GET", accept: str = "*/*", **headers: str
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, headers={"accept": accept, **named})
        return read(connection.getresponse())
    except (ConnectionError, HTTPException):
        return NOTHING


def read(response: HTTPResponse) -> Answer:
    """The rest of an answer, whole or torn."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    body, is_whole = b"", False
    try:
        while piece := response.read1(1 << 16):
            body += piece
        is_whole = response.length in {None, 0}
    except (ConnectionError, HTTPException):
        pass
    # Only a closed answer leaves its connection to the next.
    response.close()
    return Answer(response.status, response.reason, headers, body, is_whole)


@contextmanager
def beginning(server: Server, path: str) -> Iterator[HTTPResponse]:
    """An answer of which the head has come and the body may not; the block's end hangs up."""
    connection = connect(server)
    try:
        connection.request("GET", path, headers={"accept": "*/*"})
        yield connection.getresponse()
    finally:
        connection.close()


@contextmanager
def asked_at_once(server: Server, path: str, times: int, **headers: str) -> Iterator[list[HTTPConnection]]:
    """So many clients that have sent their question and read nothing of the answer yet."""
    connections = [connect(server) for _ in range(times)]
    try:
        for connection in connections:
            connection.request("GET", path, headers={"accept": JSON, **headers})
        yield connections
    finally:
        for connection in connections:
            connection.close()


def read_all(connections: Iterable[HTTPConnection]) -> list[Answer]:
    return [_finish(connection) for connection in connections]


def _finish(connection: HTTPConnection) -> Answer:
    try:
        return read(connection.getresponse())
    except (ConnectionError, HTTPException):
        return NOTHING


def url_of(distribution: Distribution, *, is_hashed: bool = True) -> str:
    """Where an upstream file is here, whatever its upstream."""
    return f"/packages/-/{distribution.sha256 if is_hashed else 'first-seen'}/{distribution.filename}"


def page_of(server: Server, project: str = "demo", *, accept: str = JSON, **headers: str) -> Answer:
    return ask(server, f"/simple/{project}/", accept=accept, **headers)


def listed(server: Server, project: str = "demo") -> dict[str, str]:
    """The URLs of a project's files, as absolute paths, by filename; both formats must agree."""
    page, html = page_of(server, project), page_of(server, project, accept=HTML)
    assert (page.status, html.status) == (200, 200), (page, html)
    base = f"/simple/{project}/"
    found = {file["filename"]: urljoin(base, file["url"]) for file in page.json["files"]}
    anchors = re.findall(r'<a href="([^"#]*)[^>]*>([^<]*)</a>', html.text)
    assert found == {name: urljoin(base, url) for url, name in anchors}, html.text
    return found


def glance(server: Server, project: str = "demo") -> list[str]:
    """The filenames on one page, for who waits for a change: of two pages, one may come before it and one after."""
    page = page_of(server, project)
    return [file["filename"] for file in page.json["files"]] if page.status == 200 else []


def has_failed(answer: Answer) -> bool:
    """Whether the answer is an honest outage: not 404, not empty, and with a time to come again."""
    return answer.status in OUTAGE and re.fullmatch(r"[1-9]\d*", answer.headers.get("retry-after", "")) is not None


def is_complete(answer: Answer) -> bool:
    return answer.status == 200 and answer.is_whole


def list_copies(packages: Path, distribution: Distribution) -> list[Path]:
    """Everything in the state directory that begins as the file does, whole or not."""
    start = distribution.content[:512]
    return [path for path in _walk(packages / ".pypiserver-ng") if _read_bytes(path)[:512] == start]


def list_kept(packages: Path) -> set[str]:
    """sha256 of everything below the cache directory."""
    return {hashlib.sha256(_read_bytes(path)).hexdigest() for path in _walk(packages / ".pypiserver-ng" / "cache")}


def is_kept(packages: Path, distribution: Distribution) -> bool:
    return distribution.sha256 in list_kept(packages)


def _walk(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def _read_bytes(path: Path) -> bytes:
    """Nothing where it has gone meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
