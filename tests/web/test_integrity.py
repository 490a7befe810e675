"""Provenance, from an upload with real attestations to the pages that name it and the route that has it."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.config.values import parse_network
from pypiserver_ng.model import Publisher
from tests.tools.attested import find_attested
from tests.tools.clients import ClientMissingError
from tests.tools.distributions import Distribution
from tests.web.conftest import make_client, make_config
from tests.web.forms import assert_refused, send, upload_form

SDIST = "pypi_attestations-0.0.19.tar.gz"
PATH = f"/integrity/pypi-attestations/0.0.19/{SDIST}/provenance"
PAGE = "/simple/pypi-attestations/"
JSON = "application/vnd.pypi.simple.v1+json"
INTEGRITY = "application/vnd.pypi.integrity.v1+json"
GITHUB = "https://token.actions.githubusercontent.com"
LOOPBACK = "http://localhost:8080"


def trust(repository: str) -> dict[str, Any]:
    claims = (("repository", repository), ("workflow", "release.yml"))
    return {"publishers": (Publisher(GITHUB, "pypiserver-ng", claims, ("pypi-*",)),)}


TRUSTED = trust("trailofbits/pypi-attestations")


@pytest.fixture(scope="module")
def attested() -> tuple[Distribution, str]:
    """A distribution and its field `attestations`."""
    found = find_attested()
    if isinstance(found, ClientMissingError):
        pytest.skip(str(found))
    return Distribution(SDIST, found[SDIST]), f"[{found[f'{SDIST}.publish.attestation'].decode()}]"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, attested: tuple[Distribution, str]) -> Iterator[TestClient]:
    """An index that trusts the distribution's publisher and has got it."""
    with make_client(make_config(tmp_path_factory.mktemp("packages"), **TRUSTED)) as client:
        answer = send(client, upload_form(attested[0], attestations=attested[1]))
        assert answer.status_code == 200, answer.text
        yield client


def read_file(client: TestClient, **headers: str) -> Any:
    (file,) = client.get(PAGE, headers={"accept": JSON, **headers}).json()["files"]
    return file


class Anchors(HTMLParser):
    """The attributes of every link."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append(dict(attrs))


def test_the_url_is_whole_and_answers(client: TestClient, attested: tuple[Distribution, str]) -> None:
    """In JSON and HTML; the object holds the publisher and the attestation as it was sent."""
    url = read_file(client, host="localhost:8080")["provenance"]
    assert url == LOOPBACK + PATH
    (link,) = Anchors(client.get(PAGE, headers={"host": "localhost:8080"}).text).links
    assert link["data-provenance"] == url
    answer = client.get(PATH)
    assert (answer.status_code, answer.headers["content-type"]) == (200, INTEGRITY)
    (bundle,) = answer.json()["attestation_bundles"]
    publisher = {"kind": "GitHub", "repository": "trailofbits/pypi-attestations", "workflow": "release.yml"}
    assert (answer.json()["version"], bundle["publisher"]) == (1, publisher)
    assert bundle["attestations"] == json.loads(attested[1])


@pytest.mark.parametrize(
    ("host", "is_shown"),
    (
        ("localhost:8080", True),
        ("127.0.0.1", True),
        ("[::1]:8080", True),
        ("packages.example", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ('evil"><script>', False),
    ),
)
def test_only_where_clients_may_trust_it(client: TestClient, host: str, is_shown: bool) -> None:
    """Over plain http that is loopback; the answers of one host are not those of another."""
    for _ in range(2):
        assert ("provenance" in read_file(client, host=host)) is is_shown
        assert ("data-provenance" in client.get(PAGE, headers={"host": host}).text) is is_shown


def test_behind_a_proxy_with_https(tmp_path: Path, attested: tuple[Distribution, str]) -> None:
    """The URL is the reader's, with the prefix."""
    proxy = {"trusted_proxy": (parse_network("0.0.0.0/0"),), "server_base_url": "/pypi"}
    with make_client(make_config(tmp_path, **TRUSTED, **proxy)) as client:
        client = TestClient(client.app, base_url="http://index.test", client=("127.0.0.1", 1))
        send(client, upload_form(attested[0], attestations=attested[1]), "/pypi/")
        headers = {"accept": JSON, "x-forwarded-proto": "https", "x-forwarded-host": "packages.example"}
        (file,) = client.get(f"/pypi{PAGE}", headers=headers).json()["files"]
        assert file["provenance"] == f"https://packages.example/pypi{PATH}"


def test_validators(client: TestClient) -> None:
    """One for each media type; a client that has it gets a 304."""
    tags = set()
    for accept in (INTEGRITY, "application/json"):
        answer = client.get(PATH, headers={"accept": accept})
        assert (answer.headers["content-type"], answer.headers["vary"]) == (accept, "Accept")
        assert answer.headers["cache-control"] == "no-cache"
        again = client.get(PATH, headers={"accept": accept, "if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        tags.add(answer.headers["etag"])
    assert len(tags) == 2
    assert client.get(PATH, headers={"accept": "*/*"}).headers["content-type"] == INTEGRITY
    assert client.get(PATH, headers={"accept": "text/html"}).status_code == 406


@pytest.mark.parametrize(
    "path",
    (
        PATH.replace("0.0.19/", "0.0.18/"),
        PATH.replace(SDIST, "pypi_attestations-0.0.19.zip"),
        PATH.replace("/pypi-attestations/", "/absent/"),
        PATH.replace("/pypi-attestations/", "/not a name/"),
    ),
)
def test_no_provenance(client: TestClient, path: str) -> None:
    """404 for what is not here or brought none."""
    assert client.get(path).status_code == 404


def test_another_publisher_is_refused(tmp_path: Path, attested: tuple[Distribution, str]) -> None:
    """The upload as a whole: its attestation says something that is not so."""
    with make_client(make_config(tmp_path, **trust("acme/other"))) as client:
        answer = send(client, upload_form(attested[0], attestations=attested[1]))
        assert_refused(answer, 400, "attestations")
        assert client.get(PAGE).status_code == 404


def test_attestations_may_follow_with_the_same_bytes(tmp_path: Path, attested: tuple[Distribution, str]) -> None:
    """And they survive a restart."""
    config = make_config(tmp_path, **TRUSTED)
    with make_client(config) as client:
        assert send(client, upload_form(attested[0])).status_code == 200
        assert client.get(PATH).status_code == 404
        assert "provenance" not in read_file(client, host="localhost")
        assert send(client, upload_form(attested[0], attestations=attested[1])).status_code == 200
        assert "provenance" in read_file(client, host="localhost")
        content = client.get(PATH).content
    with make_client(config) as client:
        assert content == client.get(PATH).content
