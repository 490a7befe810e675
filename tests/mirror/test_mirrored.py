"""The upstream that fails on command does what it was told: without that, the tests beside this one prove nothing."""

from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from tests.mirror.asking import HTML, JSON, Answer, ask_on, read
from tests.mirror.listings import core_metadata_of
from tests.tools.distributions import build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.server import wait_until

WHEEL = build_wheel("demo", "1.0", extra_files={"demo/data.py": b"x = 1\n" * 20_000})
PAGE = "/simple/demo/"
FILE = f"/files/demo/{WHEEL.filename}"


def fetch(mirrored: Mirrored, path: str, *, method: str = "GET", accept: str = JSON, **headers: str) -> Answer:
    connection = HTTPConnection(urlsplit(mirrored.root).netloc, timeout=30)
    try:
        return ask_on(connection, path, method=method, accept=accept, **headers)
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", WHEEL, yanked="bad & old", requires_python=">=3.8")


def test_rich_and_poor_pages(mirrored: Mirrored) -> None:
    """Each fact can be left out, in both formats."""
    [entry] = fetch(mirrored, PAGE).json["files"]
    assert {"size", "upload-time", "requires-python"} < entry.keys()
    assert entry["hashes"] == {"sha256": WHEEL.sha256}
    html = fetch(mirrored, PAGE, accept=HTML).text
    assert all(word in html for word in (WHEEL.sha256, "bad &amp; old", "&gt;=3.8", "data-core-metadata"))
    mirrored.look.as_json = mirrored.look.hashes = mirrored.look.metadata = False
    mirrored.look.base = "http://mirror.example/x/"
    poor = fetch(mirrored, PAGE)
    assert poor.headers["content-type"] == "text/html; charset=utf-8"
    assert "sha256" not in poor.text
    assert '<base href="http://mirror.example/x/">' in poor.text
    assert fetch(mirrored, f"{FILE}.metadata").status == 404


def test_validators_and_compression(mirrored: Mirrored) -> None:
    tag = fetch(mirrored, PAGE).headers["etag"]
    assert fetch(mirrored, PAGE, if_none_match=tag).status == 304
    mirrored.look.salt = "x"
    assert fetch(mirrored, PAGE, if_none_match=tag).status == 200
    mirrored.look.gzip = True
    assert fetch(mirrored, PAGE, accept_encoding="gzip").body[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    (
        ("bytes=0-9", 206, WHEEL.content[:10]),
        ("bytes=-7", 206, WHEEL.content[-7:]),
        ("bytes=100-", 206, WHEEL.content[100:]),
        ("bytes=99999999-", 416, b""),
    ),
)
def test_parts_of_files(mirrored: Mirrored, asked: str, status: int, part: bytes) -> None:
    answer = fetch(mirrored, FILE, range=asked)
    assert (answer.status, answer.body) == (status, part)
    mirrored.ranges = False
    assert fetch(mirrored, FILE, range=asked).body == WHEEL.content


def test_head_and_metadata(mirrored: Mirrored) -> None:
    head = fetch(mirrored, FILE, method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(WHEEL.content)), b"")
    assert mirrored.sent[FILE] == 0
    assert fetch(mirrored, f"{FILE}.metadata").body == core_metadata_of(WHEEL)


def test_faults(mirrored: Mirrored) -> None:
    """Status, bytes, torn bodies and no answer at all; what is healed is whole."""
    mirrored.spoil("/simple/*", status=503, headers={"Retry-After": "7"})
    assert fetch(mirrored, PAGE).headers["retry-after"] == "7"
    mirrored.spoil(FILE, body=b"wrong", method="GET")
    assert fetch(mirrored, FILE).body == b"wrong"
    mirrored.spoil(FILE, cut=10)
    torn = fetch(mirrored, FILE)
    assert (torn.body, torn.is_whole, torn.headers["content-length"]) == (
        WHEEL.content[:10],
        False,
        str(len(WHEEL.content)),
    )
    mirrored.spoil(FILE, cut=-1)
    assert fetch(mirrored, FILE).status == 0
    mirrored.heal()
    whole = fetch(mirrored, FILE)
    assert (whole.body, whole.is_whole) == (WHEEL.content, True)
    assert mirrored.count_files(WHEEL) == 4


def test_stalls_and_hangs(mirrored: Mirrored) -> None:
    """Until they are released; what was sent and how many are served is known."""
    fault = mirrored.spoil(FILE, stall=100)
    connection = HTTPConnection(urlsplit(mirrored.root).netloc, timeout=30)
    connection.request("GET", FILE)
    response = connection.getresponse()
    assert response.read(100) == WHEEL.content[:100]
    assert fault.reached.wait(10)
    assert (mirrored.sent[FILE], mirrored.most_downloads) == (100, 1)
    fault.release()
    assert read(response).body == WHEEL.content[100:]
    connection.close()
    hanging = mirrored.spoil(PAGE, hang=True)
    connection.request("GET", PAGE)
    assert hanging.reached.wait(10)
    hanging.release()
    assert connection.getresponse().status == 200
    connection.close()


def test_credentials_and_going_away(mirrored: Mirrored) -> None:
    """It comes back on the same port, and connections that were kept are cut."""
    mirrored.credentials = ("user", "pass")
    assert fetch(mirrored, PAGE).status == 401
    assert fetch(mirrored, PAGE, authorization="Basic dXNlcjpwYXNz").status == 200
    mirrored.credentials = None
    connection = HTTPConnection(urlsplit(mirrored.root).netloc, timeout=30)
    assert ask_on(connection, PAGE).status == 200
    seen = mirrored.connections
    assert ask_on(connection, PAGE).status == 200
    assert mirrored.connections == seen
    mirrored.stop()
    wait_until(lambda: fetch(mirrored, PAGE).status == 0)
    assert connection.sock is None or connection.sock.recv(1) == b""
    connection.close()
    mirrored.start()
    assert fetch(mirrored, PAGE).status == 200
