"""The upload form: what is stored, what names are taken, the other actions, limits and rights."""

import base64
import hashlib
import random
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.model import Action
from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.uploads import upload_fields
from tests.web.conftest import OpenIndex
from tests.web.forms import (
    BOUNDARY,
    CONTENT_TYPE,
    assert_refused,
    encode,
    make_attestations,
    part,
    scratch,
    send,
    stored,
    upload_form,
)

WHEEL = build_wheel("Demo.Pkg", "1.0")
SDIST = build_sdist("Demo.Pkg", "1.0")
#: What uv sends; every other tool sends `*/*`.
UV = "application/json;q=0.9, text/plain;q=0.8, text/html;q=0.7"
CONTENT = part("content", WHEEL.content, WHEEL.filename)


@pytest.mark.parametrize("path", ("/", "/legacy/", "/legacy"))
@pytest.mark.parametrize("distribution", (WHEEL, SDIST, build_sdist("demo", "1.0+acme.1", suffix=".zip")))
def test_stored(client: TestClient, packages: Path, path: str, distribution: Distribution) -> None:
    """A right upload is in the directory under its name, with exactly its bytes, and is served at once."""
    answer = send(client, upload_form(distribution), path)
    assert (answer.status_code, answer.text) == (200, "")
    assert {distribution.filename: distribution.content} == stored(packages)
    assert scratch(packages) == []
    assert distribution.content == client.get(f"/packages/{distribution.filename}").content


def test_permissions(client: TestClient, packages: Path) -> None:
    """A stored file can be read by those who may read other files that the server creates."""
    send(client, upload_form(WHEEL))
    (packages / "probe").touch()
    assert (packages / "probe").stat().st_mode == (packages / WHEEL.filename).stat().st_mode


def test_same_file_twice(client: TestClient, packages: Path) -> None:
    """A client that repeats itself, or comes after another one, is told that all is well."""
    for _ in range(3):
        assert send(client, upload_form(WHEEL)).status_code == 200
    assert [WHEEL.filename] == list(stored(packages))
    assert scratch(packages) == []


def test_order_of_fields(open_index: OpenIndex, packages: Path) -> None:
    """Fields may come in any order, also after the file (uv sends its attestations last)."""
    parts = [part(*field) for field in upload_fields(WHEEL).items()] + [
        CONTENT,
        part("attestations", make_attestations()),
    ]
    for seed in range(8):
        random.Random(seed).shuffle(parts)
        assert send(open_index(), encode(parts)).status_code == 200
        (packages / WHEEL.filename).unlink()


@pytest.mark.parametrize(
    "changes",
    (
        {"name": "Demo.Pkg"},
        {"name": "DEMO__pkg"},
        {"version": "1"},
        {"version": "v1.0.0"},
        {"name": None, "version": None, "filetype": None, "sha256_digest": None, "blake2_256_digest": None},
        {"protocol_version": None},
        {"protocol_version": ""},
        {"name": "UNKNOWN", "version": "", "md5_digest": "", "sha256_digest": "  "},
        {"sha256_digest": WHEEL.sha256.upper()},
        {"sha256_digest": f" {WHEEL.sha256}\r\n"},
        {"md5_digest": hashlib.md5(WHEEL.content).hexdigest().upper()},
        {"metadata_version": "1.0", "pyversion": "py3", "summary": "UNKNOWN", "requires_python": ""},
        {"gpg_signature": "signature", "comment": "x" * 100_000},
        {"description": "\u2603" * 1_000_000},
        {"description": f"\r\n--{BOUNDARY}x\r\n--{BOUNDARY[:-1]}\r\n"},
    ),
)
def test_fields_that_do_no_harm(client: TestClient, packages: Path, changes: dict[str, str | None]) -> None:
    """Other spellings of the same facts, absent ones, and everything that the index does not ask about."""
    answer = send(client, upload_form(WHEEL, **changes))
    assert answer.status_code == 200, answer.text
    assert {WHEEL.filename: WHEEL.content} == stored(packages)


