"""Rights for each project and tokens, on every surface: what is refused tells nothing, and what is allowed works."""

import base64
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from pypiserver_ng.auth import make_token
from pypiserver_ng.catalog import Catalog
from pypiserver_ng.model import Action, Grant, Right
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.server import Serve, wait_until
from tests.web.conftest import OpenIndex
from tests.web.forms import CONTENT_TYPE, encode, part, stored, upload_form

JSON = "application/vnd.pypi.simple.v1+json"
ACME, VAULT, OPEN = build_wheel("acme-core", "1.0"), build_wheel("vault", "1.0"), build_wheel("tools", "1.0")
READ = frozenset({Right.LIST, Right.DOWNLOAD})
ALICE = "Basic " + base64.b64encode(b"alice:wonder").decode()
SEARCH = "<methodCall><methodName>search</methodName><params/></methodCall>"

#: Alice may read what is Acme's, everybody may read the tools, nobody may do anything with the other project.
GRANTS = (
    Grant("", frozenset({"alice"}), ("acme-*",), READ),
    Grant("", frozenset({"anyone"}), ("tools",), READ),
)


def surfaces(name: str) -> list[str]:
    """Everything that tells of a project, whether it is here or not."""
    return [
        f"/simple/{name}/",
        f"/pypi/{name}/json",
        f"/pypi/{name}/1.0/json",
        f"/{name}/json",
        f"/project/{name}/",
        f"/project/{name}/1.0/",
        f"/-/why/{name}",
        f"/-/why/{name}/1.0",
        f"/integrity/{name}/1.0/{name.replace('-', '_')}-1.0-py3-none-any.whl/provenance",
        f"/packages/{name.replace('-', '_')}-1.0-py3-none-any.whl",
        f"/packages/{name.replace('-', '_')}-1.0-py3-none-any.whl.metadata",
        f"/packages/below/{name}-1.0.tar.gz",
        f"/packages/{name.upper()}-1.0.zip",
    ]


def keep_token(
    packages: Path, name: str = "deploy", projects: str = "acme-*", actions: str = "update", **more: Any
) -> str:
    """Make a token beside the server; the header that its owner sends."""
    token, text = make_token(
        name,
        tuple(projects.split()),
        frozenset(Action(action) for action in actions.split()),
        datetime.now(UTC),
        **more,
    )
    catalog = Catalog(packages / ".pypiserver-ng")
    catalog.tokens.add(token, None)
    catalog.close()
    return "Basic " + base64.b64encode(f"__token__:{text}".encode()).decode()


def get(client: TestClient, path: str, authorization: str | None = None, **headers: str) -> Response:
    credentials = {} if authorization is None else {"authorization": authorization}
    return client.get(path, headers=credentials | headers)


def post(client: TestClient, body: bytes, authorization: str | None) -> Response:
    credentials = {} if authorization is None else {"authorization": authorization}
    return client.post("/", content=body, headers=credentials | {"content-type": CONTENT_TYPE})


def remove(name: str, version: str) -> bytes:
    return encode([part(":action", "remove_pkg"), part("name", name), part("version", version)])


def list_names(client: TestClient, authorization: str | None = None) -> list[str]:
    page = get(client, "/simple/", authorization, accept=JSON).json()
    return [project["name"] for project in page["projects"]]


@pytest.fixture
def ruled(open_index: OpenIndex, packages: Path, passwords: Path) -> TestClient:
    for wheel in (ACME, VAULT, OPEN):
        wheel.write(packages)
    return open_index(passwords=passwords, grants=GRANTS)


def test_what_is_allowed_and_what_is_not(ruled: TestClient) -> None:
    """401 without credentials, 403 with right ones, on every surface, and the same for what is not here."""
    for path in surfaces("vault") + surfaces("absent"):
        assert get(ruled, path).status_code == 401, path
        assert get(ruled, path).headers["www-authenticate"] == 'Basic realm="pypi"'
        assert get(ruled, path, "Bearer x").status_code == 401, path
        assert get(ruled, path, ALICE).status_code == 403, path
    for path in surfaces("acme-core"):
        assert get(ruled, path).status_code == 401, path
        assert get(ruled, path, ALICE).status_code in {200, 404}, path
    for path in surfaces("tools"):
        for authorization in (None, ALICE, "Bearer x", "Basic ????"):
            assert get(ruled, path, authorization).status_code in {200, 404}, (path, authorization)


