"""`/packages/`: bytes, metadata, validators, ages, and paths that lead nowhere."""

import hashlib
import os
import shutil
import zipfile
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, urljoin

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.model import Action
from tests.tools.distributions import build_sdist, build_wheel, make_sdist, make_wheel
from tests.tools.server import OPEN, Serve
from tests.web.conftest import ROOT, OpenIndex
from tests.web.forms import Wire

WHEEL = build_wheel("Demo.Pkg", "1.0", requires_python=">=3.8")
FILE = f"/packages/{WHEEL.filename}"
METADATA = f"{FILE}.metadata"
#: When the files of `stocked` were written.
MTIME = 1_700_000_000
LONG_AGE = "public, max-age=31536000, immutable"

#: Targets as they stand in the request line; none of them is a file that is offered.
NOWHERE = [
    "/packages/absent-1.0.tar.gz",
    "/packages/absent-1.0-py3-none-any.whl.metadata",
    "/packages/../demo-1.0-py3-none-any.whl",
    "/packages/../../../../etc/passwd",
    "/packages/..%2f..%2f..%2fetc/passwd",
    "/packages/%2e%2e/%2e%2e/etc/passwd",
    "/packages/%2e%2e%2fetc%2fpasswd",
    "/packages/..%5c..%5cetc%5cpasswd",
    "/packages/%252e%252e%252fetc%252fpasswd",
    "/packages/%c0%ae%c0%ae/etc/passwd",
    "/packages/%u002e%u002e/etc/passwd",
    "/packages//etc/passwd",
    "/packages/%2fetc%2fpasswd",
    "/packages/./demo-1.0-py3-none-any.whl",
    "/packages//demo-1.0-py3-none-any.whl",
    "/packages/sub/../demo-1.0-py3-none-any.whl",
    "/packages/demo-1.0-py3-none-any.whl/",
    "/packages/demo-1.0-py3-none-any.whl/..",
    "/packages/demo-1.0-py3-none-any.whl%00",
    "/packages/demo-1.0-py3-none-any.whl%00.metadata",
    "/packages/demo-1.0-py3-none-any.whl%0a",
    "/packages/demo-1.0-py3-none-any.whl%20",
    "/packages/demo-1.0-py3-none-any.whl.",
    "/packages/demo-1.0-py3-none-any.whl.metadata.metadata",
    "/packages/DEMO-1.0-py3-none-any.whl",
    "/packages/demo-1.0-py3-none-any.whl;x=1",
    "/packages/.pypiserver-ng/catalog.sqlite",
    "/packages/%2epypiserver-ng/catalog.sqlite",
    "/packages/.pypiserver-ng/",
    "/packages/.metadata",
    "/packages/" + "a" * 5000 + "-1.0.tar.gz",
    "/packages/" + "a/" * 2000 + "a-1.0.tar.gz",
    "/packages/%ff%fe-1.0.tar.gz",
    "/packages/..",
]


def metadata_of(content: bytes, tmp_path: Path) -> bytes:
    """The METADATA of a wheel, read without the program under test."""
    path = tmp_path / "wheel.zip"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name)


def test_whole_file(stocked: TestClient) -> None:
    """The bytes as they lie on the disk, never compressed, never something a browser shows."""
    answer = stocked.get(FILE, headers={"accept-encoding": "gzip", "accept": "text/html"})
    assert (200, WHEEL.content) == (answer.status_code, answer.content)
    assert {
        "content-type": "application/octet-stream",
        "content-length": str(len(WHEEL.content)),
        "etag": f'"{WHEEL.sha256}"',
        "last-modified": formatdate(MTIME, usegmt=True),
        "cache-control": LONG_AGE,
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "content-disposition": "attachment",
    } == dict(answer.headers)