@pytest.mark.parametrize(
    "garbage",
    ("not json", "{}", "[]", "[1]", "[{}]", "[[[", "null", "[" * 5_000, make_attestations(version=2), "1" * 70_000),
)
@pytest.mark.usefixtures("unchanged")
def test_garbage_for_attestations(client: TestClient, garbage: str) -> None:
    """Refused on every server, as nobody could ever verify it."""
    assert_refused(send(client, upload_form(WHEEL, attestations=garbage)), 400, "attestations")


def test_attestations_nobody_is_trusted_for(client: TestClient) -> None:
    """Taken, and not shown."""
    assert send(client, upload_form(WHEEL, attestations=make_attestations())).status_code == 200
    assert "provenance" not in client.get("/simple/demo-pkg/").text
    assert client.get(f"/integrity/demo-pkg/1.0/{WHEEL.filename}/provenance").status_code == 404


def test_many_fields(client: TestClient) -> None:
    """Thousands of classifiers and a description of several MB are usual."""
    many = [part("classifiers", f"Topic :: Number {number}") for number in range(5_000)]
    parts = [part(*field) for field in upload_fields(WHEEL).items()]
    body = encode([*parts, *many, part("description", "text " * 800_000), CONTENT])
    assert send(client, body).status_code == 200


def test_signature_is_dropped(client: TestClient, packages: Path) -> None:
    """A signature that comes along is taken and not kept."""
    parts = [part(*field) for field in upload_fields(WHEEL).items()]
    body = encode([*parts, CONTENT, part("gpg_signature", b"\x89\x01 signature", f"{WHEEL.filename}.asc")])
    assert send(client, body).status_code == 200
    assert [WHEEL.filename] == list(stored(packages))


def test_local_path_as_filename(client: TestClient, packages: Path) -> None:
    """A filename that some old client sends with its drive is read by its last part."""
    parts = [part(*field) for field in upload_fields(WHEEL).items()]
    body = encode([*parts, part("content", WHEEL.content, f"C:\\dist\\{WHEEL.filename}")])
    assert send(client, body).status_code == 200
    assert [WHEEL.filename] == list(stored(packages))


# Names that are taken


@pytest.mark.parametrize("other", (build_wheel("Demo.Pkg", "1.0", requires=["x"]), Distribution(WHEEL.filename, b"")))
def test_other_bytes(client: TestClient, packages: Path, other: Distribution) -> None:
    """What is behind a name never changes; clients recognise the refusal by its first words."""
    send(client, upload_form(WHEEL))
    answer = send(client, upload_form(other))
    assert_refused(answer, 409, "--overwrite")
    assert answer.text.startswith("File already exists")
    assert {WHEEL.filename: WHEEL.content} == stored(packages)
    assert scratch(packages) == []


def test_name_in_use_elsewhere(open_index: OpenIndex, packages: Path) -> None:
    """A file of that name in a subdirectory is the same file of the project."""
    WHEEL.write(packages / "sub")
    client = open_index()
    other = build_wheel("Demo.Pkg", "1.0", requires=["x"])
    assert_refused(send(client, upload_form(other)), 409, "File already exists")
    assert send(client, upload_form(WHEEL)).status_code == 200
    assert list(stored(packages)) == ["sub"]


def test_overwrite(open_index: OpenIndex, packages: Path) -> None:
    """With --overwrite the newer bytes win, also in the next answers."""
    client = open_index(overwrite=True)
    for distribution in (WHEEL, build_wheel("Demo.Pkg", "1.0", requires=["x"])):
        assert send(client, upload_form(distribution)).status_code == 200
        assert distribution.content == client.get(f"/packages/{WHEEL.filename}").content
        assert distribution.sha256 in client.get("/simple/demo-pkg/").text
    assert scratch(packages) == []


# Answers for programs


