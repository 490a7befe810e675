"""Uploads over a socket: reason phrases, refusals before the end, clients that are slow or leave."""

import random
import socket
from pathlib import Path

from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.server import OPEN, Serve, wait_until
from tests.tools.uploads import upload_fields
from tests.web.forms import (
    BOUNDARY,
    CONTENT_TYPE,
    Wire,
    encode,
    part,
    read_answer,
    scratch,
    stored,
    upload_form,
)

WHEEL = build_wheel("Demo.Pkg", "1.0")
SDIST = build_sdist("Demo.Pkg", "1.0")


def half(body: bytes, announced: int | None = None) -> bytes:
    """The head of an upload and half of its body."""
    length = len(body) if announced is None else announced
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {length}\r\n\r\n"
    return head.encode() + body[: len(body) // 2]


def test_reason_phrase(serve: Serve) -> None:
    """twine, hatch and pdm show nothing but the reason phrase, so it carries the message."""
    wire = Wire(serve(*OPEN).url)
    answer = wire.post("/", upload_form(WHEEL, sha256_digest="0" * 64))
    assert (answer.status, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert answer.reason.startswith("Bad Request: sha256_digest does not match the file")
    assert answer.body.decode().strip() in answer.reason
    odd = wire.post(
        "/", encode([part(":action", "remove_pkg"), part("name", "a"), part("version", "\u2603\x01\u2028")])
    )
    assert (odd.status, odd.reason[:15]) == (404, "Not Found: a (?")
    assert odd.reason.isascii()
    assert odd.reason.isprintable()


def test_refusal_before_the_body(serve: Serve, passwords: Path, packages: Path) -> None:
    """Credentials and the announced length are judged before a byte of the body is there."""
    wire = Wire(serve("-P", str(passwords), "--max-upload-size", "1MB").url)
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\n"
    answer = wire.ask(f"{head}content-length: 1000\r\n\r\n".encode())
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="pypi"')
    answer = wire.ask(f"{head}content-length: 1000\r\nexpect: 100-continue\r\n\r\n".encode())
    assert answer.status == 401
    credentials = "authorization: Basic YWxpY2U6d29uZGVy\r\n"
    answer = wire.ask(f"{head}{credentials}content-length: 999999999999\r\n\r\n".encode())
    assert answer.status == 413
    assert scratch(packages) == []


def test_refusal_while_streaming(serve: Serve, packages: Path) -> None:
    """A body without a length is refused as soon as it is too large."""
    wire = Wire(serve(*OPEN, "--max-upload-size", "100KB").url)
    opening = encode([part(*field) for field in upload_fields(WHEEL).items()])[: -len(BOUNDARY) - 6]
    opening += f"--{BOUNDARY}\r\n".encode() + part("content", b"", WHEEL.filename)
    chunks = [opening, *([b"x" * 65_536] * 10)]
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = wire.ask(head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks))
    assert answer.status == 413
    wait_until(lambda: not scratch(packages), within=10)
    assert stored(packages) == {}


def test_chunked_upload(serve: Serve, packages: Path) -> None:
    """A form may come in chunks of any size; parts may be cut anywhere."""
    wire = Wire(serve(*OPEN).url)
    body = upload_form(WHEEL)
    chunks = [body[start : start + 7] for start in range(0, len(body), 7)]
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n"
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert wire.ask(head.encode() + sent).status == 200
    assert {WHEEL.filename: WHEEL.content} == stored(packages)


def test_connection_closed_early(serve: Serve, packages: Path) -> None:
    """An upload that breaks off leaves nothing, and the next one of the same file succeeds."""
    large = build_wheel("Demo.Pkg", "1.0", extra_files={"data.bin": random.Random(2).randbytes(4_000_000)})
    server = serve(*OPEN)
    wire = Wire(server.url)
    with wire.connect() as connection:
        connection.sendall(half(upload_form(large)))
        wait_until(lambda: bool(scratch(packages)), within=10)
    wait_until(lambda: not scratch(packages), within=10)
    assert stored(packages) == {}
    assert wire.post("/", upload_form(large)).status == 200
    assert {large.filename: large.content} == stored(packages)


def test_slow_upload_disturbs_nobody(serve: Serve, packages: Path) -> None:
    """While one client takes its time others upload, also the same file, and read."""
    wire = Wire(serve(*OPEN).url)
    body = upload_form(WHEEL)
    slow: list[socket.socket] = [wire.connect() for _ in range(20)]
    try:
        for connection in slow:
            connection.sendall(half(body))
        assert wire.post("/", upload_form(SDIST)).status == 200
        assert wire.post("/", body).status == 200
        assert SDIST.content == wire.get(f"/packages/{SDIST.filename}").body
        for connection in slow:
            connection.sendall(body[len(body) // 2 :])
        assert [read_answer(connection).status for connection in slow] == [200] * 20
    finally:
        for connection in slow:
            connection.close()
    assert {WHEEL.filename: WHEEL.content, SDIST.filename: SDIST.content} == stored(packages)
    assert scratch(packages) == []


def test_connection_after_a_refusal(serve: Serve) -> None:
    """A connection whose upload was refused before its end answers the next request."""
    wire = Wire(serve(*OPEN).url)
    refused = upload_form(WHEEL).replace(b"form-data; name", b"form-data; nome", 1)
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {len(refused)}\r\n\r\n"
    with wire.connect() as connection:
        connection.sendall(head.encode() + refused)
        assert read_answer(connection).status == 400
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_answer(connection).body == b"Ok"
