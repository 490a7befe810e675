"""XML-RPC `search` at `/RPC2` and `/pypi`: rows for `pip search`, and a fault for everything else."""

import io
import xmlrpc.client
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from pypiserver_ng.model import Action
from tests.tools.distributions import build_sdist, build_wheel, make_wheel
from tests.tools.server import OPEN, Serve
from tests.web.conftest import OpenIndex, make_client, make_config, read_all

#: The one form that pip sends.
PIP = "search"

HOSTILE = [
    b"",
    b"nonsense",
    b"<methodCall>",
    b"<methodCall><methodName>search</methodName>",
    (
        b"<methodCall><methodName>search</methodName><params><param><value><int>x</int></value></param></params>"
        b"</methodCall>"
    ),
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><methodCall><methodName>&a;</methodName></methodCall>',
    b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><methodCall><methodName>search</methodName></methodCall>',
    (
        b"<methodCall><methodName>search</methodName><params><param><value><base64>\xff</base64></value></param></params>"
        b"</methodCall>"
    ),
    b"\xff\xfe\x00\x00",
    b"<" * 100_000,
    b"<value>" * 20_000,
    b"<methodCall><methodName>search</methodName><params>" + b"<param><value><array><data>" * 5_000,
    b'<?xml version="1.0" encoding="utf-7"?><methodCall/>',
    b"x" * 2_000_000,
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    packages = tmp_path_factory.mktemp("packages")
    for distribution in (
        build_wheel("Acme.Core", "1.9"),
        build_wheel("Acme.Core", "1.10"),
        build_sdist("acme-tools", "2.0"),
        build_wheel("zebra", "1.0"),
    ):
        distribution.write(packages)
    with make_client(make_config(packages)) as client:
        read_all(client)
        yield client


def call(client: TestClient, *arguments: Any, method: str = PIP, path: str = "/RPC2") -> Response:
    body = xmlrpc.client.dumps(arguments, method)
    return client.post(path, content=body, headers={"content-type": "text/xml"})


def search(client: TestClient, *arguments: Any, path: str = "/RPC2") -> list[dict[str, Any]]:
    answer = call(client, *arguments, path=path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    (rows,), _ = xmlrpc.client.loads(answer.text)
    assert isinstance(rows, list)
    return rows


def fault_of(answer: Response) -> xmlrpc.client.Fault:
    """The fault in an answer; pip dies on anything but a 200."""
    assert answer.status_code == 200
    with pytest.raises(xmlrpc.client.Fault) as caught:
        xmlrpc.client.loads(answer.text)
    return caught.value


@pytest.mark.parametrize("path", ("/RPC2", "/RPC2/", "/pypi", "/pypi/"))
def test_search(client: TestClient, path: str) -> None:
    """One row for each project, in its newest version."""
    rows = search(client, {"name": ["core"], "summary": ["core"]}, "or", path=path)
    assert rows == [{"name": "Acme.Core", "version": "1.10", "summary": "Acme.Core for tests", "_pypi_ordering": 0}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    (
        (({"name": ["acme"]}, "or"), ["Acme.Core", "acme-tools"]),
        (({"name": ["ACME"]}, "or"), ["Acme.Core", "acme-tools"]),
        (({"name": "zeb"},), ["zebra"]),
        (({"name": ["zebra", "tools"]},), ["acme-tools", "zebra"]),
        (({"summary": ["for tests"]}, "and"), ["Acme.Core", "acme-tools", "zebra"]),
        (({"name": ["absent"]},), []),
        (({"name": ["%"]},), []),
        (({"name": ["_"]},), []),
        (({"name": ["' or 1=1 --"]},), []),
        (({"name": ["\\", "\u2603", "\U0001f40d"]},), []),
        (({"name": [1, None, True, [], {}, "zebra"]},), ["zebra"]),
        (("zebra",), ["zebra"]),
        ((["zebra"],), ["zebra"]),
    ),
)
def test_terms(client: TestClient, arguments: tuple[Any, ...], expected: list[str]) -> None:
    """Terms are plain text, found anywhere in a name or summary, in either case."""
    body = xmlrpc.client.dumps(arguments, PIP, allow_none=True)
    (rows,), _ = xmlrpc.client.loads(client.post("/RPC2", content=body).text)
    assert isinstance(rows, list)
    assert expected == [row["name"] for row in rows]


@pytest.mark.parametrize(
    "arguments", ((), ({},), ({"name": []},), ({"name": [""]},), ({"other": ["zebra"]},), (17,), ({"name": {}},))
)
def test_search_without_terms(client: TestClient, arguments: tuple[Any, ...]) -> None:
    """A search for nothing in particular is no fault."""
    assert isinstance(search(client, *arguments), list)


@pytest.mark.parametrize(
    "terms", (["x" * 300], ["x" * 60_000], ["%" * 100_000], [f"term{number}" for number in range(5_000)])
)
def test_too_much_to_search(client: TestClient, terms: list[str]) -> None:
    """What the database would refuse is refused before."""
    assert "at most" in fault_of(call(client, {"name": terms})).faultString


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body[:40]))
def test_hostile_bodies(client: TestClient, body: bytes) -> None:
    """Anything that is no call is a fault in a well-formed answer."""
    assert fault_of(client.post("/RPC2", content=body)).faultString


@pytest.mark.parametrize("method", ("list_packages", "system.listMethods", "", "&lt;b&gt;", "\u2603", "x" * 10_000))
def test_other_methods(client: TestClient, method: str) -> None:
    """There is one method; the fault says which."""
    assert "search" in fault_of(call(client, method=method)).faultString


def test_summary_that_xml_cannot_hold(open_index: OpenIndex, packages: Path) -> None:
    """Whatever an archive says of itself, the answer is well-formed XML."""
    wheel = build_wheel("demo", "1.0")
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as old, zipfile.ZipFile(packages / wheel.filename, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"demo for tests", b"demo \x0b\x00\x1b<&]]>\xef\xbf\xbe tests"))
    client = open_index()
    read_all(client)
    (row,) = search(client, {"name": ["demo"]})
    assert "<&]]>" in row["summary"]


def test_form_of_another_site(client: TestClient) -> None:
    """Pages of other sites do not search with a browser's credentials."""
    body = xmlrpc.client.dumps(({"name": ["x"]},), PIP)
    assert client.post("/RPC2", content=body, headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_private_list(open_index: OpenIndex, passwords: Path) -> None:
    """A search is a list."""
    client = open_index(passwords=passwords, authenticate=frozenset({Action.LIST}))
    assert call(client, {"name": ["x"]}).status_code == 401
    body = xmlrpc.client.dumps(({"name": ["x"]},), PIP)
    assert client.post("/RPC2", content=body, auth=("alice", "wonder")).status_code == 200


def test_through_the_standard_library(serve: Serve, packages: Path) -> None:
    """Python's own client gets its rows."""
    make_wheel(packages, "demo", "1.0")
    server = serve(*OPEN, "--disable-fallback")
    with xmlrpc.client.ServerProxy(f"{server.url}/RPC2") as proxy:
        assert proxy.search({"name": ["absent"]}, "or") == []
        with pytest.raises(xmlrpc.client.Fault):
            proxy.package_releases("demo")
