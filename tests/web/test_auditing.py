"""Who was refused what, from where and why: in the audit log, without a secret, and nothing else is."""

import base64
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.model import Action, Grant, Right
from pypiserver_ng.storage.audit import AuditLog, Entry
from pypiserver_ng.storage.trail import Trail
from pypiserver_ng.web.auditing import Refusals
from tests.tools.distributions import build_wheel
from tests.tools.program import Program
from tests.tools.server import Serve, wait_until
from tests.web.conftest import OpenIndex
from tests.web.forms import CONTENT_TYPE, encode, part, upload_form

EVERYTHING = frozenset(Action)
WHEEL = build_wheel("demo", "1.0")
ID, SECRET = "0123456789abcdef", "s" * 43


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


ALICE = basic("alice", "wonder")


def read(packages: Path) -> list[Entry]:
    with closing(Trail(packages / ".pypiserver-ng")) as trail:
        return list(trail.read())


def describe(entry: Entry) -> dict[str, Any]:
    """What is known of it, but for time and reason."""
    names = ("action", "user", "address", "project", "version", "filename")
    return {name: value for name in names if (value := getattr(entry, name)) is not None}


def post(client: TestClient, body: bytes, headers: dict[str, str], path: str = "/") -> int:
    return client.post(path, content=body, headers={"content-type": CONTENT_TYPE} | headers).status_code


@pytest.fixture
def closed(open_index: OpenIndex, passwords: Path) -> TestClient:
    """An index with nothing for anybody without credentials."""
    return open_index(authenticate=EVERYTHING, passwords=passwords)


CLAIMS: tuple[tuple[dict[str, str], str | None], ...] = (
    (basic("alice", "wrong"), "alice"),
    # A name that nobody has may be a password.
    (basic("hunter2", ""), None),
    (basic("__token__", f"pypi-ng-{ID}-{SECRET}"), f"token {ID}"),
    ({"authorization": f"Bearer pypi-ng-{ID}-{SECRET}"}, f"token {ID}"),
    (basic("__token__", SECRET), None),
    ({"authorization": f"Bearer {SECRET}"}, None),
    ({"authorization": f"Digest {SECRET}"}, None),
    ({"authorization": "Basic !"}, None),
)
PLACES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("GET", "/simple/", {}),
    ("GET", "/simple/demo/", {"project": "demo"}),
    ("GET", "/pypi/demo/1.0/json", {"project": "demo", "version": "1.0"}),
    ("GET", f"/packages/x/{WHEEL.filename}", {"project": "demo", "version": "1.0", "filename": WHEEL.filename}),
    ("GET", "/packages/nothing", {"filename": "nothing"}),
    ("POST", "/legacy/", {}),
)


def test_failed_logins(closed: TestClient, packages: Path) -> None:
    """Everywhere, with as much as is known and no secret."""
    expected = []
    for headers, user in CLAIMS:
        for method, path, what in PLACES:
            assert closed.request(method, path, headers=headers).status_code == 401
            # What strangers ask for is theirs to make up.
            details = what if user == "alice" else {}
            expected.append({"action": "login", "address": "testclient"} | ({"user": user} if user else {}) | details)
    seen = {tuple(sorted(one.items())) for one in expected}
    wait_until(lambda: {tuple(sorted(describe(entry).items())) for entry in read(packages)} == seen, within=5)
    assert all(entry.outcome == "refused" and entry.reason for entry in read(packages))
    content = (packages / ".pypiserver-ng" / "audit.jsonl").read_text()
    assert not any(secret in content for secret in (SECRET, "hunter2", "wrong:", "wonder"))


def test_strangers_do_not_fill_the_log(closed: TestClient, packages: Path) -> None:
    """What they make up in great number is all alike; who has a name here is named all the same."""
    for number in range(200):
        headers = basic("__token__", f"pypi-ng-{number:016x}-{SECRET}")
        assert closed.get(f"/packages/x{number}-1.0.zip", headers=headers).status_code == 401
    assert closed.get("/simple/demo/", headers=basic("alice", "x")).status_code == 401
    wait_until(lambda: any(entry.user == "alice" for entry in read(packages)), within=5)
    assert len(read(packages)) < 70


def test_what_is_no_news(closed: TestClient, packages: Path) -> None:
    """Requests without credentials, names that are not here, and bad requests for pages."""
    assert closed.get("/simple/demo/").status_code == 401
    assert post(closed, b"", {}) == 401
    assert closed.get("/simple/demo/", headers=ALICE).status_code == 404
    assert closed.get("/packages/absent-1.0.zip", headers=ALICE).status_code == 404
    assert closed.delete("/", headers=ALICE).status_code == 405
    assert closed.get("/simple/demo/", headers=basic("alice", "x")).status_code == 401
    wait_until(lambda: len(read(packages)) == 1, within=5)


@pytest.mark.parametrize(
    ("method", "path", "noted"),
    (
        ("POST", "/", True),
        ("POST", "/legacy/", True),
        ("GET", "/", False),
        ("GET", "/simple/", False),
        ("POST", "/pypi", False),
    ),
)
def test_bad_requests(tmp_path: Path, method: str, path: str, noted: bool) -> None:
    """Only of uploads: there somebody meant to change something."""
    scope = {"method": method, "path": path, "headers": [], "client": ("192.0.2.1", 1)}
    with closing(AuditLog(tmp_path)) as log:
        Refusals(log, lambda _header: None, lambda _user: False).note(scope, 400, "no")
    with closing(Trail(tmp_path)) as trail:
        assert len(list(trail.read())) == noted


