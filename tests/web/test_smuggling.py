"""Bytes that others on the way may read in another way: what is glued behind them is never taken for a request.

Where two read one connection differently, a client's body becomes the next client's request (RFC 9112, 11.2).
"""

import asyncio
import re

import pytest
from starlette.types import Receive, Scope, Send

from pypiserver_ng.server import open_socket, serving
from pypiserver_ng.server.head import read_authority
from tests.web.forms import Wire

#: Answered 404, and the connection ends.
GLUED = b"GET /-/glued HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
#: Answered 405 when its body has come.
POST = b"POST /simple/ HTTP/1.1\r\nhost: x\r\n"
GET = b"GET /simple/ HTTP/1.1\r\nhost: x\r\n"
EMPTY = b"\r\n\r\n0\r\n\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
END = b"\r\n0\r\n\r\n"

LENGTHS = (
    b"content-length: 5\r\ncontent-length: 5",
    b"content-length: 5\r\ncontent-length: 6",
    b"content-length: 0\r\ncontent-length: 5",
    b"content-length: 5, 5",
    b"content-length: 5,",
    b"content-length: +5",
    b"content-length: -5",
    b"content-length: 0x5",
    b"content-length: 5 5",
    b"content-length: 5a",
    b"content-length: 5.0",
    b"content-length: 1_0",
    b"content-length: \xd9\xa5",
    b"content-length:",
    b"content-length: 18446744073709551621",
    b"content-length : 5",
    b"content-length\t: 5",
    b"content-length\x00: 5",
    b"content-length: 5\x00",
    b"content-length: \x0b5",
    b"content-length:\r\n 5",
    b" content-length: 5",
    b"\x00content-length: 5",
)
CODINGS = (
    b"content-length: 5\r\ntransfer-encoding: chunked",
    b"transfer-encoding: chunked\r\ncontent-length: 5",
    b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
    b"transfer-encoding: identity\r\ntransfer-encoding: chunked",
    b"transfer-encoding: chunked, chunked",
    b"transfer-encoding: chunked, identity",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: ,chunked",
    b"transfer-encoding: chunked,",
    b"transfer-encoding: xchunked",
    b"transfer-encoding: chunkedx",
    b"transfer-encoding: x chunked",
    b"transfer-encoding: chunked;q=1",
    b'transfer-encoding: "chunked"',
    b"transfer-encoding: identity",
    b"transfer-encoding:",
    b"transfer-encoding: \x0bchunked",
    b"transfer-encoding: chunked\x00",
    b"transfer-encoding:\r\n chunked",
    b"transfer-encoding : chunked",
    b" transfer-encoding: chunked",
)
CHUNKS = (
    b"5 \r\nabcde",
    b" 5\r\nabcde",
    b"+5\r\nabcde",
    b"-5\r\nabcde",
    b"0x5\r\nabcde",
    b"5\nabcde",
    b"5\rabcde",
    b"\r\nabcde",
    b"g\r\nabcde",
    b"4\r\nabcde",
    b"6\r\nabcde",
    b"10000000000000005\r\nabcde",
    b"5;\nx\r\nabcde",
    b"5;a\nabcde",
    b"5;a\rb\r\nabcde",
    b"5;a\x00b\r\nabcde",
    b"5 ;a\r\nabcde",
)
HEADERS = (
    b"x: a\r\n folded",
    b"x: a\r\n\tfolded",
    b"x: a\nb: c",
    b"x: a\rb: c",
    b"x: \x00",
    b"x: \x01",
    b"x: \x7f",
    b"x\x00: a",
    b"x : a",
    b"x\t: a",
    b": a",
    b"x",
    b"x(y): a",
    b"x y: a",
    b"host: x",
    b"host: y",
)
HEADS = (
    b"GET /simple/ HTTP/1.1\r\n\r\n",
    b"GET /simple/ HTTP/1.1\r\n host: x\r\n\r\n",
    b"GET /simple/ HTTP/1.1\nhost: x\r\n\r\n",
    b"GET /simple/ HTTP/1.1\r\nhost: x\n\n",
    b"GET /simple/ HTTP/1.1\rhost: x\r\r",
    b"GET /simple/ HTTP/1.0\r\nhost: x\r\nhost: x\r\n\r\n",
    b"POST /simple/ HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked" + EMPTY,
    b"GET /simple/\r\n\r\n",
    b"GET /simple/\n\n",
    b"GET /simple/ \r\nhost: x\r\n\r\n",
    b"GET /simple/ HTTP/0.9\r\nhost: x\r\n\r\n",
    b"GET /simple/ HTTP/1\r\nhost: x\r\n\r\n",
    b"GET /simple/ HTTP/1.2\r\nhost: x\r\n\r\n",
    b"GET /simple/ HTTP/1.10\r\nhost: x\r\n\r\n",
    b"GET /simple/ HTTP/01.1\r\nhost: x\r\n\r\n",
    b"GET /simple/ HTTP/2.0\r\nhost: x\r\n\r\n",
    b"GET /simple/ HTTP/1.1 \r\nhost: x\r\n\r\n",
    b"GET /simple/ http/1.1\r\nhost: x\r\n\r\n",
    b"GET /simple/ ICE/1.1\r\nhost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b" GET /simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x00GET /simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET\x00 /simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET\t/simple/\tHTTP/1.1\r\nhost: x\r\n\r\n",
    b"get /simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"FOO /simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /\x0b HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /\x7f HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /\xe9 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET x:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http:///simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://:80/simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://a@x/simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://x/simple/ HTTP/1.1\r\n\r\n",
    b"GET ftp://x/simple/ HTTP/1.1\r\nhost: x\r\n\r\n",
)
REFUSED = (
    *(POST + line + b"\r\n\r\nabcde" for line in LENGTHS),
    *(POST + line + EMPTY for line in CODINGS),
    *(CHUNKED + chunk + END for chunk in CHUNKS),
    CHUNKED + b"5\r\nabcde\n0\r\n\r\n",
    CHUNKED + b"5\r\nabcde0\r\n\r\n",
    CHUNKED + b"5\r\nabcde\r\n0\n\n",
    CHUNKED + b"5\r\nabcde\r\n0\r\ncontent-length: 5\r\n\r\n",
    CHUNKED + b"5\r\nabcde\r\n0\r\nx : y\r\n\r\n",
    *(GET + line + b"\r\n\r\n" for line in HEADERS),
    *HEADS,
)


