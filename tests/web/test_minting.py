"""Trusted publishing over HTTP: an issuer's token becomes one of this index, once, and nothing else does."""

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from pypiserver_ng.auth import exchange
from pypiserver_ng.auth.exchange import MOST_REFUSALS, WINDOW
from pypiserver_ng.model import Action, Publisher
from tests.tools.distributions import build_wheel
from tests.tools.issuer import FakeIssuer, running_issuer
from tests.tools.server import Serve, wait_until
from tests.web.conftest import OpenIndex
from tests.web.forms import CONTENT_TYPE, upload_form
from tests.web.test_access import keep_token

CLAIMS = (("repository", "acme/core"), ("workflow", "release.yml"))


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def trusting(open_index: OpenIndex, issuer: FakeIssuer) -> TestClient:
    """An index that believes the issuer about `acme-*`, and nobody else about anything."""
    return open_index(**settings(issuer))


def settings(issuer: FakeIssuer) -> dict[str, Any]:
    who = Publisher(issuer.url, "pypiserver-ng", CLAIMS, ("acme-*",))
    return {"publishers": (who,), "authenticate": frozenset({Action.UPDATE})}


def mint(client: TestClient, token: Any) -> Response:
    return client.post("/_/oidc/mint-token", json={"token": token})


def read_codes(response: Response) -> list[str]:
    """The codes of a refusal, whose shape clients rely on."""
    said = response.json()
    assert isinstance(said["message"], str)
    assert all(isinstance(error["description"], str) and error["description"] for error in said["errors"])
    return [error["code"] for error in said["errors"]]


def upload(client: TestClient, token: str, name: str) -> Response:
    wheel = build_wheel(name, "1.0")
    body = upload_form(wheel)
    return client.post("/", content=body, headers={"content-type": CONTENT_TYPE}, auth=("__token__", token))


def test_the_audience_is_told(trusting: TestClient) -> None:
    """Before anybody has credentials."""
    response = trusting.get("/_/oidc/audience")
    assert (response.status_code, response.json()) == (200, {"audience": "pypiserver-ng"})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"


def test_the_first_of_several_audiences_is_told(open_index: OpenIndex, issuer: FakeIssuer) -> None:
    """Tokens that are made out to another entry's are taken all the same."""
    first = Publisher("https://issuer.example", "packages.example", CLAIMS, ("other",))
    client = open_index(publishers=(first, *settings(issuer)["publishers"]))
    assert client.get("/_/oidc/audience").json() == {"audience": "packages.example"}
    assert mint(client, issuer.mint(audience="pypiserver-ng")).status_code == 200
    assert mint(client, issuer.mint(audience="packages.example")).status_code == 422


def test_without_publishers_it_is_off(client: TestClient, issuer: FakeIssuer) -> None:
    """As clients that try it unasked expect: 404 and JSON."""
    response = client.get("/_/oidc/audience")
    assert (response.status_code, read_codes(response)) == (404, ["not-enabled"])
    response = mint(client, issuer.mint())
    assert (response.status_code, read_codes(response)) == (422, ["not-enabled"])
    assert issuer.requests == []


def test_a_token_is_minted(trusting: TestClient, issuer: FakeIssuer) -> None:
    """It is good for a quarter of an hour, for uploads to the publisher's projects and nothing else."""
    response = mint(trusting, issuer.mint())
    answer = response.json()
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    assert sorted(answer) == ["expires", "success", "token"]
    assert answer["success"] is True
    assert 840 < answer["expires"] - time.time() <= 900
    assert upload(trusting, answer["token"], "acme-core").status_code == 200
    assert upload(trusting, answer["token"], "other").status_code == 403
    assert trusting.get("/simple/acme-core/").status_code == 200


