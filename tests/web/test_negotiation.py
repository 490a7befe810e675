"""Which form of a simple page a client gets, by what it says it accepts."""

import gzip

import pytest
from starlette.testclient import TestClient

from tests.web.conftest import OpenIndex
from tests.web.forms import Wire, header

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
PLAIN = "text/html"
VARY = "Accept, Accept-Encoding"

PIP = f"{JSON}, {HTML}; q=0.1, {PLAIN}; q=0.01"
UV = f"{JSON}, {HTML};q=0.2, {PLAIN};q=0.01"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

ACCEPT = [
    # What real clients send.
    (PIP, JSON),
    (UV, JSON),
    (BROWSER, PLAIN),
    ("text/html", PLAIN),
    ("*/*", PLAIN),
    (None, PLAIN),
    ("", PLAIN),
    # One type each, under every name it has.
    (JSON, JSON),
    (HTML, HTML),
    ("application/vnd.pypi.simple.latest+json", JSON),
    ("application/vnd.pypi.simple.latest+html", HTML),
    (JSON.upper(), JSON),
    # Among equals the server's order decides, and a range that names a type beats one that does not.
    (f"{PLAIN}, {HTML}, {JSON}", JSON),
    (f"{PLAIN}, {HTML}", HTML),
    (f"*/*, {JSON}", JSON),
    (f"*/*, {HTML}", HTML),
    ("application/*", JSON),
    ("text/*", PLAIN),
    ("application/xml, */*;q=0.1", PLAIN),
    # Weights.
    (f"{JSON};q=0.1, {PLAIN};q=0.2", PLAIN),
    (f"{JSON};q=0.001, {PLAIN};q=0", JSON),
    (f"{JSON} ; Q = 0.5 , {HTML};q=0.6", HTML),
    (f"{JSON};q=1.000, {HTML};q=0.999", JSON),
    # Nothing is refused by what names it less exactly, and q=0 refuses.
    (f"{PLAIN};q=0, */*", JSON),
    (f"{JSON};q=0, application/*", HTML),
    (f"{JSON};q=0, {PLAIN};q=0, */*", HTML),
    (f"application/*;q=0, {JSON};q=0.1, */*", PLAIN),
    # Parameters that mean nothing here.
    (f"{JSON};charset=utf-8", JSON),
    (f"{JSON};charset=utf-8;q=0.1, {PLAIN};level=1;q=0.2", PLAIN),
    # A malformed range is skipped; what is left decides.
    ("nonsense", PLAIN),
    (",,;,", PLAIN),
    (f"text, {JSON}", JSON),
    (f"{JSON};q=2, {PLAIN}", PLAIN),
    (f"{JSON};q=0.1234, {PLAIN};q=0.1", PLAIN),
    (f"{JSON};q=, {HTML}", HTML),
    (f"{JSON}/more, {HTML}", HTML),
    ("\u00e9/\u00e9".encode().decode("latin-1"), PLAIN),
]
REFUSED = [
    "application/json",
    "application/vnd.pypi.simple.v2+json",
    "image/png, text/plain",
    "*/*;q=0",
    f"{JSON};q=0, {HTML};q=0.0, {PLAIN};q=0.000",
]
FORMAT = [
    (JSON, JSON),
    (JSON.replace("+", "%2B"), JSON),
    (JSON.upper(), JSON),
    (HTML, HTML),
    (PLAIN, PLAIN),
    ("text%2Fhtml", PLAIN),
    ("application/vnd.pypi.simple.latest+json", JSON),
]
LONG = [
    ",".join(["text/x"] * 10_000) + f",{JSON}",
    f"{JSON};" + " " * 50_000,
    f"{JSON}" + ";q" * 25_000,
    ";" * 50_000 + f",{JSON}",
    "a/" * 25_000 + f",{JSON}",
]


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0]


def accepting(accept: str | None) -> dict[str, str]:
    return {} if accept is None else {"accept": accept}


@pytest.mark.parametrize("path", ("/simple/", "/simple/demo-pkg/"))
@pytest.mark.parametrize(("accept", "expected"), ACCEPT)
def test_accept(stocked: TestClient, path: str, accept: str | None, expected: str) -> None:
    """Both kinds of page choose the same form for the same header."""
    headers = {} if accept is None else header("accept", accept)
    answer = stocked.get(path, headers=headers)
    assert (200, expected) == (answer.status_code, media_type(answer.headers["content-type"]))
    assert answer.headers["vary"] == VARY


@pytest.mark.parametrize("path", ("/simple/", "/simple/demo-pkg/"))
@pytest.mark.parametrize("accept", REFUSED)
def test_nothing_acceptable(stocked: TestClient, path: str, accept: str) -> None:
    """A client that takes nothing of what is offered is told what is offered."""
    answer = stocked.get(path, headers=accepting(accept))
    assert answer.status_code == 406
    assert answer.headers["vary"] == VARY
    assert len(answer.text.splitlines()) == 1
    assert all(offered in answer.text for offered in (JSON, HTML, PLAIN))


