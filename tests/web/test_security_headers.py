"""What every answer says to browsers, on every route that there is, and whose forms are taken."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from httpx2 import Response
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from pypiserver_ng.model import Action
from tests.tools.distributions import make_sdist, make_wheel
from tests.web.conftest import OpenIndex, make_client, make_config

WHEEL = "demo-1.0-py3-none-any.whl"
SDIST = "demo-1.0.tar.gz"
#: What stands in a route for one of these.
EXAMPLES = {"project": "demo", "version": "1.0", "path": WHEEL, "filename": WHEEL}
#: Types that no browser takes for another one, nor runs.
UNSNIFFABLE = {"application/octet-stream", "application/gzip", "application/zip"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    packages = tmp_path_factory.mktemp("packages")
    make_wheel(packages, "demo", "1.0")
    make_sdist(packages, "demo", "1.0")
    with make_client(make_config(packages)) as client:
        yield client


def list_routes(client: TestClient, prefix: str = "") -> list[tuple[str, str]]:
    """Method and path of everything that is served."""
    app = client.app
    assert isinstance(app, Starlette)
    routes = [(prefix, route) for route in app.routes]
    for route in app.routes:
        if isinstance(route, Mount):
            routes += [(route.path, inner) for inner in route.routes]
    return [
        (method, start + re.sub(r"\{(\w+)(?::path)?\}", lambda match: EXAMPLES[match[1]], route.path))
        for start, route in routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
    ]


def assert_secure(answer: Response) -> None:
    """Whatever it is, and whatever became of the request."""
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    if media_type:
        assert answer.headers["x-content-type-options"] == "nosniff"
    if media_type in {"text/html", "application/vnd.pypi.simple.v1+html"}:
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["style-src"] == "'self'"
        assert "script-src" not in policy
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<script|<style|<iframe|\son\w+=|\sstyle=|javascript:", answer.text)
    location = urlsplit(answer.headers.get("location", ""))
    assert not location.scheme
    assert not location.netloc


@pytest.mark.parametrize("accept", ("text/html", "*/*", "application/json", "application/vnd.pypi.simple.v1+html"))
def test_every_route(client: TestClient, accept: str) -> None:
    """With its own methods, with one that it does not have, and for a project that is not there."""
    routes = list_routes(client)
    assert len(routes) > 40
    for method, path in routes:
        for asked in (path, path.replace("demo", "absent")):
            assert_secure(client.request(method, asked, headers={"accept": accept}))
            assert_secure(client.request("DELETE", asked, headers={"accept": accept}))
    assert_secure(client.get("/a/b/c/d", headers={"accept": accept}))


def test_every_route_of_a_closed_server(packages: Path, open_index: OpenIndex) -> None:
    """Who is not let in gets pages as safe."""
    make_wheel(packages, "demo", "1.0")
    closed = open_index(authenticate=frozenset(Action), server_base_url="/inner")
    routes = list_routes(closed)
    assert len([path for _, path in routes if path.startswith("/inner/")]) > 40
    for method, path in routes:
        assert_secure(closed.request(method, path, headers={"accept": "text/html"}))


@pytest.mark.parametrize("name", (WHEEL, SDIST))
@pytest.mark.parametrize("headers", ({}, {"range": "bytes=0-9"}, {"accept": "text/html"}))
def test_files(client: TestClient, name: str, headers: dict[str, str]) -> None:
    """They are saved, never shown."""
    answer = client.get(f"/packages/{name}", headers=headers)
    assert answer.status_code in {200, 206}
    assert answer.headers["content-type"] in UNSNIFFABLE
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_metadata_is_text(client: TestClient) -> None:
    """Whatever stands in it."""
    answer = client.get(f"/packages/{WHEEL}.metadata", headers={"accept": "text/html"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_forms_of_other_sites_are_refused(client: TestClient) -> None:
    """On every route that takes one; only a token that is in the form itself needs no such care."""
    paths = [path for method, path in list_routes(client) if method == "POST" and not path.startswith("/_/")]
    assert {"/", "/legacy/", "/RPC2", "/pypi"} <= set(paths)
    for path in paths:
        for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            answer = client.post(path, headers=headers)
            assert (answer.status_code, answer.text) == (403, "this form was sent by a page of another site\n")
