"""`/simple/`: the same facts in HTML and JSON, links that work, redirects, validators."""

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.model import Action, UpstreamSettings
from tests.tools.distributions import build_sdist, build_wheel, make_sdist, make_wheel
from tests.tools.server import Server
from tests.web.conftest import ROOT, OpenIndex
from tests.web.forms import CONTENT_TYPE, Wire, header, upload_form

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"

#: Paths that name a project in a spelling of their own, and the project's page.
SPELLINGS = [
    ("/simple/Demo.Pkg/", "/simple/demo-pkg/"),
    ("/simple/demo_pkg/", "/simple/demo-pkg/"),
    ("/simple/DEMO-._-PKG/", "/simple/demo-pkg/"),
    ("/simple/demo-pkg", "/simple/demo-pkg/"),
    ("/simple/Demo_Pkg", "/simple/demo-pkg/"),
    ("/simple/De%6Do.Pkg", "/simple/demo-pkg/"),
    ("/demo-pkg", "/simple/demo-pkg/"),
    ("/demo-pkg/", "/simple/demo-pkg/"),
    ("/Demo.Pkg", "/simple/demo-pkg/"),
    ("/Demo.Pkg/", "/simple/demo-pkg/"),
    ("/simple", "/simple/"),
]
NO_PROJECTS = [
    "a%20b",
    "%C3%A9",
    "%E2%84%AAelvin",  # the Kelvin sign, which lower-cases to k
    "-foo",
    "foo-",
    "_",
    ".",
    "..",
    "%2e%2e",
    "foo%00",
    "foo%0a",
    "foo%0d%0aset-cookie:%20a=b",
    "foo%5cbar",
    "foo%3fbar",
    "foo%23bar",
    "%ff%fe",
    "<b>",
    "~foo",
    "foo+bar",
    "a" * 256,
]


