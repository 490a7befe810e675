"""An upstream index that fails on command: slow, torn, wrong, gone, and poor in what it tells.

It remembers what it was asked and how much it sent. It speaks the simple API as HTML and JSON and knows nothing
of the program under test. Nothing in it waits for a clock: what hangs, hangs until it is released.
"""

import base64
import gzip
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.mirror.listings import Look, Offer, core_metadata_of, render_html, render_json
from tests.tools.distributions import Distribution
from tests.tools.fake_upstream import Request

_PIECE = 16 * 1024
_MODIFIED = "Sun, 02 Feb 2020 00:00:00 GMT"


@dataclass(slots=True)
class Fault:
    """What is different for some paths; what it does not say stays as it would be."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    #: Nothing is answered before `release`.
    hang: bool = False
    #: After so many bytes of the body nothing comes before `release`.
    stall: int | None = None
    #: After so many bytes of the body, or before the head with -1, the connection is closed.
    cut: int | None = None
    #: Only requests of this method; None = all.
    method: str | None = None
    #: Whether somebody waits, or has waited, for `release`.
    reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Go on, now and from now on."""
        self._released.set()

    def wait(self) -> None:
        self.reached.set()
        self._released.wait()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Mirrored:
    """Projects, their files, the faults in force, and what was asked so far."""

    def __init__(self) -> None:
        self.look = Look()
        #: User and password that every request needs; None = none.
        self.credentials: tuple[str, str] | None = None
        #: Whether parts of files are sent to who asks for parts.
        self.ranges = True
        self.requests: list[Request] = []
        #: Bytes of bodies that were written, by path.
        self.sent: Counter[str] = Counter()
        #: Connections accepted so far.
        self.connections = 0
        #: The most files that were being sent at one time.
        self.most_downloads = 0
        #: Faults of this upstream itself; a test that leaves one here proves nothing.
        self.mishaps: list[str] = []
        self._downloads = 0
        self._projects: dict[str, dict[str, Offer]] = {}
        self._statuses: dict[str, dict[str, str]] = {}
        self._faults: list[tuple[str, Fault]] = []
        self._lock = threading.Lock()
        self._listener: _Listener | None = None
        self._port = 0
        self.start()

    # Where it is

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """For `--fallback-url`."""
        return f"{self.root}/simple/"

    def url_for(self, credentials: str) -> str:
        """The URL with ``user:password``, percent-encoded already."""
        return f"http://{credentials}@127.0.0.1:{self._port}/simple/"

    def start(self) -> None:
        """Accept connections, again on the port that it had."""
        assert self._listener is None
        self._listener = _Listener(self._port, self)
        self._port = self._listener.server_port
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        if self._listener is not None:
            self.heal()
            self._listener.close()
            self._listener = None

    # What it has

    def add(self, project: str, *distributions: Distribution, **facts: Any) -> None:
        """Offer the files under the normalized name; `facts` are fields of `Offer`. Without files its page is empty."""
        offers = self._projects.setdefault(project, {})
        offers.update({one.filename: Offer(one, **facts) for one in distributions})

    def remove(self, project: str) -> None:
        del self._projects[project]

    def set_status(self, project: str, status: str, reason: str) -> None:
        """As PEP 792 names them."""
        self._statuses[project] = {"status": status, "reason": reason}

    # How it fails

    def spoil(self, pattern: str, **fault: Any) -> Fault:
        """Apply a fault to the paths that match, such as ``/simple/*``; the last one told holds."""
        spoilt = Fault(**fault)
        with self._lock:
            self._faults.insert(0, (pattern, spoilt))
        return spoilt

    def heal(self) -> None:
        """No fault any more; whoever hangs goes on."""
        with self._lock:
            healed, self._faults = self._faults, []
        for _, fault in healed:
            fault.release()

    # What it was asked

    @property
    def paths(self) -> list[str]:
        """The paths asked so far, in order, whatever the method."""
        return [request.path for request in self.requests]

    def count(self, path: str, method: str | None = None) -> int:
        return sum(one.path == path and method in {None, one.method} for one in self.requests)

    def count_pages(self, project: str = "demo") -> int:
        """How often the project's page was asked for."""
        return self.count(f"/simple/{project}/")

    def count_files(self, distribution: Distribution, project: str = "demo") -> int:
        """How often the file's bytes were asked for, in part or as a whole."""
        return self.count(f"/files/{project}/{distribution.filename}", "GET")

    # For the handler

    def note(self, request: Request) -> Fault:
        """Remember the request and say what is wrong with it."""
        with self._lock:
            self.requests.append(request)
            for pattern, fault in self._faults:
                if fnmatchcase(request.path, pattern) and fault.method in {None, request.method}:
                    return fault
        return Fault()

    def count_sent(self, path: str, size: int) -> None:
        with self._lock:
            self.sent[path] += size

    def count_connection(self) -> None:
        with self._lock:
            self.connections += 1

    @contextmanager
    def downloading(self, path: str) -> Iterator[None]:
        """A file is being sent for the length of the block."""
        is_file = "/files/" in path and not path.endswith(".metadata")
        with self._lock:
            self._downloads += is_file
            self.most_downloads = max(self.most_downloads, self._downloads)
        try:
            yield
        finally:
            with self._lock:
                self._downloads -= is_file

    def answer(self, request: Request) -> _Answer:
        if self.credentials is not None:
            expected = base64.b64encode(":".join(self.credentials).encode()).decode()
            if request.headers.get("authorization") != f"Basic {expected}":
                return _Answer(401, {"WWW-Authenticate": 'Basic realm="upstream"'}, b"who are you?\n")
        match urlsplit(unquote(request.path)).path.split("/"):
            case ["", *_, "simple", project, ""] if project in self._projects:
                return self._answer_page(project, request)
            case ["", *_, "files", project, filename]:
                return self._answer_file(project, filename, request)
        return _Answer(404, {"Content-Type": "text/plain"}, b"not here\n")

    def _answer_page(self, project: str, request: Request) -> _Answer:
        offers = list(self._projects[project].values())
        if self.look.as_json and "application/vnd.pypi.simple.v1+json" in request.headers.get("accept", ""):
            status = self._statuses.get(project)
            content_type, body = "application/vnd.pypi.simple.v1+json", render_json(project, offers, self.look, status)
        else:
            content_type, body = "text/html; charset=utf-8", render_html(project, offers, self.look)
        headers = {"Content-Type": self.look.content_type or content_type, "Vary": "Accept, Accept-Encoding"}
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}{self.look.salt}"'
        if self.look.etag:
            headers["ETag"] = etag
        if self.look.last_modified:
            headers["Last-Modified"] = _MODIFIED
        same_tag = self.look.etag and request.headers.get("if-none-match") == etag
        same_time = self.look.last_modified and request.headers.get("if-modified-since") == _MODIFIED
        if same_tag or same_time:
            return _Answer(304, headers)
        if self.look.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            return _Answer(200, headers | {"Content-Encoding": "gzip"}, gzip.compress(body, 1, mtime=0))
        return _Answer(200, headers, body)

    def _answer_file(self, project: str, filename: str, request: Request) -> _Answer:
        wheel = filename.removesuffix(".metadata")
        offer = self._projects.get(project, {}).get(wheel)
        content = None
        if offer is not None and wheel == filename:
            content = offer.distribution.content
        elif offer is not None and self.look.metadata:
            content = core_metadata_of(offer.distribution)
        if content is None:
            return _Answer(404, {"Content-Type": "text/plain"}, b"not here\n")
        headers = {"Content-Type": "application/octet-stream"}
        if self.ranges:
            headers["Accept-Ranges"] = "bytes"
            asked = request.headers.get("range")
            if asked is not None and request.method == "GET":
                return _cut_out(content, asked, headers)
        return _Answer(200, headers, content)