def test_what_may_not_be_seen_looks_as_if_it_were_not_here(
    open_index: OpenIndex, packages: Path, passwords: Path
) -> None:
    """With `conceal`, for callers who are known; others are asked who they are."""
    VAULT.write(packages)
    client = open_index(passwords=passwords, grants=GRANTS, conceal=True)
    for path in surfaces("vault"):
        assert get(client, path).status_code == 401, path
        answer = get(client, path, ALICE)
        assert answer.status_code == 404, path
        absent = path.replace("vault", "absent").replace("VAULT", "ABSENT")
        assert get(client, absent, ALICE).text.replace("absent", "vault") == answer.text


def test_it_never_goes_upstream_for_want_of_a_right(open_index: OpenIndex, packages: Path, passwords: Path) -> None:
    VAULT.write(packages)
    client = open_index(
        passwords=passwords, grants=GRANTS, disable_fallback=False, fallback_url=("http://127.0.0.1:9/simple/",)
    )
    for name in ("vault", "absent"):
        assert get(client, f"/simple/{name}/").status_code == 401
        assert get(client, f"/simple/{name}/", ALICE).status_code == 403
    assert get(client, "/simple/acme-absent/", ALICE).status_code in {302, 307, 404}


def test_lists_show_what_may_be_listed(ruled: TestClient) -> None:
    """The list of projects, search, XML-RPC and the home page; in turns, so that nobody gets another's."""
    for name in ("acme-core", "tools"):
        assert get(ruled, f"/simple/{name}/", ALICE).status_code == 200
    for authorization, expected in ((None, ["tools"]), (ALICE, ["acme-core", "tools"])) * 2:
        assert list_names(ruled, authorization) == expected
        headers = {} if authorization is None else {"authorization": authorization}
        pages = [get(ruled, path, authorization).text for path in ("/-/search?q=", "/-/search?q=t", "/")]
        pages.append(ruled.post("/RPC2", content=SEARCH, headers=headers).text)
        for text in pages:
            assert [name for name in ("acme-core", "tools", "vault") if name in text] == expected, text


def test_lists_of_two_tokens_are_two(ruled: TestClient, packages: Path) -> None:
    """Whoever asked before; and one that may list nothing sees what anyone does."""
    core = keep_token(packages, "core", projects="acme-core", actions="list")
    vault = keep_token(packages, "vault", projects="vault", actions="list")
    none = keep_token(packages, "none", projects="*", actions="update")
    for header, expected in ((core, ["acme-core", "tools"]), (vault, ["tools", "vault"]), (none, ["tools"])) * 2:
        assert list_names(ruled, header) == expected


def test_who_may_upload_nothing_is_told_before_the_form_is_read(open_index: OpenIndex, packages: Path) -> None:
    """What is in it does not matter then."""
    client = open_index(authenticate=frozenset(Action))
    answer = post(client, b"no form at all", keep_token(packages, actions="list"))
    assert answer.status_code == 403
    assert "may not upload" in answer.text
    assert post(client, b"no form at all", keep_token(packages, "other", actions="update")).status_code == 400


def test_what_is_later_is_concealed_too(open_index: OpenIndex, packages: Path) -> None:
    build_wheel("acme-core", "3.0").write(packages)
    client = open_index(authenticate=frozenset(Action), conceal=True)
    header = keep_token(packages, actions="list download", until_version="2.0")
    later = get(client, "/packages/acme_core-3.0-py3-none-any.whl", header)
    absent = get(client, "/packages/acme_core-4.0-py3-none-any.whl", header)
    assert (later.status_code, later.text) == (absent.status_code, absent.text) == (404, absent.text)
    # Uploads are no pages: who may not is told so.
    assert post(client, upload_form(VAULT), header).status_code == 403