class Anchors(HTMLParser):
    """Every anchor of a page: its text and its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[str] = []
        self.meta: dict[str | None, str | None] = {}
        self._inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "a":
            self.found.append(("", dict(attrs)))
            self._inside = True
        if tag == "meta":
            self.meta[dict(attrs).get("name")] = dict(attrs).get("content")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "a"

    def handle_data(self, data: str) -> None:
        if self._inside:
            text, attributes = self.found[-1]
            self.found[-1] = (text + data, attributes)


def read_json(client: TestClient, path: str) -> Any:
    answer = client.get(path, headers={"accept": JSON})
    assert answer.status_code == 200, answer.text
    return answer.json()


def facts_of_anchor(text: str, attributes: dict[str, str | None]) -> dict[str, Any]:
    """One anchor in the words of the JSON form."""
    url, fragment = urldefrag(attributes["href"] or "")
    metadata = (attributes.get("data-core-metadata") or "").removeprefix("sha256=")
    return {
        "filename": text,
        "url": url,
        "hashes": dict([fragment.split("=")]),
        "requires-python": attributes.get("data-requires-python"),
        "core-metadata": {"sha256": metadata} if metadata else False,
        "gpg-sig": attributes.get("data-gpg-sig") == "true",
        "yanked": "data-yanked" in attributes,
    }


def facts_of_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """What both forms can say of one file."""
    shared = ("filename", "url", "hashes", "core-metadata")
    return {key: entry[key] for key in shared} | {
        "requires-python": entry.get("requires-python"),
        "gpg-sig": bool(entry.get("gpg-sig")),
        "yanked": bool(entry["yanked"]),
    }


def download_all(client: TestClient, page: str) -> int:
    """Follow every file link of a page in both forms and check the bytes; returns how many there were."""
    entries = read_json(client, page)["files"]
    anchors = Anchors(client.get(page).text).found
    for entry, (_, attributes) in zip(entries, anchors, strict=True):
        url, fragment = urldefrag(urljoin(ROOT + page, attributes["href"] or ""))
        assert url == urljoin(ROOT + page, entry["url"])
        answer = client.get(url)
        assert answer.status_code == 200, url
        assert entry["size"] == len(answer.content)
        assert entry["hashes"]["sha256"] == hashlib.sha256(answer.content).hexdigest()
        assert f"sha256={entry['hashes']['sha256']}" == fragment
    return len(entries)


@pytest.mark.parametrize("form", (HTML, "text/html"))
@pytest.mark.parametrize("page", ("/simple/demo-pkg/", "/simple/other/"))
def test_html_and_json_state_the_same(stocked: TestClient, page: str, form: str) -> None:
    """Both forms list the same files in the same order with the same facts."""
    answer = stocked.get(page, headers={"accept": form})
    anchors = Anchors(answer.text)
    listed = [facts_of_anchor(*anchor) for anchor in anchors.found]
    assert [facts_of_entry(entry) for entry in read_json(stocked, page)["files"]] == listed
    assert anchors.meta["pypi:repository-version"] == "1.4"
    assert answer.text.startswith("<!DOCTYPE html>")


def test_json_of_a_project(stocked: TestClient) -> None:
    """The fields that versions 1.0 to 1.4 of the API ask for, sorted by version as PEP 440 sorts."""
    page = read_json(stocked, "/simple/demo-pkg/")
    assert (page["meta"], page["name"]) == ({"api-version": "1.4"}, "demo-pkg")
    assert page["versions"] == ["1.0", "1.9", "1.10"]
    wheel = build_wheel("Demo.Pkg", "1.0", requires_python=">=3.8")
    assert {
        "filename": wheel.filename,
        "url": f"../../packages/{wheel.filename}",
        "hashes": {"sha256": wheel.sha256},
        "size": len(wheel.content),
        "upload-time": "2023-11-14T22:13:20.000000Z",
        "requires-python": ">=3.8",
        "core-metadata": page["files"][0]["core-metadata"],
        "yanked": False,
    } == page["files"][0]
    assert [entry["filename"] for entry in page["files"]] == [
        "demo_pkg-1.0-py3-none-any.whl",
        "demo_pkg-1.9.tar.gz",
        "demo_pkg-1.10-py3-none-any.whl",
    ]
    assert [bool(entry["core-metadata"]) for entry in page["files"]] == [True, False, True]


def test_links_download(stocked: TestClient) -> None:
    """Every link of either form leads to bytes with the hash it states, also in a subdirectory."""
    assert download_all(stocked, "/simple/demo-pkg/") == 3
    assert download_all(stocked, "/simple/other/") == 1


def test_list_of_projects(stocked: TestClient) -> None:
    """Normalized names, sorted, each once, with links to their pages."""
    assert read_json(stocked, "/simple/") == {
        "meta": {"api-version": "1.4"},
        "projects": [{"name": "demo-pkg"}, {"name": "other"}],
    }
    anchors = Anchors(stocked.get("/simple/").text).found
    assert [(text, found["href"]) for text, found in anchors] == [("demo-pkg", "demo-pkg/"), ("other", "other/")]


def test_list_without_projects(open_index: OpenIndex) -> None:
    """An empty index is a page without links."""
    client = open_index()
    assert read_json(client, "/simple/") == {"meta": {"api-version": "1.4"}, "projects": []}
    assert Anchors(client.get("/simple/").text).found == []


@pytest.mark.parametrize("query", ("", "?format=text/html&x=%0A"))
@pytest.mark.parametrize(("asked", "page"), SPELLINGS)
def test_spellings_of_a_name(stocked: TestClient, asked: str, page: str, query: str) -> None:
    """One relative redirect leads to the normal form and keeps the query as it was."""
    answer = stocked.get(asked + query)
    location = answer.headers["location"]
    assert answer.status_code == 302
    assert answer.headers["cache-control"] == "no-cache"
    assert not location.startswith("/")
    assert ":" not in location.partition("?")[0]
    assert ROOT + page + query == urljoin(ROOT + asked, location)
    assert stocked.get(urljoin(ROOT + asked, location)).status_code == 200


@pytest.mark.parametrize("asked", ("/simple/Foo_Bar", "/simple/Foo_Bar/", "/Foo_Bar", "/Foo_Bar/"))
def test_spellings_of_a_name_that_is_not_here(stocked: TestClient, asked: str) -> None:
    """What is not here is redirected to its normal form first, and is 404 there."""
    target = urljoin(ROOT + asked, stocked.get(asked).headers["location"])
    assert f"{ROOT}/simple/foo-bar/" == target
    answer = stocked.get(target)
    assert (answer.status_code, len(answer.text.splitlines())) == (404, 1)


@pytest.mark.parametrize("name", NO_PROJECTS)
@pytest.mark.parametrize("shape", ("/simple/{}/", "/simple/{}", "/{}", "/{}/", "/project/{}/", "/pypi/{}/json"))
def test_names_that_are_none(wire: Wire, live: Server, shape: str, name: str) -> None:
    """Text that is no project name is 404 in one plain line at once, and never sent round in circles."""
    answer = wire.get(shape.format(name))
    assert answer.status == 404
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert len(answer.body.splitlines()) == 1
    assert answer.body.strip().decode().isprintable()
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ("/simple//", "//simple/", "/simple/demo/1.0/", "/simple/demo//", "/simple/demo/%0a"))
def test_paths_beside_the_pages(wire: Wire, path: str) -> None:
    """Nothing but the two shapes of a page is one."""
    assert wire.get(path).status == 404


def test_fallback(open_index: OpenIndex) -> None:
    """A project without a file is somewhere else: the query goes along, credentials and odd names do not."""
    client = open_index(
        disable_fallback=False, upstreams=(UpstreamSettings("upstream", "https://user:secret@mirror.example/simple/"),)
    )
    answer = client.get("/simple/absent/?format=text/html")
    assert (
        answer.status_code,
        answer.headers["location"],
    ) == (302, "https://mirror.example/simple/absent/?format=text/html")
    assert client.get("/Some_Thing/").headers["location"] == "../simple/some-thing/"
    assert client.get("/simple/a%20b/").status_code == 404


@pytest.mark.parametrize("path", ("/simple/", "/simple/demo-pkg/"))
@pytest.mark.parametrize("form", (JSON, HTML, "text/html"))
def test_not_modified(stocked: TestClient, path: str, form: str) -> None:
    """If-None-Match compares weakly, one tag or a list of them, and `*` fits everything that is here."""
    etag = stocked.get(path, headers={"accept": form}).headers["etag"]
    for tags in (etag, f"W/{etag}", f'"x", {etag}', f'W/"x",W/{etag} , "y"', "*"):
        answer = stocked.get(path, headers={"accept": form, "if-none-match": tags})
        assert (304, b"", etag) == (answer.status_code, answer.content, answer.headers["etag"]), tags
        assert answer.headers["cache-control"] == "no-cache"
    for tags in ('"x"', etag.strip('"'), '"x', "", f'"{etag[1:5]}"', "nonsense, \xe9"):
        answer = stocked.get(path, headers={b"accept": form.encode(), **header("if-none-match", tags)})
        assert answer.status_code == 200, tags


def test_validator_follows_the_files(open_index: OpenIndex, packages: Path) -> None:
    """A page has the same ETag in another process with the same files, and another one with other files."""
    make_wheel(packages, "demo", "1.0")
    first = open_index().get("/simple/demo/").headers["etag"]
    assert first == open_index().get("/simple/demo/").headers["etag"]
    make_wheel(packages, "demo", "1.1")
    assert first != open_index().get("/simple/demo/").headers["etag"]


@pytest.mark.parametrize(
    "path",
    (
        "/simple/",
        "/simple/demo-pkg/",
        "/simple/absent/",
        "/simple/Demo.Pkg",
        "/Demo.Pkg",
        "/simple/a%20b/",
        "/packages/demo_pkg-1.0-py3-none-any.whl",
        "/packages/demo_pkg-1.0-py3-none-any.whl.metadata",
        "/packages/absent-1.0.tar.gz",
        "/pypi/demo-pkg/json",
        "/project/demo-pkg/",
        "/",
        "/health",
        "/-/ready",
        "/-/style.css",
    ),
)
@pytest.mark.parametrize("accept_encoding", ("identity", "gzip"))
def test_head_is_get_without_a_body(stocked: TestClient, path: str, accept_encoding: str) -> None:
    """HEAD has the status and every header of GET."""
    got = stocked.get(path, headers={"accept-encoding": accept_encoding})
    head = stocked.head(path, headers={"accept-encoding": accept_encoding})
    assert (got.status_code, dict(got.headers)) == (head.status_code, dict(head.headers))
    assert head.content == b""


@pytest.mark.parametrize("path", ("/simple/", "/simple/demo-pkg/", "/simple", "/simple/Demo.Pkg"))
@pytest.mark.parametrize("method", ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
def test_reading_only(stocked: TestClient, path: str, method: str) -> None:
    """Pages are read: any other method is 405 and says what is allowed (uv asks whether it was meant to upload)."""
    answer = stocked.request(method, path)
    assert answer.status_code == 405
    assert {"GET", "HEAD"} == set(answer.headers["allow"].split(", "))
    assert len(answer.text.splitlines()) == 1


@pytest.mark.parametrize(
    ("authenticate", "expected"), ((set(), "no-cache"), ({Action.LIST}, "private, no-cache")), ids=["open", "list"]
)
def test_shared_caches(
    open_index: OpenIndex, packages: Path, passwords: Path, authenticate: set[Action], expected: str
) -> None:
    """Where the list needs credentials no shared cache may keep it."""
    make_wheel(packages, "demo", "1.0")
    client = open_index(authenticate=frozenset(authenticate), passwords=passwords)
    for path in ("/simple/", "/simple/demo/"):
        answer = client.get(path, auth=("alice", "wonder"))
        assert (200, expected) == (answer.status_code, answer.headers["cache-control"])
        again = client.get(path, auth=("alice", "wonder"), headers={"if-none-match": answer.headers["etag"]})
        assert (304, expected) == (again.status_code, again.headers["cache-control"])


def test_under_a_prefix(open_index: OpenIndex, packages: Path) -> None:
    """Everything is below the prefix, links and redirects included, and nothing beside it."""
    make_wheel(packages, "Demo.Pkg", "1.0")
    client = open_index(server_base_url="/team/index")
    assert download_all(client, "/team/index/simple/demo-pkg/") == 1
    for asked, page in [*SPELLINGS, ("", "/")]:
        location = client.get(f"/team/index{asked}?q=1").headers["location"]
        assert f"{ROOT}/team/index{page}?q=1" == urljoin(f"{ROOT}/team/index{asked}", location)
    for path in ("/", "/simple/", "/simple/demo-pkg/", "/health", "/team/", "/team/indexsimple/", "/team/index2/"):
        assert client.get(path).status_code == 404, path
    for path in ("/", "/health", "/-/ready", "/pypi/demo-pkg/json", "/project/demo-pkg/"):
        assert client.get(f"/team/index{path}").status_code == 200, path


@pytest.mark.parametrize("requires", (">=3.8,<4", "!=3.9.*,>3", '>3,"&<>', "<script>alert(1)</script>", "&lt;4"))
def test_hostile_requires_python(open_index: OpenIndex, packages: Path, requires: str) -> None:
    """What an archive says of itself is text in both forms, or left out of both; it never becomes markup."""
    make_wheel(packages, "demo", "1.0", requires_python=requires)
    client = open_index()
    stated = read_json(client, "/simple/demo/")["files"][0].get("requires-python")
    page = Anchors(client.get("/simple/demo/").text)
    assert stated in {requires, None}
    assert stated == page.found[0][1].get("data-requires-python")
    assert "script" not in page.tags


@pytest.mark.parametrize(
    "filename",
    (
        'demo-1.0"><img src=x>.zip',
        "demo-1.0&amp;#x.zip",
        "demo-1.0 (copy).tar.gz",
        "demo-1.0?x=1.tar.gz",
        "demo-1.0é\u2603.tar.gz",
        "demo-1.0+local.1.tar.gz",
        "demo-1.0'onclick='x.zip",
    ),
)
def test_hostile_filenames(open_index: OpenIndex, packages: Path, filename: str) -> None:
    """A name that someone gave a file is listed as it is, and its link still leads to it."""
    make_sdist(packages, "demo", "1.0").rename(packages / filename)
    client = open_index()
    assert [filename] == [entry["filename"] for entry in read_json(client, "/simple/demo/")["files"]]
    page = Anchors(client.get("/simple/demo/").text)
    assert [filename] == [text for text, _ in page.found]
    assert "img" not in page.tags
    assert download_all(client, "/simple/demo/") == 1


def test_signature(open_index: OpenIndex, packages: Path) -> None:
    """A signature beside its file is said of the file, in both forms, and can be fetched."""
    path = make_sdist(packages, "demo", "1.0")
    path.with_name(f"{path.name}.asc").write_text("signature")
    client = open_index()
    (entry,) = read_json(client, "/simple/demo/")["files"]
    assert entry["gpg-sig"] is True
    assert Anchors(client.get("/simple/demo/").text).found[0][1]["data-gpg-sig"] == "true"
    assert client.get(urljoin("/simple/demo/", entry["url"] + ".asc")).content == b"signature"


def test_an_upload_is_in_the_next_page(open_index: OpenIndex, packages: Path) -> None:
    """A page from memory is as fresh as one that was never asked for."""
    client = open_index()
    for number, distribution in enumerate((build_wheel("demo", "1.0"), build_sdist("demo", "1.1")), start=1):
        answer = client.post("/", content=upload_form(distribution), headers={"content-type": CONTENT_TYPE})
        assert answer.status_code == 200, answer.text
        for _ in range(2):
            assert number == len(read_json(client, "/simple/demo/")["files"])
            assert read_json(client, "/simple/")["projects"] == [{"name": "demo"}]


def test_security_headers(stocked: TestClient) -> None:
    """Pages run nothing, whatever a browser is shown; JSON is never taken for another type."""
    page = stocked.get("/simple/demo-pkg/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert stocked.get("/simple/demo-pkg/", headers={"accept": JSON}).headers["x-content-type-options"] == "nosniff"


def test_json_is_what_it_says(stocked: TestClient) -> None:
    """The bytes are UTF-8 JSON without a charset parameter, as the specification spells the type."""
    answer = stocked.get("/simple/", headers={"accept": JSON})
    assert answer.headers["content-type"] == JSON
    assert json.loads(answer.content.decode()) == answer.json()