@pytest.mark.parametrize("path", ("/simple/", "/simple/demo-pkg/"))
@pytest.mark.parametrize(("wanted", "expected"), FORMAT)
def test_format(stocked: TestClient, path: str, wanted: str, expected: str) -> None:
    """`?format=` beats the header, with the plus sign of its value written either way."""
    answer = stocked.get(f"{path}?format={wanted}", headers={"accept": "image/png"})
    assert (200, expected) == (answer.status_code, media_type(answer.headers["content-type"]))


@pytest.mark.parametrize("wanted", ("json", "application/json", "*/*", "text/html;q=1", "%00", "%ff"))
def test_format_that_is_not_offered(stocked: TestClient, wanted: str) -> None:
    """`?format=` takes exact types only."""
    answer = stocked.get(f"/simple/?format={wanted}", headers={"accept": PIP})
    assert (answer.status_code, answer.headers["vary"]) == (406, VARY)


@pytest.mark.parametrize("query", ("", "?", "?format=", "?other=1", "?formatt=x&q"))
def test_queries_without_a_format(stocked: TestClient, query: str) -> None:
    """Any other query leaves the choice to the header."""
    answer = stocked.get(f"/simple/{query}", headers={"accept": PIP})
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("accept", LONG, ids=["many", "spaces", "parameters", "semicolons", "slashes"])
def test_long_headers(stocked: TestClient, accept: str) -> None:
    """A header of 50 kB and more is read to its end like any other."""
    answer = stocked.get("/simple/demo-pkg/", headers={"accept": accept, "accept-encoding": accept})
    assert answer.status_code in {200, 406}


def test_long_header_over_the_wire(wire: Wire) -> None:
    """The same through a real server."""
    answer = wire.get("/simple/demo/", f"accept: {LONG[0]}")
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)


@pytest.mark.parametrize("accept", (JSON, HTML, PLAIN))
def test_vary_on_not_modified(stocked: TestClient, accept: str) -> None:
    """A 304 carries what a cache needs to choose the form it keeps."""
    etag = stocked.get("/simple/demo-pkg/", headers={"accept": accept}).headers["etag"]
    answer = stocked.get("/simple/demo-pkg/", headers={"accept": accept, "if-none-match": etag})
    assert (304, VARY, etag) == (answer.status_code, answer.headers["vary"], answer.headers["etag"])


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    (
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip;q=0.5, identity", None),
        ("gzip, identity", "gzip"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip"),
        ("deflate, br", None),
        ("*", "zstd"),
        ("*;q=0", None),
        ("gzip;q=0", None),
        ("gzip;q=0, *", "zstd"),
        ("zstd;q=0, *", "gzip"),
        ("gzip;q=0.000", None),
        ("gzip;q=0.001", "gzip"),
        ("gzip;q=nonsense", None),
        (";;,,=", None),
    ),
)
@pytest.mark.parametrize("accept", (JSON, PLAIN))
def test_accept_encoding(stocked: TestClient, accept: str, accept_encoding: str | None, expected: str | None) -> None:
    """What the client likes best, zstd among equals; the page is the same in each form, its validator is not."""
    headers = {"accept": accept}
    plain = stocked.get("/simple/demo-pkg/", headers=headers)
    if accept_encoding is not None:
        headers["accept-encoding"] = accept_encoding
    answer = stocked.get("/simple/demo-pkg/", headers=headers)
    assert (200, expected) == (answer.status_code, answer.headers.get("content-encoding"))
    assert plain.content == answer.content
    assert (plain.headers["etag"] == answer.headers["etag"]) is (expected is None)
    assert (plain.headers["content-length"] == answer.headers["content-length"]) is (expected is None)
    assert answer.headers["vary"] == VARY


def test_gzip_over_the_wire(wire: Wire) -> None:
    """The compressed bytes are whole, and their length is the one that is announced."""
    plain = wire.get("/simple/demo/", f"accept: {PLAIN}")
    packed = wire.get("/simple/demo/", f"accept: {PLAIN}", "accept-encoding: gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == len(packed.body) < len(plain.body)
    assert plain.body == gzip.decompress(packed.body)


def test_forms_have_validators_of_their_own(stocked: TestClient) -> None:
    """No form of a page is taken for another by its ETag."""
    tags = {
        stocked.get("/simple/demo-pkg/", headers={"accept": accept, "accept-encoding": coding}).headers["etag"]
        for accept in (JSON, HTML, PLAIN)
        for coding in ("identity", "gzip", "zstd")
    }
    assert len(tags) == 9


def test_pages_that_are_not_here_need_no_form(open_index: OpenIndex) -> None:
    """What is not here is 404 in every form that is offered."""
    client = open_index()
    for accept in (JSON, HTML, PLAIN, "*/*"):
        assert client.get("/simple/absent/", headers={"accept": accept}).status_code == 404