@pytest.mark.parametrize(
    ("filename", "expected"),
    (
        ("demo-1.0.tar.gz", "application/gzip"),
        ("demo-1.0.zip", "application/zip"),
        ("demo-1.0.ZIP", "application/zip"),
        ("demo-1.0.tar.bz2", "application/octet-stream"),
        ("demo-1.0-py3.8.egg", "application/octet-stream"),
        ("demo-1.0.tar.gz.asc", "application/octet-stream"),
        ("demo-1.0.win32-py3.8.exe", "application/octet-stream"),
    ),
)
def test_types(open_index: OpenIndex, packages: Path, filename: str, expected: str) -> None:
    """No file gets a type that a browser would render, and none a content coding."""
    (packages / filename).write_bytes(b"<html><script>alert(1)</script>")
    os.utime(packages / filename, (MTIME, MTIME))
    answer = open_index().get(f"/packages/{filename}")
    assert (200, expected) == (answer.status_code, answer.headers["content-type"])
    assert "content-encoding" not in answer.headers


def test_file_in_a_subdirectory(stocked: TestClient) -> None:
    """The path below the package directory is the path of the URL; the filename alone is not."""
    filename = build_wheel("other", "2.0+local.1").filename
    assert stocked.get(f"/packages/sub/{quote(filename)}").status_code == 200
    assert stocked.get(f"/packages/sub/{filename}").status_code == 200
    assert stocked.get(f"/packages/{filename}").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    (
        ({"if-none-match": f'"{WHEEL.sha256}"'}, 304),
        ({"if-none-match": f'W/"{WHEEL.sha256}"'}, 304),
        ({"if-none-match": f'"x", "{WHEEL.sha256}"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"x"'}, 200),
        ({"if-none-match": WHEEL.sha256}, 200),
        ({"if-modified-since": formatdate(MTIME, usegmt=True)}, 304),
        ({"if-modified-since": formatdate(MTIME + 60, usegmt=True)}, 304),
        ({"if-modified-since": formatdate(MTIME - 1, usegmt=True)}, 200),
        ({"if-modified-since": "Tuesday, 14-Nov-23 22:13:20 GMT"}, 304),
        ({"if-modified-since": "Tue Nov 14 22:13:20 2023"}, 304),
        # An entity tag is the stronger word.
        ({"if-none-match": '"x"', "if-modified-since": formatdate(MTIME, usegmt=True)}, 200),
        ({"if-none-match": f'"{WHEEL.sha256}"', "if-modified-since": formatdate(0, usegmt=True)}, 304),
        # Nonsense counts as absent.
        ({"if-modified-since": ""}, 200),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-modified-since": "Tue, 99 Nov 2023 99:99:99 GMT"}, 200),
        ({"if-modified-since": "Tue, 14 Nov 99999 22:13:20 GMT"}, 200),
        ({"if-modified-since": "Tue, 14 Nov 2023 22:13:20 +9999999999"}, 200),
        ({"if-modified-since": "-1"}, 200),
        ({"if-modified-since": ";"}, 200),
        ({"if-modified-since": "1" * 5000}, 200),
    ),
)
@pytest.mark.parametrize("method", ("GET", "HEAD"))
def test_conditions(stocked: TestClient, method: str, headers: dict[str, str], status: int) -> None:
    """What the client has already is not sent again."""
    answer = stocked.request(method, FILE, headers=headers)
    assert status == answer.status_code
    assert f'"{WHEEL.sha256}"' == answer.headers["etag"]
    assert answer.headers["cache-control"] == LONG_AGE
    assert (status == 200 and method == "GET") is bool(answer.content)


def test_metadata(stocked: TestClient, tmp_path: Path) -> None:
    """The wheel's METADATA byte for byte, with the hash that the project's page states."""
    answer = stocked.get(METADATA)
    page = stocked.get("/simple/demo-pkg/", headers={"accept": "application/vnd.pypi.simple.v1+json"}).json()
    sha256 = hashlib.sha256(answer.content).hexdigest()
    assert (200, metadata_of(WHEEL.content, tmp_path)) == (answer.status_code, answer.content)
    assert {"sha256": sha256} == page["files"][0]["core-metadata"]
    assert f'"{sha256}"' == answer.headers["etag"]
    assert answer.headers["cache-control"] == LONG_AGE
    for tags in (f'"{sha256}"', f'W/"{sha256}"', "*"):
        again = stocked.get(METADATA, headers={"if-none-match": tags})
        assert (304, b"", f'"{sha256}"') == (again.status_code, again.content, again.headers["etag"])
    assert stocked.get(METADATA, headers={"if-none-match": f'"{WHEEL.sha256}"'}).status_code == 200