def test_a_token_is_burnt_by_who_has_it(trusting: TestClient, issuer: FakeIssuer, packages: Path) -> None:
    """As uv does when it has published; what people made is for them to revoke."""
    token = mint(trusting, issuer.mint()).json()["token"]
    other = mint(trusting, issuer.mint()).json()["token"]
    response = trusting.post("/_/oidc/burn-token", json={"token": token})
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert upload(trusting, token, "acme-core").status_code == 401
    assert upload(trusting, other, "acme-core").status_code == 200
    made = base64.b64decode(keep_token(packages).removeprefix("Basic ")).decode().partition(":")[2]
    for text in (token, made, issuer.mint(), "", other[:-1]):
        response = trusting.post("/_/oidc/burn-token", json={"token": text})
        assert (response.status_code, read_codes(response)) == (422, ["invalid-token"])
    assert upload(trusting, made, "acme-more").status_code == 200
    assert trusting.post("/_/oidc/burn-token", json={"token": 1}).status_code == 422


def test_a_token_is_taken_once(trusting: TestClient, issuer: FakeIssuer) -> None:
    """Its copy is refused, and so is one whose signature is spelled otherwise."""
    token = issuer.mint(jti=None)
    assert mint(trusting, token).status_code == 200
    for copy in (token, f"{token}=="):
        response = mint(trusting, copy)
        assert (response.status_code, read_codes(response)) == (422, ["invalid-reuse-token"])
    assert mint(trusting, issuer.mint()).status_code == 200


def test_of_many_copies_at_once_one_is_taken(trusting: TestClient, issuer: FakeIssuer) -> None:
    """The database decides."""
    token = issuer.mint()
    with ThreadPoolExecutor(8) as threads:
        statuses = sorted(threads.map(lambda _: mint(trusting, token).status_code, range(8)))
    assert statuses == [200] + [422] * 7


def test_a_used_token_stays_used(open_index: OpenIndex, issuer: FakeIssuer, packages: Path) -> None:
    """Of two servers on one state directory, as after a restart, the second knows what the first took."""
    token = issuer.mint()
    assert mint(open_index(**settings(issuer)), token).status_code == 200
    assert read_codes(mint(open_index(**settings(issuer)), token)) == ["invalid-reuse-token"]


def test_while_an_issuer_is_down_nothing_is_refused(trusting: TestClient, issuer: FakeIssuer) -> None:
    """It can be told later whether a token is sound, and clients come back."""
    token = issuer.mint()
    issuer.status = 500
    response = mint(trusting, token)
    assert (response.status_code, read_codes(response)) == (503, ["unavailable"])
    assert response.headers["retry-after"] == "5"


