"""Which surface needs which credentials: every action against every surface and every kind of caller."""

import base64
from pathlib import Path

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from pypiserver_ng.model import Action
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.server import wait_until
from tests.web.conftest import OpenIndex
from tests.web.forms import CONTENT_TYPE, encode, header, part, upload_form

WHEEL = build_wheel("demo", "1.0")
FILE = f"/packages/{WHEEL.filename}"
SEARCH = b"<methodCall><methodName>search</methodName></methodCall>"
VERIFY = encode([part(":action", "verify")])

#: Method, path and body of a request, and the action that it is.
GUARDED = (
    ("GET", "/simple/", b"", Action.LIST),
    ("HEAD", "/simple/", b"", Action.LIST),
    ("GET", "/simple/demo/", b"", Action.LIST),
    ("HEAD", "/simple/demo/", b"", Action.LIST),
    ("GET", "/pypi/demo/json", b"", Action.LIST),
    ("GET", "/pypi/demo/1.0/json", b"", Action.LIST),
    ("GET", "/demo/json", b"", Action.LIST),
    ("GET", "/project/demo/", b"", Action.LIST),
    ("GET", "/project/demo/1.0/", b"", Action.LIST),
    ("GET", "/-/search?q=demo", b"", Action.LIST),
    ("POST", "/RPC2", SEARCH, Action.LIST),
    ("POST", "/pypi", SEARCH, Action.LIST),
    ("GET", FILE, b"", Action.DOWNLOAD),
    ("HEAD", FILE, b"", Action.DOWNLOAD),
    ("GET", f"{FILE}.metadata", b"", Action.DOWNLOAD),
    ("HEAD", f"{FILE}.metadata", b"", Action.DOWNLOAD),
    ("POST", "/", VERIFY, Action.UPDATE),
    ("POST", "/legacy/", VERIFY, Action.UPDATE),
    ("POST", "/legacy", VERIFY, Action.UPDATE),
)
#: Never guarded, whatever needs credentials.
OPEN = ("/", "/health", "/-/ready", "/-/style.css")
#: Redirects tell nothing: they are the same for what is here and what is not.
REDIRECTS = ("/simple", "/simple/Demo", "/Demo", "/demo/", "/absent/", "/project/demo")

RIGHT = "Basic " + base64.b64encode(b"alice:wonder").decode()
WRONG = (
    None,
    "",
    "Basic",
    "Basic ",
    "Basic !!!!",
    "Basic YWxpY2U=",
    "Basic " + base64.b64encode(b"alice:wrong").decode(),
    "Basic " + base64.b64encode(b"bob:wonder").decode(),
    "Basic " + base64.b64encode(b"alice:wonder\0").decode(),
    "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
    "Basic " + base64.b64encode(b":").decode(),
    "Bearer YWxpY2U6d29uZGVy",
    "Digest username=alice",
    RIGHT[:-4],
    "Basic " + "A" * 100_000,
    "\xff\xfe",
)


def ask(client: TestClient, method: str, path: str, body: bytes, authorization: str | None) -> Response:
    headers = header("content-type", CONTENT_TYPE) if body == VERIFY else {}
    if authorization is not None:
        headers |= header("authorization", authorization)
    return client.request(method, path, content=body, headers=headers)


@pytest.fixture
def guarded(open_index: OpenIndex, packages: Path, passwords: Path, authenticate: frozenset[Action]) -> TestClient:
    WHEEL.write(packages)
    return open_index(passwords=passwords, authenticate=authenticate)


@pytest.mark.parametrize("authenticate", [frozenset({action}) for action in Action] + [frozenset(Action), frozenset()])
def test_every_surface(guarded: TestClient, authenticate: frozenset[Action]) -> None:
    """A surface needs credentials exactly when its action does; right ones always open it."""
    for method, path, body, action in GUARDED:
        expected = 401 if action in authenticate else 200
        assert ask(guarded, method, path, body, None).status_code == expected, (method, path)
        assert ask(guarded, method, path, body, RIGHT).status_code == 200, (method, path)
    for path in OPEN:
        assert ask(guarded, "GET", path, b"", None).status_code == 200, path
    for path in REDIRECTS:
        assert ask(guarded, "GET", path, b"", None).status_code == 302, path


