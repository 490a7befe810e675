"""The hot path against the ordinary one, byte for byte, while everything that answers depend on changes at random.

The same request is sent in two ways: alone on an idle connection, where it may be answered from memory, and behind an
empty line, which the parser skips and memory does not know.
"""

import base64
import hashlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pypiserver_ng.app import open_curator
from pypiserver_ng.errors import Failure
from pypiserver_ng.index.curation import Curator
from pypiserver_ng.model import Status, normalize_name
from tests.tools.distributions import build_wheel
from tests.tools.mirrored import Mirrored, running_mirrored
from tests.tools.server import Serve, Server
from tests.web.conftest import make_config
from tests.web.forms import Wire, upload_form

JSON = "application/vnd.pypi.simple.v1+json"
LOCAL = ["local-one", "local-two"]
UPSTREAM = ["upstream-one", "upstream-two"]
PASSWORDS = ["wonder", "looking-glass"]
#: Upstream files appear after that time, upstream pages are believed for another.
CONFIG = '[[policy]]\nprojects = ["*"]\ncooldown = "2s"\nmax-age = "1s"\n'

_DATE = re.compile(rb"\r\ndate: [^\r]+")


class Line:
    """One connection that stays open."""

    def __init__(self, server: Server) -> None:
        self._address = Wire(server.url).address
        self._socket = self._connect()

    def ask(self, request: bytes) -> bytes:
        """The whole answer, but for its date, which may be another second's."""
        try:
            return _DATE.sub(b"", self._ask(request))
        except ConnectionError:
            # It was idle for too long.
            self._socket.close()
            self._socket = self._connect()
            return _DATE.sub(b"", self._ask(request))

    def close(self) -> None:
        self._socket.close()

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=30)

    def _ask(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        has_body = length is not None and b"HEAD /" not in request and not head.startswith(b"HTTP/1.1 304")
        wanted = int(length[1]) if length and has_body else 0
        while len(body) < wanted:
            body += self._receive()
        return head + b"\r\n\r\n" + body

    def _receive(self) -> bytes:
        if data := self._socket.recv(1 << 16):
            return data
        raise ConnectionResetError


class Changes(RuleBasedStateMachine):
    """Everything that may change the answer of a page, in any order, and requests in between."""

    server: Server
    mirrored: Mirrored
    curator: Curator
    passwords: Path

    def __init__(self) -> None:
        super().__init__()
        self.quick, self.slow = Line(self.server), Line(self.server)
        self.wire = Wire(self.server.url)
        #: Requests that were sent before: they are what memory knows.
        self.requests: list[bytes] = []

    def teardown(self) -> None:
        self.quick.close()
        self.slow.close()

    @rule(name=st.sampled_from(LOCAL), version=st.integers(1, 5))
    def upload(self, name: str, version: int) -> None:
        answer = self.wire.post("/", upload_form(build_wheel(name, f"1.{version}")))
        assert answer.status in {200, 403, 409}

    @rule(name=st.sampled_from(LOCAL), version=st.integers(1, 5))
    def delete(self, name: str, version: int) -> None:
        self.try_to(self.curator.delete, normalize_name(name), f"1.{version}", None)

    @rule(name=st.sampled_from(LOCAL), version=st.integers(1, 5), reason=st.sampled_from([None, "broken"]))
    def yank(self, name: str, version: int, reason: str | None) -> None:
        self.try_to(self.curator.yank, normalize_name(name), f"1.{version}", reason, None)

    @rule(name=st.sampled_from(LOCAL), version=st.integers(1, 5))
    def unyank(self, name: str, version: int) -> None:
        self.try_to(self.curator.unyank, normalize_name(name), f"1.{version}", None)

    @rule(name=st.sampled_from(LOCAL), status=st.sampled_from(list(Status)))
    def set_status(self, name: str, status: Status) -> None:
        self.try_to(self.curator.set_status, normalize_name(name), status, None, None)

    @rule(password=st.sampled_from([*PASSWORDS, None]))
    def change_password(self, password: str | None) -> None:
        self.passwords.write_text(htpasswd_line("alice", password) if password else "")

    @rule(name=st.sampled_from(UPSTREAM), version=st.integers(1, 5))
    def publish_upstream(self, name: str, version: int) -> None:
        moment = datetime.now(UTC).isoformat()
        self.mirrored.add(name, build_wheel(name, f"1.{version}"), upload_time=moment)

    @rule()
    def let_the_second_pass(self) -> None:
        date = self.wire.get("/health").headers["date"]
        while self.wire.get("/health").headers["date"] == date:
            pass

    @rule(
        name=st.sampled_from([*LOCAL, *UPSTREAM]),
        method=st.sampled_from(["GET", "HEAD"]),
        accept=st.sampled_from([JSON, "text/html"]),
        coding=st.sampled_from(["identity", "gzip", "zstd"]),
        password=st.sampled_from(PASSWORDS),
        is_conditional=st.booleans(),
    )
    def ask_anew(
        self, name: str, method: str, accept: str, coding: str, password: str, *, is_conditional: bool
    ) -> None:
        credentials = base64.b64encode(f"alice:{password}".encode()).decode()
        lines = ["Host: index.test", f"Accept: {accept}", f"Accept-Encoding: {coding}"]
        lines.append(f"Authorization: Basic {credentials}")
        request = "\r\n".join([f"{method} /simple/{name}/ HTTP/1.1", *lines, "", ""]).encode()
        etag = re.search(rb'\r\netag: ("[^"]+")', self.slow.ask(b"\r\n" + request))
        if is_conditional and etag:
            request = request[:-2] + b"If-None-Match: " + etag[1] + b"\r\n\r\n"
        self.requests = [*self.requests, request][-8:]
        self.quick.ask(request)

    @precondition(lambda self: self.requests)
    @invariant()
    def memory_answers_as_the_application_does(self) -> None:
        for request in self.requests:
            before = self.slow.ask(b"\r\n" + request)
            from_memory = self.quick.ask(request)
            after = self.slow.ask(b"\r\n" + request)
            # What the clock or a watcher changed in between tells nothing.
            assert from_memory in {before, after}

    def try_to(self, change: object, *arguments: object) -> None:
        try:
            change(*arguments)  # type: ignore[operator]
        except Failure:
            return


def htpasswd_line(user: str, password: str) -> str:
    digest = base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
    return f"{user}:{{SHA}}{digest}\n"


@contextmanager
def changing(server: Server, mirrored: Mirrored, packages: Path, passwords: Path) -> Iterator[type[Changes]]:
    class OfThisServer(Changes):
        pass

    with open_curator(make_config(packages)) as curator:
        OfThisServer.server, OfThisServer.mirrored = server, mirrored
        OfThisServer.curator, OfThisServer.passwords = curator, passwords
        yield OfThisServer


@pytest.mark.parametrize("workers", (1, 2))
def test_memory_answers_as_the_application_does(serve: Serve, packages: Path, tmp_path: Path, workers: int) -> None:
    passwords, config = tmp_path / "htpasswd", tmp_path / "config.toml"
    passwords.write_text(htpasswd_line("alice", PASSWORDS[0]))
    config.write_text(CONFIG)
    with running_mirrored() as mirrored:
        for name in UPSTREAM:
            mirrored.add(name, build_wheel(name, "1.0"))
        server = serve(
            *("-P", str(passwords), "-a", "list", "--config", str(config), "--workers", str(workers)),
            *("--fallback-mode", "cache", "--fallback-url", mirrored.url),
        )
        with changing(server, mirrored, packages, passwords) as machine:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=10,
                    stateful_step_count=20,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