def test_metadata_of_hostile_bytes(open_index: OpenIndex, packages: Path, tmp_path: Path) -> None:
    """Line ends and bytes outside ASCII come out as they went in."""
    wheel = build_wheel("demo", "1.0", description="caf\u00e9\r\nline\rend\n\n\x0cpage")
    wheel.write(packages)
    answer = open_index().get(f"/packages/{wheel.filename}.metadata")
    assert metadata_of(wheel.content, tmp_path) == answer.content


def test_metadata_of_what_has_none(open_index: OpenIndex, packages: Path) -> None:
    """An sdist, a broken wheel and a signature have no metadata of their own, and their pages promise none."""
    make_sdist(packages, "demo", "1.0")
    (packages / "demo-2.0-py3-none-any.whl").write_bytes(b"PK\x03\x04 not a wheel")
    (packages / "demo-1.0.tar.gz.asc").write_text("signature")
    for path in packages.iterdir():
        os.utime(path, (MTIME, MTIME))
    client = open_index()
    for filename in ("demo-1.0.tar.gz", "demo-2.0-py3-none-any.whl", "demo-1.0.tar.gz.asc"):
        assert client.get(f"/packages/{filename}").status_code == 200
        assert client.get(f"/packages/{filename}.metadata").status_code == 404
    page = client.get("/simple/demo/", headers={"accept": "application/vnd.pypi.simple.v1+json"}).json()
    assert [entry["core-metadata"] for entry in page["files"]] == [False, False]


def test_metadata_that_was_lost(open_index: OpenIndex, packages: Path) -> None:
    """The kept copies of metadata are a cache: without them, or with wrong ones, the archive answers."""
    wheel = build_wheel("demo", "1.0")
    wheel.write(packages)
    client = open_index()
    path = f"/packages/{wheel.filename}.metadata"
    expected = client.get(path).content
    kept = packages / ".pypiserver-ng" / "metadata"
    for copy in [copy for copy in kept.rglob("*") if copy.is_file()]:
        copy.write_bytes(b"damaged")
    assert expected == client.get(path).content
    shutil.rmtree(kept)
    assert expected == client.get(path).content


@pytest.mark.parametrize("target", NOWHERE)
def test_paths_that_lead_nowhere(wire: Wire, target: str) -> None:
    """A path is looked up among the files that are offered, never on the disk."""
    answer = wire.get(target)
    assert answer.status == 404
    assert len(answer.body.splitlines()) == 1
    assert b"root:" not in answer.body


def test_files_that_are_not_offered(open_index: OpenIndex, packages: Path, tmp_path: Path) -> None:
    """Notes, hidden files, and what lies behind a linked directory are no distributions of this index."""
    make_sdist(packages / ".hidden", "demo", "1.0")
    make_sdist(packages, "demo", "1.0").rename(packages / ".demo-1.0.tar.gz")
    (packages / "README.txt").write_text("notes")
    make_sdist(tmp_path / "outside", "secret", "1.0")
    (packages / "linked").symlink_to(tmp_path / "outside")
    client = open_index()
    for path in (".hidden/demo-1.0.tar.gz", ".demo-1.0.tar.gz", "README.txt", "linked/secret-1.0.tar.gz"):
        assert client.get(f"/packages/{path}").status_code == 404, path
    assert client.get("/simple/", headers={"accept": "application/vnd.pypi.simple.v1+json"}).json()["projects"] == []


@pytest.mark.parametrize("path", ("/packages", "/packages/"))
def test_directory(stocked: TestClient, path: str) -> None:
    """The directory itself is shown as the list of projects."""
    answer = stocked.get(path)
    assert (302, f"{ROOT}/simple/") == (answer.status_code, urljoin(ROOT + path, answer.headers["location"]))


