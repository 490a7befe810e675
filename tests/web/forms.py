"""Upload forms and raw HTTP, byte for byte as the test wants them, and what they leave in a directory."""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from httpx2 import Response
from starlette.testclient import TestClient

from tests.tools.distributions import Distribution
from tests.tools.uploads import upload_fields

BOUNDARY = "----boundary-of-the-tests"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

#: A form field: its name and value.
Field = tuple[str, str | bytes]


def part(name: str, value: str | bytes, filename: str | bytes | None = None) -> bytes:
    """One part of a form; `filename` stands in it as given, nothing is escaped."""
    disposition = f'form-data; name="{name}"'.encode()
    if filename is not None:
        disposition += b'; filename="' + (filename.encode() if isinstance(filename, str) else filename) + b'"'
    content = value.encode() if isinstance(value, str) else value
    return b"content-disposition: " + disposition + b"\r\n\r\n" + content


def encode(parts: Iterable[bytes]) -> bytes:
    """A complete multipart body."""
    opening = f"--{BOUNDARY}\r\n".encode()
    return b"".join(opening + one + b"\r\n" for one in parts) + f"--{BOUNDARY}--\r\n".encode()


def upload_form(distribution: Distribution, **changes: str | None) -> bytes:
    """A whole upload, its file last."""
    fields = upload_fields(distribution, **changes)
    content = part("content", distribution.content, distribution.filename)
    return encode([*(part(*field) for field in fields.items()), content])


def make_attestations(**changes: object) -> str:
    """The field `attestations` with one attestation of the right structure; nobody signed it."""
    attestation = {
        "version": 1,
        "verification_material": {"certificate": "AAAA", "transparency_entries": [{}]},
        "envelope": {"statement": "e30=", "signature": "AAAA"},
    }
    return json.dumps([attestation | changes])


def header(name: str, value: str) -> dict[bytes, bytes]:
    """One request header whose value may hold any byte, written as a latin-1 character."""
    return {name.encode(): value.encode("latin-1")}


def stored(packages: Path) -> dict[str, bytes]:
    """What people find in the package directory."""
    paths = [path for path in packages.iterdir() if path.name != ".pypiserver-ng"]
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in paths}


def scratch(packages: Path) -> list[Path]:
    return list((packages / ".pypiserver-ng" / "scratch").iterdir())


def send(client: TestClient, body: bytes, path: str = "/", **headers: str) -> Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, content=body, headers={"content-type": CONTENT_TYPE} | names)


def assert_refused(answer: Response, status: int, says: str) -> None:
    """One line of plain text that a person can use."""
    assert status == answer.status_code, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.endswith("\n")
    assert answer.text[:-1].isprintable()
    assert says in answer.text
    assert "Traceback" not in answer.text


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it came over the wire; header names in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes


class Wire:
    """Raw connections to one server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 0)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def ask(self, request: bytes) -> Answer:
        """Send these bytes on a connection of their own and read one answer."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_answer(connection)

    def get(self, target: bytes | str, *headers: str, method: str = "GET") -> Answer:
        """One request for a target that stands in the request line as given."""
        raw = target.encode() if isinstance(target, str) else target
        lines = "".join(f"{line}\r\n" for line in ("host: index.test", "connection: close", *headers))
        return self.ask(method.encode() + b" " + raw + b" HTTP/1.1\r\n" + lines.encode() + b"\r\n")

    def post(self, target: str, body: bytes, *headers: str) -> Answer:
        """One upload form, with its right length."""
        lines = ("host: index.test", "connection: close", f"content-type: {CONTENT_TYPE}", *headers)
        head = "".join(f"{line}\r\n" for line in (*lines, f"content-length: {len(body)}"))
        return self.ask(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + body)


def read_answer(connection: socket.socket) -> Answer:
    """One answer with a length, or up to the end of the connection."""
    with connection.makefile("rb") as stream:
        _, status, reason = stream.readline().decode("latin-1").rstrip("\r\n").split(" ", 2)
        headers: dict[str, str] = {}
        while line := stream.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers["content-length"])) if "content-length" in headers else stream.read()
        return Answer(int(status), reason, headers, body)
