"""A small upstream index in a thread, which remembers everything that it was asked.

It speaks the simple API 1.1 as HTML and JSON and knows nothing of the program under test.
"""

import html
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.tools.distributions import Distribution

_JSON = "application/vnd.pypi.simple.v1+json"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; header names in lower case, `path` with its query."""

    method: str
    path: str
    headers: dict[str, str]


class FakeUpstream:
    """Projects and their files, and the requests seen so far."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.requests: list[Request] = []
        self._projects: dict[str, dict[str, Distribution]] = {}

    @property
    def url(self) -> str:
        """For `--fallback-url` and `--index-url`."""
        return f"{self.root}/simple/"

    @property
    def paths(self) -> list[str]:
        """The paths asked so far, in order."""
        return [request.path for request in self.requests]

    def add(self, project: str, *distributions: Distribution) -> None:
        """Offer the files under the normalized name `project`; without files its page is empty."""
        files = self._projects.setdefault(project, {})
        files.update({one.filename: one for one in distributions})

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body for one path."""
        match urlsplit(unquote(path)).path.split("/"):
            case ["", "simple", ""]:
                return 200, *self._root_page(as_json=_JSON in accept)
            case ["", "simple", project, ""] if project in self._projects:
                return 200, *self._project_page(project, as_json=_JSON in accept)
            case ["", "files", project, filename] if filename in self._projects.get(project, ()):
                return 200, "application/octet-stream", self._projects[project][filename].content
        return 404, "text/plain", b"not here\n"

    def _root_page(self, *, as_json: bool) -> tuple[str, bytes]:
        if as_json:
            projects = [{"name": project} for project in sorted(self._projects)]
            return _JSON, json.dumps({"meta": {"api-version": "1.1"}, "projects": projects}).encode()
        return _html_page((f"{project}/", project) for project in sorted(self._projects))

    def _project_page(self, project: str, *, as_json: bool) -> tuple[str, bytes]:
        files = self._projects[project]
        if as_json:
            page = {
                "meta": {"api-version": "1.1"},
                "name": project,
                "versions": sorted({_version(filename) for filename in files}),
                "files": [_json_file(project, one) for one in files.values()],
            }
            return _JSON, json.dumps(page).encode()
        return _html_page((f"{_url(project, one)}#sha256={one.sha256}", one.filename) for one in files.values())


@contextmanager
def running_upstream() -> Iterator[FakeUpstream]:
    """A fake upstream on a free port for the length of a block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listener:
        upstream = FakeUpstream(listener.server_port)
        listener.upstream = upstream  # type: ignore[attr-defined]
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield upstream
        finally:
            listener.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        upstream: FakeUpstream = self.server.upstream  # type: ignore[attr-defined]
        headers = {name.lower(): value for name, value in self.headers.items()}
        upstream.requests.append(Request(self.command, self.path, headers))
        status, content_type, body = upstream.answer(self.path, headers.get("accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the standard library's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Stay quiet: the requests are kept."""


def _url(project: str, distribution: Distribution) -> str:
    return f"/files/{project}/{distribution.filename}"


def _json_file(project: str, distribution: Distribution) -> dict[str, object]:
    return {
        "filename": distribution.filename,
        "url": _url(project, distribution),
        "hashes": {"sha256": distribution.sha256},
        "size": len(distribution.content),
        "upload-time": "2020-02-02T00:00:00Z",
    }


def _html_page(links: Iterator[tuple[str, str]]) -> tuple[str, bytes]:
    anchors = "\n".join(f'<a href="{html.escape(href)}">{html.escape(text)}</a><br>' for href, text in links)
    return "text/html", f"<!DOCTYPE html>\n<html><body>\n{anchors}\n</body></html>\n".encode()


def _version(filename: str) -> str:
    return filename.removesuffix(".tar.gz").removesuffix(".zip").split("-")[1]
