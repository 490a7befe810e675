"""Who may see what comes from upstream, under which address, and what nobody may do to it."""

import base64
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from tests.mirror.asking import HTML, JSON, ask, page_of, url_of
from tests.mirror.conftest import Mirror
from tests.tools.distributions import build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.server import Serve

WHEEL = build_wheel("demo", "1.0")
ALICE = f"Basic {base64.b64encode(b'alice:wonder').decode()}"
PATHS = ("/simple/demo/", url_of(WHEEL), f"{url_of(WHEEL)}.metadata", "/pypi/demo/json", "/-/why/demo")


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", WHEEL)


def test_credentials_come_before_upstream(serve: Serve, mirrored: Mirrored, passwords: Path) -> None:
    """Without them nothing is answered, cold or kept, and upstream does not hear of it; answers are private."""
    where = ("--fallback-mode", "cache", "--fallback-url", mirrored.url)
    server = serve("-P", str(passwords), "-a", "update,download,list", *where)
    for path in PATHS:
        for method in ("GET", "HEAD"):
            assert ask(server, path, method=method).status == 401, path
    assert mirrored.requests == []
    for path in PATHS:
        answer = ask(server, path, authorization=ALICE)
        assert answer.status == 200, path
        assert "public" not in answer.headers.get("cache-control", ""), path
        assert ask(server, path).status == 401, path
    assert not any("authorization" in request.headers for request in mirrored.requests)


def test_links_under_a_prefix(mirror: Mirror, mirrored: Mirrored) -> None:
    """They are relative, so that they lead to the right place wherever the server is mounted."""
    server = mirror("--server-base-url", "/index/pypi/")
    root = urlsplit(server.url).path
    page = ask(server, f"{root}/simple/demo/", accept=JSON).json
    path = urljoin(f"{root}/simple/demo/", page["files"][0]["url"])
    assert path == f"/index/pypi{url_of(WHEEL)}"
    assert ask(server, path).body == WHEEL.content


@pytest.mark.parametrize("method", ("POST", "PUT", "DELETE"))
def test_the_cache_is_not_for_strangers(mirror: Mirror, mirrored: Mirrored, method: str) -> None:
    """Nothing is removed or changed over HTTP."""
    server = mirror()
    assert ask(server, url_of(WHEEL)).status == 200
    for path in (url_of(WHEEL), f"{url_of(WHEEL)}.metadata", "/simple/demo/", "/-/why/demo", "/packages/-/"):
        assert ask(server, path, method=method).status in {404, 405}, path
    assert ask(server, url_of(WHEEL)).body == WHEEL.content
    assert mirrored.count_files(WHEEL) == 1


@pytest.mark.parametrize(
    ("accept", "expected"),
    (
        ("application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+json"),
        ("application/vnd.pypi.simple.latest+json", "application/vnd.pypi.simple.v1+json"),
        ("application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.v1+html"),
        (
            "application/vnd.pypi.simple.v1+html;q=0.2, application/vnd.pypi.simple.v1+json",
            "application/vnd.pypi.simple.v1+json",
        ),
        (HTML, HTML),
        ("*/*", HTML),
    ),
)
def test_formats(mirror: Mirror, mirrored: Mirrored, accept: str, expected: str) -> None:
    """As for a local page, whatever the upstream speaks."""
    mirrored.look.as_json = False
    answer = page_of(mirror(), accept=accept)
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, expected)


def test_large_projects(mirror: Mirror, mirrored: Mirrored) -> None:
    """Eleven thousand files: every one is listed once, in both formats."""
    mirrored.look.extra = tuple(
        {"filename": f"demo-2.{n}.tar.gz", "url": f"/files/demo/demo-2.{n}.tar.gz", "hashes": {"sha256": f"{n:064x}"}}
        for n in range(11_000)
    )
    server = mirror()
    page, html = page_of(server).json, page_of(server, accept=HTML).text
    assert len({file["filename"] for file in page["files"]}) == len(page["files"]) == 11_001
    assert html.count("<a href=") == 11_001
    assert mirrored.count_pages() == 1