def exchange(wire: Wire, sent: bytes) -> tuple[list[int], bytes]:
    """The statuses of all answers until the connection ends, and their bytes."""
    with wire.connect() as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)], received


@pytest.mark.parametrize("sent", REFUSED, ids=lambda sent: repr(sent)[2:90])
def test_refused(wire: Wire, sent: bytes) -> None:
    """With one answer, which says that it is the last one."""
    statuses, received = exchange(wire, sent + GLUED)
    assert statuses == [400]
    assert b"\r\nconnection: close\r\n" in received


@pytest.mark.parametrize("sent", (POST + b"content-length: 5, 5\r\n\r\nabcde", HEADS[0], HEADS[-1]))
def test_refused_behind_another_request(wire: Wire, sent: bytes) -> None:
    """The one before is answered as always."""
    assert exchange(wire, GET + b"\r\n" + sent + GLUED)[0] in ([200], [200, 400])


#: One way only, that of nginx.
READ = (
    (POST + b"content-length: 5 \r\n\r\nabcde", [405, 404]),
    (POST + b"content-length:\t5\r\n\r\nabcde", [405, 404]),
    (POST + b"content-length: 05\r\n\r\nabcde", [405, 404]),
    (POST + b"Transfer-Encoding: CHUNKED \r\n\r\n5\r\nabcde" + END, [405, 404]),
    (CHUNKED + b'5;a="b"\r\nabcde' + END, [405, 404]),
    (CHUNKED + b"00000000000000000005\r\nabcde" + END, [405, 404]),
    (CHUNKED + b"5\r\nabcde\r\n0\r\nx: y\r\n\r\n", [405, 404]),
    (GET + b"content-length: 5\r\n\r\nabcde", [200, 404]),
    (b"\r\n" + GET + b"\r\n", [200, 404]),
    (b"GET  /simple/  HTTP/1.1\r\nhost: x\r\n\r\n", [200, 404]),
    (b"GET http://x/simple/ HTTP/1.1\r\nhost: y\r\n\r\n", [200, 404]),
    (b"GET HTTPS://x:443/simple/ HTTP/1.1\r\nhost: y\r\n\r\n", [200, 404]),
    (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", [404, 404]),
    (b"GET /simple/ HTTP/1.1\r\nhost:\r\n\r\n", [200, 404]),
    (b"GET /simple/ HTTP/1.0\r\n\r\n", [200]),
    (b"GET /simple/ HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", [200]),
    (GET + b"connection: close\r\n\r\n", [200]),
)


@pytest.mark.parametrize(("sent", "statuses"), READ, ids=lambda value: repr(value)[2:90])
def test_read_in_one_way(wire: Wire, sent: bytes, statuses: list[int]) -> None:
    """Odd, and no two read it differently."""
    assert exchange(wire, sent + GLUED)[0] == statuses


@pytest.mark.parametrize("pieces", (1, 7))
def test_what_stands_behind_the_body_is_no_header(pieces: int) -> None:
    """A proxy writes its headers, and checks those of its client, before the body only."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def talk() -> None:
        with open_socket("127.0.0.1", 0) as listening:
            async with serving(app, listening):
                reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
                trailers = b"authorization: x\r\nhost: evil.example\r\nx-forwarded-for: 127.0.0.1\r\n\r\n"
                sent = CHUNKED + b"5\r\nabcde\r\n0\r\n" + trailers
                size = -(-len(sent) // pieces)
                for start in range(0, len(sent), size):
                    writer.write(sent[start : start + size])
                    await writer.drain()
                    await asyncio.sleep(0)
                assert b" 200 " in await reader.readline()
                writer.close()

    asyncio.run(talk())
    assert seen[0]["headers"] == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize("target", (b"http:///", b"http://:80/", b"http://:/", b"https://:443/simple/", b"/simple/"))
def test_a_target_of_no_host(target: bytes) -> None:
    """Whatever the parser makes of it."""
    with pytest.raises(ValueError, match="not a target"):
        read_authority(target)


@pytest.mark.parametrize("host", (b"x", b"x:80", b"x:", b"[::1]", b"[::1]:80"))
def test_a_target_with_host(host: bytes) -> None:
    assert read_authority(b"http://" + host + b"/simple/") == host