def test_linked_file(open_index: OpenIndex, packages: Path, tmp_path: Path) -> None:
    """A link to a file is the file."""
    path = make_sdist(tmp_path / "outside", "demo", "1.0")
    (packages / path.name).symlink_to(path)
    assert path.read_bytes() == open_index().get(f"/packages/{path.name}").content


def test_percent_in_a_filename(serve: Serve, packages: Path) -> None:
    """A filename that looks encoded is found by its own encoding only."""
    content = make_sdist(packages, "demo", "1.0").rename(packages / "demo-1.0%2e1.tar.gz").read_bytes()
    wire = Wire(serve(*OPEN).url)
    assert content == wire.get("/packages/demo-1.0%252e1.tar.gz").body
    assert wire.get("/packages/demo-1.0%2e1.tar.gz").status == 404


@pytest.mark.parametrize(
    ("settings", "expected"),
    (
        ({}, LONG_AGE),
        ({"overwrite": True}, "public, no-cache"),
        ({"cache_control": 60}, "public, max-age=60"),
        ({"cache_control": 0, "overwrite": True}, "public, max-age=0"),
        ({"authenticate": frozenset({Action.LIST})}, LONG_AGE),
        ({"authenticate": frozenset({Action.DOWNLOAD})}, "private, max-age=31536000, immutable"),
        ({"authenticate": frozenset({Action.DOWNLOAD}), "overwrite": True}, "private, no-cache"),
        ({"authenticate": frozenset({Action.DOWNLOAD}), "cache_control": 60}, "private, max-age=60"),
    ),
)
def test_ages(
    open_index: OpenIndex, packages: Path, passwords: Path, settings: dict[str, object], expected: str
) -> None:
    """Files are kept for ever, unless they may be replaced; where they need credentials, not by shared caches."""
    wheel = build_wheel("demo", "1.0")
    wheel.write(packages)
    client = open_index(passwords=passwords, **settings)
    for path in (f"/packages/{wheel.filename}", f"/packages/{wheel.filename}.metadata"):
        answer = client.get(path, auth=("alice", "wonder"))
        assert (200, expected) == (answer.status_code, answer.headers["cache-control"])


@pytest.mark.parametrize("suffix", ("", ".metadata"))
def test_file_that_was_deleted_a_moment_ago(open_index: OpenIndex, packages: Path, suffix: str) -> None:
    """Nothing is offered that is not there: 404, and then the page does not list it any more."""
    path = make_wheel(packages, "demo", "1.0")
    client = open_index()
    assert client.get(f"/packages/{path.name}").status_code == 200
    path.unlink()
    assert client.get(f"/packages/{path.name}").status_code == 404
    assert client.get("/simple/demo/").status_code == 404


def test_file_that_was_replaced_a_moment_ago(open_index: OpenIndex, packages: Path) -> None:
    """The bytes, their ETag and their length always belong together."""
    path = make_wheel(packages, "demo", "1.0")
    client = open_index()
    old = client.get(f"/packages/{path.name}")
    other = build_wheel("demo", "1.0", extra_files={"demo/more.py": b"x = 1\n"})
    other.write(packages / "aside").replace(path)
    new = client.get(f"/packages/{path.name}", headers={"if-none-match": old.headers["etag"]})
    assert (200, other.content, f'"{other.sha256}"') == (new.status_code, new.content, new.headers["etag"])


@pytest.mark.parametrize("method", ("POST", "PUT", "DELETE", "OPTIONS"))
def test_reading_only(stocked: TestClient, method: str) -> None:
    """Files are read here; they come and go elsewhere."""
    answer = stocked.request(method, FILE)
    assert (405, {"GET", "HEAD"}) == (answer.status_code, set(answer.headers["allow"].split(", ")))


def test_same_file_in_two_directories(open_index: OpenIndex, tmp_path: Path) -> None:
    """The first package directory answers for a path that several have."""
    first, second = tmp_path / "first", tmp_path / "second"
    mine = make_sdist(first, "demo", "1.0")
    build_sdist("demo", "1.0", extra_files={"more": b"x"}).write(second)
    client = open_index(packages=(first, second), state_dir=tmp_path / "state")
    assert mine.read_bytes() == client.get("/packages/demo-1.0.tar.gz").content