def refuse_bad_form(client: TestClient) -> int:
    return client.post("/", content=b"x", headers={"content-type": "text/plain"} | ALICE).status_code


def refuse_digest(client: TestClient) -> int:
    return post(client, upload_form(WHEEL, sha256_digest="0" * 64), ALICE)


def refuse_conflict(client: TestClient) -> int:
    assert post(client, upload_form(WHEEL), ALICE) == 200
    return post(client, upload_form(build_wheel("demo", "1.0", requires_python=">=3.8")), ALICE)


def refuse_large(client: TestClient) -> int:
    return post(client, b"", ALICE | {"content-length": str(2**50)})


def refuse_foreign(client: TestClient) -> int:
    return post(client, upload_form(WHEEL), ALICE | {"sec-fetch-site": "cross-site"}, "/legacy/")


def refuse_removal(client: TestClient) -> int:
    return post(client, encode([part(":action", "remove_pkg"), part("name", "Demo_X"), part("version", "")]), ALICE)


DEMO = {"project": "demo", "version": "1.0", "filename": WHEEL.filename}


@pytest.mark.parametrize(
    ("refuse", "status", "what", "reason"),
    (
        (refuse_bad_form, 400, {"action": "upload"}, "must be multipart/form-data"),
        (refuse_digest, 400, {"action": "upload"} | DEMO, "sha256_digest does not match"),
        (refuse_conflict, 409, {"action": "upload"} | DEMO, "File already exists"),
        (refuse_large, 413, {"action": "upload"}, "larger than this index takes"),
        (refuse_removal, 400, {"action": "delete", "project": "demo-x"}, "are needed"),
    ),
)
def test_refused_uploads(
    closed: TestClient,
    packages: Path,
    refuse: Callable[[TestClient], int],
    status: int,
    what: dict[str, str],
    reason: str,
) -> None:
    """By whom, what, and why."""
    assert refuse(closed) == status
    wait_until(lambda: len(read(packages)) == 1, within=5)
    (entry,) = read(packages)
    assert describe(entry) == {"user": "alice", "address": "testclient"} | what
    assert reason in (entry.reason or "")


def test_a_form_of_another_site(closed: TestClient, packages: Path) -> None:
    """It is refused before anybody looks whose credentials it brings."""
    assert refuse_foreign(closed) == 403
    wait_until(lambda: len(read(packages)) == 1, within=5)
    assert describe(read(packages)[0]) == {"action": "upload", "address": "testclient"}


def test_an_uploader_is_known_while_somebody_is_locked_out(closed: TestClient, packages: Path) -> None:
    """Though nobody's password is believed from memory then."""
    for number in range(12):
        closed.get("/simple/", headers=basic("bob", str(number)))
    assert refuse_digest(closed) == 400
    wait_until(lambda: any(entry.user == "alice" for entry in read(packages)), within=5)


def test_a_prefix_is_no_part_of_a_path(open_index: OpenIndex, passwords: Path, packages: Path) -> None:
    client = open_index(authenticate=EVERYTHING, passwords=passwords, server_base_url="/packages")
    assert client.get("/packages/simple/demo/", headers=basic("alice", "x")).status_code == 401
    assert refuse_bad_form(client) in {404, 405}
    body = upload_form(WHEEL, sha256_digest="0" * 64)
    assert post(client, body, ALICE, "/packages/") == 400
    wait_until(lambda: len(read(packages)) == 2, within=5)
    assert [describe(entry).get("filename") for entry in read(packages)] == [None, WHEEL.filename]


def test_a_token_that_may_not(serve: Serve, packages: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Is named, in the events that everybody's are in."""
    import httpx2

    WHEEL.write(packages)
    program = Program(tmp_path, environment)
    made = program.run("token", "create", "ci", "--projects", "other-*", "--actions", "list")
    assert made.returncode == 0, made
    server = serve("-a", "update,download,list", "--disable-fallback")
    headers = basic("__token__", made.stdout.strip())
    assert httpx2.get(f"{server.url}/packages/{WHEEL.filename}", headers=headers).status_code == 403
    assert httpx2.get(f"{server.simple}other-thing/", headers=headers).status_code == 404
    wait_until(lambda: len(read(packages)) == 2, within=5)
    refused, used = read(packages)
    # Only what is allowed is a use.
    assert (used.outcome, describe(used)) == ("done", {"action": "use", "user": "token:ci", "address": "127.0.0.1"})
    assert describe(refused) == {"action": "download", "user": "token:ci", "address": "127.0.0.1"} | DEMO
    assert made.stdout.strip() not in program.run("events", "--json").stdout


def test_what_is_concealed_is_written_down(open_index: OpenIndex, packages: Path, passwords: Path) -> None:
    """Who asks is told that it is not here; who reads of it later, that it was refused."""
    WHEEL.write(packages)
    grants = (Grant("", frozenset({"alice"}), ("acme-*",), frozenset({Right.LIST})),)
    client = open_index(passwords=passwords, grants=grants, conceal=True)
    assert client.get("/simple/demo/", headers=ALICE).status_code == 404
    assert client.get("/simple/acme-core/", headers=ALICE).status_code == 404
    wait_until(lambda: bool(read(packages)), within=5)
    (entry,) = read(packages)
    assert describe(entry) | {"address": ""} == {"action": "list", "user": "alice", "project": "demo", "address": ""}