def test_of_several_processes_one_takes_a_token(serve: Serve, issuer: FakeIssuer, tmp_path: Path) -> None:
    """Whichever of a server's workers is asked first."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[publisher]]\nissuer = "{issuer.url}"\nclaims = {{ repository = "acme/core" }}\nprojects = ["acme-*"]\n'
    )
    server = serve("--disable-fallback", "--workers", "2", "--config", str(config))
    token = issuer.mint()

    def ask(_: int) -> int:
        return httpx2.post(f"{server.url}/_/oidc/mint-token", json={"token": token}, trust_env=False).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = sorted(threads.map(ask, range(16)))
    assert statuses == [200] + [422] * 15


def test_both_outcomes_are_on_record(trusting: TestClient, issuer: FakeIssuer, packages: Path) -> None:
    """What was given is an event; what was refused is in the audit log, with the reason."""
    token = issuer.mint()
    mint(trusting, token)
    mint(trusting, token)
    state = packages / ".pypiserver-ng"
    (event,) = [json.loads(line) for line in (state / "journal.jsonl").read_text().splitlines() if "publisher:" in line]
    assert event["action"] == "token"
    assert event["user"].endswith(":acme/core")
    assert event["token"]["actions"] == ["update"]
    assert 840 < event["token"]["expires"] / 1e6 - time.time() <= 900
    # It is there a moment before its first line.
    wait_until(lambda: (state / "audit.jsonl").exists() and (state / "audit.jsonl").stat().st_size > 0)
    (refusal,) = map(json.loads, (state / "audit.jsonl").read_text().splitlines())
    assert (refusal["action"], refusal["outcome"]) == ("mint", "refused")
    assert "used before" in refusal["reason"]


@pytest.mark.parametrize(
    "body",
    (
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"token": null}',
        b'{"token": 1}',
        b'{"token": ["x"]}',
        b'{"token": "\xff"}',
        b'{"token": "\\ud800"}',
        b'{"token": "x"',
        b"\xef\xbb\xbf{}",
        b"[" * 30_000,
        b'{"x":' * 6_000,
        b'{"token": "x", "more": ' + b"[" * 30_000,
        b'{"token": "' + b"x" * 40_000 + b'"}',
        b"token=x",
    ),
)
def test_a_bad_request_is_no_fault(trusting: TestClient, body: bytes) -> None:
    """Whatever the body is, the answer says what it should be."""
    response = trusting.post("/_/oidc/mint-token", content=body)
    assert (response.status_code, read_codes(response)) == (422, ["invalid-payload"])


def test_a_long_request_is_not_read(trusting: TestClient) -> None:
    """It stops where no token can be that long."""
    response = trusting.post("/_/oidc/mint-token", content=b" " * 40_000)
    assert "larger than 32768 bytes" in response.json()["errors"][0]["description"]


@pytest.mark.parametrize(
    ("claims", "code"),
    (
        ({"repository": "acme/other"}, "invalid-publisher"),
        ({"aud": "elsewhere"}, "invalid-token"),
        ({"exp": 1}, "invalid-token"),
        ({"iss": "https://evil.example"}, "invalid-publisher"),
    ),
)
def test_a_token_that_is_not_believed(
    trusting: TestClient, issuer: FakeIssuer, claims: dict[str, Any], code: str
) -> None:
    """Each with a code for programs and a line for people."""
    response = mint(trusting, issuer.sign(issuer.claims() | claims))
    assert (response.status_code, read_codes(response)) == (422, [code])


def test_more_in_the_request_means_nothing(trusting: TestClient, issuer: FakeIssuer) -> None:
    """Later versions of clients may ask for features."""
    response = trusting.post("/_/oidc/mint-token", content=json.dumps({"features": [], "token": issuer.mint()}))
    assert response.status_code == 200


@pytest.mark.parametrize(("method", "path"), (("POST", "/_/oidc/audience"), ("GET", "/_/oidc/mint-token")))
def test_other_methods(trusting: TestClient, method: str, path: str) -> None:
    """405, and not a project's page."""
    assert trusting.request(method, path).status_code == 405


def test_who_is_refused_too_often_has_to_wait(
    trusting: TestClient, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sound token as well, and with the errors that clients go through."""
    for _ in range(MOST_REFUSALS):
        assert mint(trusting, "x").status_code == 422
    for token in ("x", issuer.mint()):
        response = mint(trusting, token)
        assert (response.status_code, read_codes(response)) == (429, ["too-many-requests"])
        assert 0 < int(response.headers["retry-after"]) <= WINDOW
    monkeypatch.setattr(exchange, "WINDOW", 0.0)
    assert mint(trusting, issuer.mint()).status_code == 200


def test_below_a_prefix_it_is_found_at_the_root_too(open_index: OpenIndex, issuer: FakeIssuer) -> None:
    """Clients ask the host, whatever the path of the index is."""
    client = open_index(**settings(issuer), server_base_url="/pypi")
    for prefix in ("", "/pypi"):
        assert client.get(f"{prefix}/_/oidc/audience").json() == {"audience": "pypiserver-ng"}
        assert client.post(f"{prefix}/_/oidc/mint-token", json={"token": issuer.mint()}).status_code == 200


def test_nothing_of_a_token_is_written_down(
    trusting: TestClient, issuer: FakeIssuer, packages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of what was sent nor of what was given, but who it was; and of a forged one not even that."""
    caplog.set_level("DEBUG")
    sound, forged = issuer.mint(), issuer.sign(issuer.claims(repository="forged/claim"), kid="one", key=None)
    forged = forged.rpartition(".")[0] + ".AAAA"
    minted = mint(trusting, sound).json()["token"]
    mint(trusting, forged)
    written = caplog.text + "".join(
        path.read_bytes().decode("latin-1")
        for path in packages.rglob("*")
        if path.is_file() and "sqlite" not in path.name
    )
    assert "publisher:127.0.0.1:" in written
    for secret in (*sound.split("."), *forged.split(".")[:2], minted, minted.rpartition("-")[2], "forged/claim"):
        assert secret not in written