@pytest.mark.parametrize("credentials", ("password", "token"))
def test_what_was_answered_is_not_answered_to_who_is_gone(
    serve: Serve, packages: Path, passwords: Path, credentials: str
) -> None:
    """The same bytes on one connection, again and again, until the user or the token is not there any more."""
    ACME.write(packages)
    server = serve("-P", str(passwords), "-a", "list,download,update", "--disable-fallback")
    header = ALICE if credentials == "password" else keep_token(packages, actions="list")
    with httpx2.Client(headers={"authorization": header}, trust_env=False) as client:
        for _ in range(5):
            assert client.get(f"{server.simple}acme-core/").status_code == 200
        if credentials == "password":
            passwords.write_text("")
        else:
            catalog = Catalog(packages / ".pypiserver-ng")
            catalog.tokens.revoke("deploy", None)
            catalog.close()
        wait_until(lambda: client.get(f"{server.simple}acme-core/").status_code == 401, within=2)


def test_the_list_follows_what_is_here(ruled: TestClient, packages: Path) -> None:
    """For each caller, what was remembered does not outlive a change."""
    assert list_names(ruled, ALICE) == ["acme-core", "tools"]
    header = keep_token(packages, projects="acme-new", actions="list update")
    assert list_names(ruled, header) == ["tools"]
    assert post(ruled, upload_form(build_wheel("acme-new", "1.0")), header).status_code == 200
    assert list_names(ruled, ALICE) == ["acme-core", "acme-new", "tools"]
    assert list_names(ruled, header) == ["acme-new", "tools"]
    assert list_names(ruled) == ["tools"]


@pytest.mark.parametrize(
    ("may", "upload", "create", "delete"),
    (
        ("", 403, 403, 403),
        ("list download", 403, 403, 403),
        ("upload", 200, 403, 403),
        ("create", 403, 200, 403),
        ("upload create", 200, 200, 403),
        ("delete", 403, 403, 200),
        ("upload create delete", 200, 200, 200),
    ),
)
def test_rights_to_change(
    open_index: OpenIndex, packages: Path, passwords: Path, may: str, upload: int, create: int, delete: int
) -> None:
    """To add to a project, to begin one and to delete are three rights; what is refused leaves nothing."""
    ACME.write(packages)
    rights = frozenset(Right(word) for word in may.split())
    client = open_index(passwords=passwords, grants=(Grant("", frozenset({"alice"}), ("acme-*",), rights),))
    before = stored(packages)
    for body in (upload_form(build_sdist("acme-core", "2.0")), remove("acme-core", "1.0"), upload_form(VAULT)):
        assert post(client, body, None).status_code == 401
    assert post(client, upload_form(VAULT), ALICE).status_code == 403
    assert post(client, remove("vault", "1.0"), ALICE).status_code == 403
    assert stored(packages) == before
    assert post(client, upload_form(build_sdist("acme-core", "2.0")), ALICE).status_code == upload
    assert post(client, upload_form(build_sdist("acme-new", "1.0")), ALICE).status_code == create
    assert post(client, remove("acme-core", "1.0"), ALICE).status_code == delete
    assert ("acme_core-2.0.tar.gz" in stored(packages)) == (upload == 200)
    assert ("acme_new-1.0.tar.gz" in stored(packages)) == (create == 200)
    assert (ACME.filename in stored(packages)) == (delete != 200)


