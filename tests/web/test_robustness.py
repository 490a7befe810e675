"""Whatever comes over the wire, the answer is one that the interface knows, and the next caller gets theirs.

In this process every fault of the application fails the test by itself, since it is raised into the client.
"""

import contextlib
import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from tests.tools.distributions import build_wheel
from tests.tools.uploads import upload_fields
from tests.web.conftest import make_client, make_config
from tests.web.forms import BOUNDARY, CONTENT_TYPE, Wire, encode, part, read_answer

WHEEL = build_wheel("demo", "1.0")
#: What the interface speaks of; 500 is not among it.
KNOWN = {200, 206, 302, 304, 400, 401, 403, 404, 405, 406, 409, 413, 416, 503, 507}
#: Hundreds of requests of a test, not thousands.
FEW = settings(
    max_examples=150,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

segments = st.one_of(
    st.sampled_from(
        [
            "simple",
            "packages",
            "pypi",
            "project",
            "legacy",
            "RPC2",
            "-",
            "json",
            "search",
            "demo",
            "1.0",
            "..",
            "",
            "\n",
        ]
    ),
    st.sampled_from([WHEEL.filename, f"{WHEEL.filename}.metadata", "health", "ready", "favicon.ico", "%00", "\0"]),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace").decode()),
)
paths = st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(parts))
#: A server refuses anything else in a request line before the application sees it.
visible = st.binary(max_size=40).map(lambda raw: bytes(byte for byte in raw if 0x20 < byte < 0x7F))
queries = st.one_of(st.just(b""), visible, st.sampled_from([b"format=text/html", b"q=demo", b"format=%"]))
names = st.sampled_from(
    [
        b"accept",
        b"accept-encoding",
        b"authorization",
        b"cache-control",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"origin",
        b"range",
        b"sec-fetch-site",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
    ]
)
values = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"*/*",
            b"text/html",
            b"application/json",
            b"bytes=0-5",
            b"bytes=-1",
            b"*",
            b'"x"',
            b"gzip;q=0",
            CONTENT_TYPE.encode(),
        ]
    ),
    st.text('0123456789abcWT/;,=-*" :<>', max_size=60).map(str.encode),
)
headers = st.lists(st.tuples(names, values), max_size=6)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "\u00e9"])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    packages = tmp_path_factory.mktemp("packages")
    WHEEL.write(packages)
    with make_client(make_config(packages, overwrite=True)) as client:
        yield client