@pytest.mark.parametrize("accept", (UV, "application/json", "application/json, text/plain;q=0.1"))
def test_refusal_as_json(client: TestClient, accept: str) -> None:
    """Clients that ask for JSON get the same line in it."""
    plain = send(client, upload_form(WHEEL, sha256_digest="0" * 64))
    answer = send(client, upload_form(WHEEL, sha256_digest="0" * 64), accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    line = plain.text.strip()
    assert {"code": line, "title": "400 Bad Request", "message": line} == answer.json()


@pytest.mark.parametrize("accept", ("*/*", "text/plain", "text/html", "text/plain, application/json;q=0.5", "", ";;"))
def test_refusal_as_text(client: TestClient, accept: str) -> None:
    """Everyone else gets plain text."""
    assert_refused(send(client, upload_form(WHEEL, name="other"), accept=accept), 400, "the form says project")


def test_conflict_as_json(client: TestClient) -> None:
    """The code is what uv shows, so it is the line itself."""
    send(client, upload_form(WHEEL))
    answer = send(client, upload_form(build_wheel("Demo.Pkg", "1.0", requires=["x"])), accept=UV)
    assert (answer.status_code, answer.json()["title"]) == (409, "409 Conflict")
    assert answer.json()["code"].startswith("File already exists")


# Other actions


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("action", ("verify", "submit", "doc_upload"))
def test_harmless_actions(client: TestClient, action: str) -> None:
    """What older tools ask beside an upload succeeds and does nothing, with a file or without."""
    assert send(client, encode([part(":action", action)])).status_code == 200
    assert send(client, upload_form(WHEEL, action=action)).status_code == 200
    assert send(client, encode([part("content", b"PK", "docs.zip"), part(":action", action)])).status_code == 200


@pytest.mark.parametrize(("name", "version"), (("demo-pkg", "1.0"), ("Demo_Pkg", "1"), ("DEMO.pkg", "v1.0.0")))
@pytest.mark.parametrize("form", ("multipart", "urlencoded"))
def test_remove(client: TestClient, packages: Path, name: str, version: str, form: str) -> None:
    """A release is removed under any spelling of its name and version, with all of its files and no others."""
    later = build_wheel("Demo.Pkg", "1.0.1")
    for distribution in (WHEEL, SDIST, later):
        assert send(client, upload_form(distribution)).status_code == 200
    fields = {":action": "remove_pkg", "name": name, "version": version}
    if form == "urlencoded":
        answer = client.post("/", data=fields)
    else:
        answer = send(client, encode(part(*field) for field in fields.items()))
    assert (answer.status_code, answer.text) == (200, "")
    assert [later.filename] == list(stored(packages))
    assert client.get(f"/packages/{WHEEL.filename}").status_code == 404
    assert SDIST.filename not in client.get("/simple/demo-pkg/").text


def test_name_that_was_removed(client: TestClient, packages: Path) -> None:
    """The same bytes may come back under a removed name; others never do."""
    send(client, upload_form(WHEEL))
    send(client, encode([part(":action", "remove_pkg"), part("name", "demo-pkg"), part("version", "1.0")]))
    assert client.get("/simple/demo-pkg/").status_code == 404
    answer = send(client, upload_form(build_wheel("Demo.Pkg", "1.0", requires=["x"])))
    assert_refused(answer, 409, "was deleted here")
    assert answer.text.startswith("File already exists")
    assert stored(packages) == {}
    assert send(client, upload_form(WHEEL)).status_code == 200
    assert {WHEEL.filename: WHEEL.content} == stored(packages)
    assert WHEEL.content == client.get(f"/packages/{WHEEL.filename}").content


@pytest.mark.parametrize(
    ("name", "version", "status"),
    (
        ("demo-pkg", "2.0", 404),
        ("demo-pkg", "1.0.post1", 404),
        ("demo-pkg", "nonsense", 404),
        ("demo-pkg", "1\u2028\x1b[31m\0" * 1000, 404),
        ("demo-pkg", "9" * 5000, 404),
        ("absent", "1.0", 404),
        ("demo", "1.0", 404),
        ("", "1.0", 400),
        ("demo-pkg", "", 400),
        ("demo-pkg", "UNKNOWN", 400),
        ("../demo-pkg", "1.0", 400),
        ("demo pkg", "1.0", 400),
        ("\u212a", "1.0", 400),
    ),
)
def test_remove_what_is_not_here(client: TestClient, packages: Path, name: str, version: str, status: int) -> None:
    """Nothing is removed but what is named."""
    send(client, upload_form(WHEEL))
    body = encode([part(":action", "remove_pkg"), part("name", name), part("version", version)])
    assert_refused(send(client, body), status, "")
    assert [WHEEL.filename] == list(stored(packages))


# Limits, rights and origins


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("most", (0, 100, len(WHEEL.content) - 1))
def test_too_large(open_index: OpenIndex, most: int) -> None:
    """The limit counts the file's own bytes."""
    assert_refused(send(open_index(max_upload_size=most), upload_form(WHEEL)), 413, f"({most} bytes)")


def test_just_not_too_large(open_index: OpenIndex) -> None:
    """A file of exactly the limit is taken, however long its description is."""
    client = open_index(max_upload_size=len(WHEEL.content))
    assert send(client, upload_form(WHEEL, description="x" * 100_000)).status_code == 200


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "headers",
    (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "http://index.test.evil.example"},
        {"origin": "http://index.test:8080"},
        {"origin": "null"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site", "origin": "http://index.test"},
    ),
)
def test_form_of_another_site(client: TestClient, headers: dict[str, str]) -> None:
    """A browser's remembered credentials are not for pages of other sites."""
    answer = client.post("/", content=upload_form(WHEEL), headers={"content-type": CONTENT_TYPE} | headers)
    assert_refused(answer, 403, "another site")


