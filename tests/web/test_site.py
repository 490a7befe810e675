"""Pages for people: they are there, their links lead somewhere, and nothing in them runs."""

import html
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.client_config import CLIENTS, Server, configure_client
from pypiserver_ng.model import Action, UpstreamSettings
from tests.tools.distributions import make_sdist, make_wheel
from tests.web.conftest import ROOT, OpenIndex, read_all
from tests.web.forms import header

PAGES = (
    "/",
    "/project/demo-pkg/",
    "/project/demo-pkg/1.0/",
    "/project/other/",
    "/-/search?q=demo",
    "/-/search?q=absent",
    "/-/search",
    "/-/search?q=",
)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"


class Elements(HTMLParser):
    """What a page refers to, and what in it could run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.references: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in {"href", "src", "action"} and value:
                self.references.append(value)


def crawl(client: TestClient, start: str) -> dict[str, int]:
    """Follow every link below the start page that stays on this server; URL to status."""
    found: dict[str, int] = {}
    todo = [urljoin(ROOT, start)]
    while todo:
        url = todo.pop()
        if url in found or urlsplit(url).netloc != urlsplit(ROOT).netloc:
            continue
        answer = client.get(url)
        found[url] = answer.status_code
        if answer.headers.get("content-type", "").startswith("text/html"):
            todo += [urldefrag(urljoin(url, link)).url for link in Elements(answer.text).references]
        if "location" in answer.headers:
            todo.append(urljoin(url, answer.headers["location"]))
    return found


@pytest.mark.parametrize("path", PAGES)
def test_page(stocked: TestClient, path: str) -> None:
    """A page is there, in HTML, and says to the browser that nothing in it may run or be framed."""
    answer = stocked.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    for directive in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-cache"
    assert not Elements(answer.text).tags & {"script", "iframe", "object", "embed"}
    assert not {name for name in Elements(answer.text).attributes if name.startswith("on")}


@pytest.mark.parametrize("prefix", ("", "/team/index"))
def test_every_link_leads_somewhere(open_index: OpenIndex, packages: Path, prefix: str) -> None:
    """From the home page every link on this server is answered, files and the style sheet included."""
    make_wheel(packages, "Demo.Pkg", "1.0+acme.1")
    make_sdist(packages / "sub dir", "Demo.Pkg", "1.1")
    make_wheel(packages, "other", "1!2.0")
    (packages / "versionless.zip").write_bytes((packages / "other-1!2.0-py3-none-any.whl").read_bytes())
    client = open_index(server_base_url=prefix)
    read_all(client, prefix)
    found = crawl(client, f"{prefix}/")
    assert {url: status for url, status in found.items() if status not in {200, 302}} == {}
    paths = {url.removeprefix(ROOT + prefix) for url in found}
    assert {"/", "/simple/", "/-/style.css", "/project/demo-pkg/", "/project/other/"} <= paths
    assert "/packages/sub%20dir/demo_pkg-1.1.tar.gz" in paths
    assert all(url.startswith(f"{ROOT}{prefix}/") for url in found)


@pytest.mark.parametrize(
    ("asked", "target"),
    (
        ("/project/Demo.Pkg/", "/project/demo-pkg/"),
        ("/project/Demo.Pkg", "/project/demo-pkg/"),
        ("/project/demo-pkg", "/project/demo-pkg/"),
        ("/project/demo-pkg/1.0", "/project/demo-pkg/1.0/"),
        ("/project/Demo.Pkg/1.0/", "/project/demo-pkg/1.0/"),
        ("/project/Demo.Pkg/1!1.0+a/", "/project/demo-pkg/1!1.0+a/"),
        ("/project/Demo.Pkg/%C3%A9/", "/project/demo-pkg/%C3%A9/"),
        ("/project/Demo.Pkg/1%0d%0aset-cookie:%20a=b/", "/project/demo-pkg/1%0D%0Aset-cookie%3A%20a%3Db/"),
        ("/project/Demo.Pkg/1%3fx%23y/", "/project/demo-pkg/1%3Fx%23y/"),
    ),
)
@pytest.mark.parametrize("query", ("", "?a=b"))
def test_spellings(stocked: TestClient, asked: str, target: str, query: str) -> None:
    """One relative redirect to the normal form, with everything encoded that a header cannot hold."""
    answer = stocked.get(asked + query)
    assert answer.status_code == 302
    assert "set-cookie" not in answer.headers
    assert answer.headers["location"].isascii()
    assert urljoin(ROOT + asked, answer.headers["location"]) == ROOT + target + query


@pytest.mark.parametrize(
    "path", ("/project/absent/", "/project/demo-pkg/9.9/", "/project/demo-pkg/nonsense/", "/project/demo-pkg/%00/")
)
def test_what_is_not_here(stocked: TestClient, path: str) -> None:
    """404 in one line for tools, and as a page for browsers that is as safe as the others."""
    answer = stocked.get(path)
    assert (answer.status_code, len(answer.text.splitlines())) == (404, 1)
    page = stocked.get(path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    links = [
        urljoin(ROOT + path, link) for link in Elements(page.text).references if not link.startswith(("#", "data:"))
    ]
    assert [link for link in links if stocked.get(link).status_code != 200] == []


@pytest.mark.parametrize("path", ("/simple/a%20b/", f"/simple/{HOSTILE}/", "/packages/%22%3E%3Cscript%3E"))
def test_refusals_are_text(stocked: TestClient, path: str) -> None:
    """What was asked for comes back as text, in either form."""
    page = stocked.get(path, headers={"accept": "text/html"})
    assert page.status_code == 404
    assert not Elements(page.text).tags & {"script", "img"}


@pytest.mark.parametrize("version", ("1.0", "1", "v1.0.0"))
def test_release(stocked: TestClient, version: str) -> None:
    """A release is found under any spelling of its version, and shows its own files."""
    page = stocked.get(f"/project/demo-pkg/{version}/")
    assert page.status_code == 200
    assert "demo_pkg-1.0-py3-none-any.whl" in page.text
    assert "demo_pkg-1.10-py3-none-any.whl" not in page.text


@pytest.mark.parametrize(
    ("query", "found"),
    (
        ("q=demo", True),
        ("q=DEMO", True),
        ("q=other+demo", True),
        ("q=absent", False),
        ("q=%25", False),
        ("q=%27%3D1", False),
        ("q=x&q=demo", True),
        ("q=%ff%fe%00", False),
        ("q=" + "x" * 60_000, False),
        ("q=" + "+".join(f"t{number}" for number in range(10_000)), False),
        ("q=" + HOSTILE.replace("#", ""), False),
        ("&&=;%%", True),  # no word: all projects
    ),
)
def test_search(stocked: TestClient, query: str, found: bool) -> None:
    """Words are looked for as they are; whatever they are, the answer is a page."""
    answer = stocked.get(f"/-/search?{query}")
    assert answer.status_code == 200
    assert ("project/demo-pkg/" in answer.text) is found
    assert not Elements(answer.text).tags & {"script", "img"}


def test_hostile_metadata(open_index: OpenIndex, packages: Path) -> None:
    """A description may say what it likes: nothing of it runs, and its links are links."""
    description = f"# Title\n\n{HOSTILE}\n\n[x](javascript:alert(1)) [y](https://good.example/)\n\n<style>*{{}}</style>"
    make_wheel(packages, "demo", "1.0", description=description, requires=["other ; extra == '<b>'"])
    client = open_index()
    read_all(client)
    for path in ("/project/demo/", "/-/search?q=demo", "/"):
        elements = Elements(client.get(path).text)
        assert not elements.tags & {"script", "style", "iframe"}
        assert not {name for name in elements.attributes if name.startswith("on")}
        assert not [link for link in elements.references if link.startswith("javascript")]
    assert "https://good.example/" in Elements(client.get("/project/demo/").text).references


@pytest.mark.parametrize("host", ('"><script>', "evil.example/x", "a\xe9"))
def test_hostile_host(stocked: TestClient, host: str) -> None:
    """A Host that is none never reaches a page."""
    answer = stocked.get("/", headers=header("host", host))
    assert answer.status_code == 200
    assert host not in answer.text


def test_commands_name_this_server(open_index: OpenIndex) -> None:
    """The home page shows the URL under which its reader sees it."""
    answer = open_index(server_base_url="/team").get("/team/", headers={"host": "pypi.acme.example:8443"})
    assert "http://pypi.acme.example:8443/team/simple/" in answer.text


@pytest.mark.parametrize(
    ("authenticate", "uploads", "is_guarded"),
    (
        (frozenset(), "open", False),
        ({Action.DOWNLOAD}, "open", True),
        ({Action.UPDATE, Action.LIST}, "credentials", True),
    ),
)
def test_clients_are_configured_as_by_the_command(
    open_index: OpenIndex, passwords: Path, authenticate: frozenset[Action], uploads: str, is_guarded: bool
) -> None:
    """The home page has the same text for each, for the URL and for what this server asks for."""
    client = open_index(authenticate=frozenset(authenticate), passwords=passwords, server_base_url="/team")
    page = html.unescape(client.get("/team/", headers={"host": "pypi.acme.example"}).text)
    server = Server("http://pypi.acme.example/team/", uploads, is_guarded)
    assert [name for name in CLIENTS if f"<pre>{configure_client(name, server)}</pre>" not in page] == []


def test_a_server_without_passwords_asks_for_tokens(open_index: OpenIndex) -> None:
    """Which it takes always."""
    page = open_index(authenticate=frozenset({Action.UPDATE})).get("/").text
    assert "Uploads need a token" in page
    assert "--token TOKEN" in page
    assert "user name and password" not in page.partition("Configure a client")[0]


@pytest.mark.parametrize("host", ("[:::]", "[::1]:8080", "pypi.acme.example:99999"))
def test_a_host_that_is_hardly_one(stocked: TestClient, host: str) -> None:
    """It is shown to who sent it, and makes nothing fail."""
    answer = stocked.get("/", headers={"host": host})
    assert answer.status_code == 200
    assert f"http://{host}/simple/" in answer.text


def test_own_home_page(open_index: OpenIndex, packages: Path, tmp_path: Path) -> None:
    """Only the five known words are replaced in it; nothing else is a template."""
    make_wheel(packages, "demo", "1.0")
    welcome = tmp_path / "welcome.html"
    welcome.write_text("<p>{{URL}} {{ VERSION }} {{NUMPKGS}} {{PACKAGES}} {{SIMPLE}} {{OTHER}} {% x %} {{7*7}}\n%x")
    answer = open_index(welcome=welcome).get("/")
    assert answer.status_code == 200
    assert f"{ROOT}/packages/" in answer.text
    assert f"{ROOT}/simple/" in answer.text
    assert "49" not in answer.text
    assert "{% x %}" in answer.text


@pytest.mark.parametrize("method", ("PUT", "DELETE", "OPTIONS", "PATCH"))
def test_other_methods(stocked: TestClient, method: str) -> None:
    """The root is read and posted to; the other pages are read."""
    assert "POST" in stocked.request(method, "/").headers["allow"]
    assert set(stocked.request(method, "/project/demo-pkg/").headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_stylesheet(stocked: TestClient) -> None:
    """One style sheet, kept for a while, that loads nothing from elsewhere."""
    answer = stocked.get("/-/style.css")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "max-age=" in answer.headers["cache-control"]
    assert "http" not in answer.text
    assert "@import" not in answer.text


def test_strangers_do_not_learn_what_is_reserved(open_index: OpenIndex, passwords: Path) -> None:
    """Nor where other projects come from; who may list does."""
    client = open_index(
        authenticate=frozenset(Action),
        passwords=passwords,
        reserve=("secret-merger-*",),
        disable_fallback=False,
        upstreams=(UpstreamSettings("mirror", "http://mirror.example/simple/"),),
    )
    known = client.get("/", auth=("alice", "wonder")).text
    stranger = client.get("/").text
    for text in ("secret-merger-*", "mirror.example"):
        assert text in known
        assert text not in stranger