@pytest.mark.parametrize("grants", ((), GRANTS), ids=["flags", "entries"])
def test_a_token_has_its_own_rights(
    open_index: OpenIndex, packages: Path, passwords: Path, grants: Sequence[Grant]
) -> None:
    """For its projects and actions, wherever credentials are needed; nobody deletes with one."""
    for wheel in (ACME, VAULT):
        wheel.write(packages)
    client = open_index(passwords=passwords, grants=tuple(grants), authenticate=frozenset(Action))
    reading = keep_token(packages, "reading", actions="list download")
    writing = keep_token(packages, "writing", actions="update")
    for path in surfaces("acme-core"):
        assert get(client, path, reading).status_code in {200, 404}, path
        assert get(client, path, writing).status_code == 403, path
    for path in surfaces("vault"):
        assert get(client, path, reading).status_code == 403, path
    assert list_names(client, reading) == ["acme-core"]
    assert post(client, upload_form(build_sdist("acme-core", "2.0")), reading).status_code == 403
    assert post(client, upload_form(build_sdist("acme-new", "1.0")), writing).status_code == 200
    assert post(client, upload_form(build_sdist("vault", "2.0")), writing).status_code == 403
    assert post(client, remove("acme-core", "1.0"), writing).status_code == 403
    assert post(client, remove("acme-core", "1.0"), reading).status_code == 403


def test_what_is_open_is_open_for_tokens(open_index: OpenIndex, packages: Path) -> None:
    """By default everybody reads, also with a token that is for something else, or for nothing any more."""
    VAULT.write(packages)
    client = open_index(authenticate=frozenset({Action.UPDATE}))
    header = keep_token(packages)
    for authorization in (header, header[:-8], "Bearer x"):
        assert get(client, "/simple/vault/", authorization).status_code == 200
        assert get(client, f"/packages/{VAULT.filename}", authorization).status_code == 200
    assert post(client, upload_form(ACME), header).status_code == 200
    assert post(client, upload_form(build_wheel("vault", "2.0")), header).status_code == 403
    assert post(client, upload_form(build_wheel("acme-core", "2.0")), header[:-8]).status_code == 401


def test_a_token_that_expired_or_was_revoked(open_index: OpenIndex, packages: Path) -> None:
    """Pages that it was shown a moment ago are not shown again."""
    ACME.write(packages)
    client = open_index(authenticate=frozenset(Action))
    expired = keep_token(packages, "old", actions="list", lifetime=timedelta(microseconds=1))
    assert get(client, "/simple/acme-core/", expired).status_code == 401
    header = keep_token(packages, actions="list")
    for _ in range(3):
        assert get(client, "/simple/acme-core/", header).status_code == 200
    catalog = Catalog(packages / ".pypiserver-ng")
    catalog.tokens.revoke("deploy", None)
    catalog.close()
    assert get(client, "/simple/acme-core/", header).status_code == 401


def test_who_guesses_has_to_wait(ruled: TestClient) -> None:
    """The eleventh wrong password is one too many, and so is the right one then; others go on."""
    wrong = ["Basic " + base64.b64encode(f"alice:{number}".encode()).decode() for number in range(11)]
    assert get(ruled, "/simple/acme-core/", ALICE).status_code == 200
    statuses = [get(ruled, "/simple/acme-core/", header).status_code for header in wrong]
    assert statuses == [401] * 10 + [429]
    answer = get(ruled, "/simple/acme-core/", ALICE)
    assert answer.status_code == 429
    assert 290 <= int(answer.headers["retry-after"]) <= 300
    bob = "Basic " + base64.b64encode(b"bob:x").decode()
    assert get(ruled, "/simple/acme-core/", bob).status_code == 401
    assert get(ruled, "/simple/tools/", ALICE).status_code == 200


def test_a_right_password_forgives(ruled: TestClient) -> None:
    """Ten slips, the right one, and ten slips more: nobody has to wait."""
    for _ in range(2):
        for number in range(10):
            wrong = "Basic " + base64.b64encode(f"alice:{number}".encode()).decode()
            assert get(ruled, "/simple/acme-core/", wrong).status_code == 401
        right = "Basic " + base64.b64encode(b"alice:wonder").decode()
        assert get(ruled, "/simple/acme-core/", right).status_code == 200