@pytest.mark.parametrize("guarded_by", GUARDED, ids=lambda row: f"{row[0]} {row[1]}")
@pytest.mark.parametrize("authenticate", (frozenset(Action),), ids=["all"])
def test_wrong_credentials(guarded: TestClient, guarded_by: tuple[str, str, bytes, Action]) -> None:
    """No, unreadable, wrong and unknown credentials are the same answer on every surface, with a challenge."""
    for method, path, body, _ in [guarded_by]:
        for authorization in WRONG:
            answer = ask(guarded, method, path, body, authorization)
            assert answer.status_code == 401, (method, path, authorization)
            assert answer.headers["www-authenticate"] == 'Basic realm="pypi"'
            assert answer.headers["cache-control"] == "no-store"
            assert method == "HEAD" or len(answer.text.splitlines()) == 1


@pytest.mark.parametrize("authenticate", (frozenset(),), ids=["none"])
def test_credentials_that_nobody_asked_for(guarded: TestClient) -> None:
    """What needs no credentials is not refused for those that come along: clients send them everywhere."""
    for method, path, body, _ in GUARDED:
        for authorization in WRONG:
            assert ask(guarded, method, path, body, authorization).status_code == 200, (method, path, authorization)


@pytest.mark.parametrize("authenticate", (frozenset({Action.LIST, Action.DOWNLOAD}),), ids=["reading"])
def test_what_is_not_here_needs_credentials_too(guarded: TestClient) -> None:
    """Without credentials nobody learns what is here and what is not."""
    for path in ("/simple/absent/", "/packages/absent-1.0.tar.gz", "/pypi/absent/json", "/project/absent/"):
        assert ask(guarded, "GET", path, b"", None).status_code == 401, path
        assert ask(guarded, "GET", path, b"", RIGHT).status_code == 404, path


@pytest.mark.parametrize("authenticate", (frozenset({Action.LIST}),), ids=["list"])
def test_home_tells_strangers_nothing(guarded: TestClient) -> None:
    """The home page is open, and shows projects to those only who may list them."""
    assert ask(guarded, "GET", "/simple/demo/", b"", RIGHT).status_code == 200
    assert "project/demo/" not in ask(guarded, "GET", "/", b"", None).text
    assert "project/demo/" in ask(guarded, "GET", "/", b"", RIGHT).text


def test_without_a_password_file(open_index: OpenIndex, packages: Path) -> None:
    """A guarded action without a password file is refused to everyone, and the answer says why."""
    WHEEL.write(packages)
    client = open_index(authenticate=frozenset({Action.UPDATE}))
    for authorization in (None, RIGHT):
        answer = ask(client, "POST", "/", VERIFY, authorization)
        assert (answer.status_code, len(answer.text.splitlines())) == (401, 1)
        assert "--passwords" in answer.text
    assert ask(client, "GET", FILE, b"", None).status_code == 200


@pytest.mark.parametrize("scheme", ("basic", "BASIC", "Basic "))
def test_spelling_of_the_scheme(open_index: OpenIndex, passwords: Path, scheme: str) -> None:
    """The scheme's name is not case-sensitive (RFC 9110, 11.1)."""
    client = open_index(passwords=passwords, authenticate=frozenset({Action.LIST}))
    assert ask(client, "GET", "/simple/", b"", RIGHT.replace("Basic", scheme)).status_code == 200


def test_user_who_was_added_and_removed(open_index: OpenIndex, passwords: Path) -> None:
    """A changed password file counts without a restart."""
    client = open_index(passwords=passwords, authenticate=frozenset({Action.LIST}))
    line = passwords.read_text()
    passwords.write_text(line + line.replace("alice", "bob"))
    bob = "Basic " + base64.b64encode(b"bob:wonder").decode()
    assert ask(client, "GET", "/simple/", b"", bob).status_code == 200
    passwords.write_text(line)
    wait_until(lambda: ask(client, "GET", "/simple/", b"", bob).status_code == 401, within=10)
    assert ask(client, "GET", "/simple/", b"", RIGHT).status_code == 200


def test_refused_upload_is_not_stored(open_index: OpenIndex, packages: Path, passwords: Path) -> None:
    """Rights to read are no rights to write."""
    client = open_index(passwords=passwords, authenticate=frozenset({Action.UPDATE}))
    body = upload_form(build_sdist("demo", "1.0"))
    assert client.post("/", content=body, headers={"content-type": CONTENT_TYPE}).status_code == 401
    assert [path.name for path in packages.iterdir()] == [".pypiserver-ng"]
    answer = client.post("/", content=body, headers={"content-type": CONTENT_TYPE, "authorization": RIGHT})
    assert answer.status_code == 200