@pytest.mark.parametrize(
    "headers",
    (
        {"sec-fetch-site": "same-origin", "origin": "http://index.test"},
        {"sec-fetch-site": "none"},
        {"origin": "https://index.test"},
    ),
)
def test_form_of_this_site(client: TestClient, headers: dict[str, str]) -> None:
    """A form of this site is as good as a tool."""
    answer = client.post("/", content=upload_form(WHEEL), headers={"content-type": CONTENT_TYPE} | headers)
    assert answer.status_code == 200


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "credentials", ("", "alice:wrong", "bob:wonder", ":", "alice:", "alice", "alice:wonder\n", "\0:\0")
)
def test_credentials(open_index: OpenIndex, passwords: Path, credentials: str) -> None:
    """Without right credentials nothing is stored, and a browser knows what to ask for."""
    client = open_index(passwords=passwords, authenticate=frozenset({Action.UPDATE}))
    given = {"authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"} if credentials else {}
    answer = client.post("/", content=upload_form(WHEEL), headers={"content-type": CONTENT_TYPE} | given)
    assert_refused(answer, 401, "")
    assert answer.headers["www-authenticate"] == 'Basic realm="pypi"'


def test_methods_of_the_root(client: TestClient) -> None:
    """The root is read by people and posted to by tools."""
    answer = client.put("/", content=b"")
    assert (405, {"GET", "HEAD", "POST"}) == (answer.status_code, set(answer.headers["allow"].split(", ")))


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("path", ("/simple/", "/simple/demo-pkg/", "/packages/demo_pkg-1.0-py3-none-any.whl"))
def test_upload_to_the_wrong_place(client: TestClient, path: str) -> None:
    """Uv asks whether the simple URL was meant as upload URL when it sees 405."""
    answer = send(client, upload_form(WHEEL), path)
    assert (405, {"GET", "HEAD"}) == (answer.status_code, set(answer.headers["allow"].split(", ")))


def test_directory_that_vanished(open_index: OpenIndex, packages: Path, tmp_path: Path) -> None:
    """Where nothing can be written just now the client is asked to come back, and nothing is left in scratch."""
    client = open_index(state_dir=tmp_path / "state")
    packages.rmdir()
    answer = send(client, upload_form(WHEEL))
    assert_refused(answer, 503, "nothing was stored")
    assert answer.headers["retry-after"].isdigit()
    assert list((tmp_path / "state" / "scratch").iterdir()) == []


def test_wheel_that_stores_its_members(client: TestClient, tmp_path: Path, packages: Path) -> None:
    """A wheel without compression is a wheel."""
    source, packed = tmp_path / "source.zip", tmp_path / "packed.zip"
    source.write_bytes(WHEEL.content)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    distribution = Distribution(WHEEL.filename, packed.read_bytes())
    assert send(client, upload_form(distribution)).status_code == 200
    assert {WHEEL.filename: distribution.content} == stored(packages)