@contextmanager
def running_mirrored() -> Iterator[Mirrored]:
    """Such an upstream on a free port for the length of a block."""
    mirrored = Mirrored()
    try:
        yield mirrored
    finally:
        mirrored.stop()
    assert mirrored.mishaps == []


def _cut_out(content: bytes, asked: str, headers: dict[str, str]) -> _Answer:
    """One bounded, open or suffix range."""
    first, _, last = asked.removeprefix("bytes=").partition("-")
    size = len(content)
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size:
        return _Answer(416, headers | {"Content-Range": f"bytes */{size}"})
    return _Answer(206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}, content[start:stop])


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, mirrored: Mirrored) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.mirrored = mirrored
        self._open: set[socket] = set()

    def get_request(self) -> tuple[socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        self.mirrored.count_connection()
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong here; `_Handler` expects that others hang up."""
        import traceback

        self.mirrored.mishaps.append(traceback.format_exc())

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def finish(self) -> None:
        with suppress(ConnectionError):
            super().finish()

    def do_GET(self) -> None:
        mirrored = self.server.mirrored
        headers = {name.lower(): value for name, value in self.headers.items()}
        # A proxy is asked for whole URLs.
        path = urlsplit(self.path).path
        request = Request(self.command, path, headers)
        fault = mirrored.note(request)
        if fault.hang:
            fault.wait()
        if fault.cut == -1:
            self.close_connection = True
            return
        answer = mirrored.answer(request)
        if fault.status is not None:
            answer = _Answer(fault.status, {"Content-Type": "text/plain"}, b"out of order\n")
        if fault.body is not None:
            answer = replace(answer, body=fault.body)
        self._send_head(answer, fault)
        if self.command == "GET":
            with mirrored.downloading(path):
                self._send_body(path, answer.body, fault)

    do_HEAD = do_GET  # noqa: N815 - the standard library's name

    def _send_head(self, answer: _Answer, fault: Fault) -> None:
        self.send_response(answer.status)
        for name, value in {**answer.headers, **fault.headers}.items():
            self.send_header(name, value)
        if answer.status != 304:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()

    def _send_body(self, path: str, body: bytes, fault: Fault) -> None:
        end = len(body) if fault.cut is None else min(fault.cut, len(body))
        pause = end if fault.stall is None else min(fault.stall, end)
        self._send_pieces(path, body[:pause])
        if fault.stall is not None:
            fault.wait()
        self._send_pieces(path, body[pause:end])
        if end < len(body):
            self.close_connection = True

    def _send_pieces(self, path: str, body: bytes) -> None:
        for start in range(0, len(body), _PIECE):
            piece = body[start : start + _PIECE]
            self.wfile.write(piece)
            self.server.mirrored.count_sent(path, len(piece))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Stay quiet: the requests are kept."""