def ask(
    client: TestClient, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """One request as a server hands it over, with no client in between that would tidy it up."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    sent: list[Message] = []
    parts = [body[start : start + 100] for start in range(0, len(body), 100)] or [b""]

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def run(app: ASGIApp) -> None:
        await app(scope, receive, send)

    assert client.portal is not None
    client.portal.call(run, client.app)
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], sent[0]["headers"], content


def assert_sound(answer: tuple[int, list[tuple[bytes, bytes]], bytes], method: str) -> None:
    """A status that is known, and a head that can be written as it is."""
    status, head, content = answer
    assert status in KNOWN
    for name, value in head:
        assert re.fullmatch(rb"[a-z0-9-]+", name)
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value), (name, value)
    length = dict(head).get(b"content-length")
    if method != "HEAD" and length is not None:
        assert int(length) == len(content)


@FEW
@given(method=methods, path=paths, query=queries, headers=headers, body=st.binary(max_size=300))
def test_any_request(
    client: TestClient, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Any method, path, query, headers and body."""
    assert_sound(ask(client, method, path, query, headers, body), method)


PLACES = ["/simple/", "/simple/demo/", f"/packages/{WHEEL.filename}", f"/packages/{WHEEL.filename}.metadata", "/", "/x"]


@FEW
@given(
    path=st.sampled_from([*PLACES, "/project/demo/", "/pypi/demo/json", "/-/search"]), query=queries, headers=headers
)
def test_any_headers(client: TestClient, path: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Any headers at places that exist."""
    assert_sound(ask(client, "GET", path, query, headers, b""), "GET")


pieces = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            f"--{BOUNDARY}\r\n".encode(),
            f"\r\n--{BOUNDARY}\r\n".encode(),
            f"\r\n--{BOUNDARY}--\r\n".encode(),
            b"\r\n\r\n",
            b"\r\n",
            part("name", "demo"),
            part(":action", "file_upload"),
            part(":action", "remove_pkg"),
            part("content", b"PK\x03\x04", "demo-2.0-py3-none-any.whl"),
            b'content-disposition: form-data; name="',
            b"content-disposition: form-data; name=content; filename=",
        ]
    ),
)


@FEW
@given(body=st.lists(pieces, max_size=12).map(b"".join), path=st.sampled_from(["/", "/legacy/", "/RPC2"]))
def test_any_form(client: TestClient, body: bytes, path: str) -> None:
    """Any bytes as a form: nothing of them is stored."""
    answer = ask(client, "POST", path, b"", [(b"content-type", CONTENT_TYPE.encode())], body)
    assert_sound(answer, "POST")
    listing = client.get("/simple/demo/", headers={"accept": "application/vnd.pypi.simple.v1+json"}).json()
    assert listing["versions"] == ["1.0"]


texts = st.one_of(st.text(max_size=40), st.sampled_from(["demo", "1.0", "UNKNOWN", "file_upload", "9" * 5000, "\0"]))


@FEW
@given(fields=st.dictionaries(st.sampled_from(list(upload_fields(WHEEL))), texts), filename=st.text(max_size=40))
def test_any_fields(client: TestClient, fields: dict[str, str], filename: str) -> None:
    """Any text in the fields of a well-formed form, and any filename."""
    parts = [part(*field) for field in ({":action": "file_upload"} | fields).items()]
    name = re.sub(r'["\r\n]', "", filename.encode("utf-8", "replace").decode())
    body = encode([*parts, part("content", b"nothing", name)]).decode("utf-8", "replace").encode()
    status, head, content = ask(client, "POST", "/", b"", [(b"content-type", CONTENT_TYPE.encode())], body)
    assert_sound((status, head, content), "POST")
    assert status != 200
    assert content.decode()[:-1].isprintable()


#: Bytes that are no proper request, or hardly one, and the status of their answer.
RAW: list[tuple[bytes, int]] = [
    (b"nonsense\r\n\r\n", 400),
    (b"GET\r\n\r\n", 400),
    (b"GET /simple/ HTTP/9.9\r\n\r\n", 400),
    (b"GET simple HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET * HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    (b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET http://x/simple/ HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    (b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET /\xff\xfe/ HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET /simple?\x7f HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET /simple?\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET /simple?\t HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET /simple/%zz/ HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    (b"GET /simple/#x HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    (b"GET /simple/ HTTP/1.1\r\nhost : x\r\n\r\n", 400),
    (b"GET /simple/ HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n", 400),
    (b"GET /simple/ HTTP/1.1\r\nhost: x\r\nna\xffme: y\r\n\r\n", 400),
    (b"GET /simple/ HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n", 400),
    (b"GET /simple/ HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", 200),
    (b"GET /simple/ HTTP/1.0\r\n\r\n", 200),
    (b"POST / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 2\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
]


@pytest.mark.parametrize(("sent", "status"), RAW, ids=lambda value: repr(value)[:60])
def test_framing(wire: Wire, sent: bytes, status: int) -> None:
    """Bytes that are no request are refused; those that are one in an odd form are answered."""
    assert wire.ask(sent).status == status


def test_pipelined_requests(wire: Wire) -> None:
    """Requests that come at once are answered in their order."""
    one = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    two = b"GET /simple/absent/ HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with wire.connect() as connection:
        connection.sendall(one + two + last)
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d{3})", received) == [b"200", b"404", b"200"]


def test_body_is_no_request(wire: Wire) -> None:
    """A refused upload's body is never taken for the next request."""
    smuggled = b"GET /simple/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    head = b"POST /simple/ HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(smuggled)
    last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with wire.connect() as connection:
        connection.sendall(head + smuggled + last)
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d{3})", received) == [b"405", b"200"]
    assert received.endswith(b"Ok")


def test_large_head(wire: Wire) -> None:
    """Thousands of headers and a path of 60 kB are answered or refused, at once."""
    many = [f"x-{number}: y" for number in range(3_000)]
    assert wire.get("/simple/demo/", *many).status in {200, 400, 431}
    assert wire.get("/" + "a" * 60_000).status in {404, 400, 414}


def test_client_that_reads_nothing(wire: Wire) -> None:
    """Clients that ask and never read, or leave at once, hold up nobody."""
    idle = [wire.connect() for _ in range(30)]
    for connection in idle:
        connection.sendall(b"GET /simple/ HTTP/1.1\r\nhost: x\r\n\r\n" * 20)
    assert wire.get("/simple/demo/").status == 200
    for connection in idle:
        connection.close()


LONG_PATHS = (
    f"/pypi/demo/{'1.' * 3000}/json",
    f"/pypi/demo/1+{'a.' * 3000}a/json",
    f"/pypi/demo/{'%20' * 2000}x/json",
    f"/project/demo/{'1.' * 3000}/",
    f"/integrity/demo/{'1.' * 3000}/x/provenance",
    f"/packages/{'-1.' * 2500}.tar.gz",
    f"/packages/a-1.0{'-py3.1' * 1300}.egg",
    f"/packages/a-1.tar.gz{'.asc' * 1500}",
)


@pytest.mark.parametrize("path", LONG_PATHS, ids=lambda path: path[:24])
def test_versions_and_names_that_are_too_long(wire: Wire, path: str) -> None:
    """No file has them: they are 404 before anybody parses them."""
    assert wire.get(path).status == 404


@pytest.mark.parametrize(("line", "status"), ((b"x-filler: " + b"x" * 1000, 431), (b"GET", 414)))
def test_head_without_end_is_cut_off(wire: Wire, line: bytes, status: int) -> None:
    """A request whose head goes on for ever is answered and closed; it fills no memory."""
    with wire.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n" if line.startswith(b"x") else b"GET /")
        for _ in range(1000):
            connection.sendall(line + b"\r\n" if line.startswith(b"x") else b"a" * 1000)
        assert read_answer(connection).status == status
        assert connection.recv(1) == b""


def test_project_pages_do_not_wait_for_clients_that_do_not_read(wire: Wire) -> None:
    """Readers that send requests and read nothing hold no place that others need."""
    stuck = [wire.connect() for _ in range(8)]
    try:
        for connection in stuck:
            connection.sendall(b"GET /project/demo/ HTTP/1.1\r\nhost: x\r\n\r\n" * 400)
        assert wire.get("/project/demo/").status == 200
    finally:
        for connection in stuck:
            connection.close()