def test_a_token_up_to_a_version(open_index: OpenIndex, packages: Path) -> None:
    """Its owner sees and gets no later release, wherever it is told of, and uploads none."""
    for version in ("1.0", "2.0", "2.0+local", "2.0.post1", "3.0"):
        build_wheel("acme-core", version).write(packages)
    build_wheel("acme-late", "9.0").write(packages)
    client = open_index(authenticate=frozenset(Action))
    header = keep_token(packages, actions="list download update", until_version="2.0")
    everything = keep_token(packages, "all", actions="list download update")
    seen = ["1.0", "2.0", "2.0+local"]
    for _ in range(2):
        page = get(client, "/simple/acme-core/", everything, accept=JSON).json()
        assert page["versions"] == [*seen, "2.0.post1", "3.0"]
        page = get(client, "/simple/acme-core/", header, accept=JSON).json()
        assert page["versions"] == seen
        assert len(page["files"]) == 3
    assert "3.0" not in get(client, "/simple/acme-core/", header, accept="text/html").text
    assert list(get(client, "/pypi/acme-core/json", header).json()["releases"]) == seen
    assert get(client, "/pypi/acme-core/3.0/json", header).status_code == 404
    assert get(client, "/project/acme-core/3.0/", header).status_code == 404
    for path in ("/project/acme-core/", "/-/why/acme-core", "/-/search?q=acme", "/"):
        text = get(client, path, header).text
        assert "3.0" not in text.replace("13.0", ""), path
        assert "acme-late" not in text, path
    assert get(client, "/simple/acme-late/", header, accept=JSON).json()["files"] == []
    for version in (*seen, "2.0.post1", "3.0"):
        expected = 200 if version in seen else 403
        for suffix in ("", ".metadata"):
            path = f"/packages/acme_core-{version}-py3-none-any.whl{suffix}"
            assert get(client, path, header).status_code == expected, path
            assert get(client, path, everything).status_code == 200, path
    assert post(client, upload_form(build_wheel("acme-core", "4.0")), header).status_code == 403
    assert post(client, upload_form(build_wheel("acme-core", "1.5")), header).status_code == 200


@pytest.mark.parametrize("accept", (None, "*/*", JSON, "application/json", "text/html"))
@pytest.mark.parametrize(
    "path", (f"/simple/{ACME.filename[:4]}/", f"/packages/{ACME.filename}", "/simple/", "/pypi/acme/json")
)
def test_who_sends_no_credentials_is_told_so_in_its_form(ruled: TestClient, path: str, accept: str | None) -> None:
    """The short way that most clients take says what the long one says."""
    headers = {} if accept is None else {"accept": accept}
    short = get(ruled, path, **headers)
    long = get(ruled, path, "Basic ????", **headers)
    for answer in (short, long):
        assert answer.status_code == 401 or path == "/simple/"
        assert answer.headers["content-type"] == long.headers["content-type"]
    assert short.headers.keys() == long.headers.keys()


@pytest.mark.parametrize("who", ("token", "user"))
def test_an_upload_that_began_before(serve: Serve, packages: Path, passwords: Path, who: str) -> None:
    """What counts is who may upload when its last byte has come."""
    server = serve("-P", str(passwords), "--disable-fallback")
    header = ALICE if who == "user" else keep_token(packages)
    body = upload_form(ACME)
    url = httpx2.URL(server.url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\nauthorization: {header}\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:200])
        wait_until((packages / ".pypiserver-ng" / "scratch").is_dir, within=5)
        with httpx2.Client(headers={"authorization": header}, trust_env=False) as client:
            # So the head of the other was read, too.
            assert (
                client.post(f"{server.url}/", content=body, headers={"content-type": "text/plain"}).status_code == 400
            )
            if who == "user":
                passwords.with_suffix(".new").write_text("")
                passwords.with_suffix(".new").replace(passwords)
            else:
                catalog = Catalog(packages / ".pypiserver-ng")
                catalog.tokens.revoke("deploy", None)
                catalog.close()
            wait_until(lambda: client.post(f"{server.url}/", content=b"").status_code == 401, within=5)
        connection.sendall(body[200:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert ACME.filename not in stored(packages)
