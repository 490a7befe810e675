"""The JSON API in the public index's shape, as pip-tools and other tools read it."""

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.model import Action, UpstreamSettings
from tests.tools.distributions import build_sdist, build_wheel, make_sdist, make_wheel
from tests.web.conftest import ROOT, OpenIndex
from tests.web.forms import header

SIMPLE = "application/vnd.pypi.simple.v1+json"
#: Paths at which one project is described.
PATHS = ("/pypi/demo-pkg/json", "/demo-pkg/json", "/pypi/Demo.Pkg/json", "/DEMO__pkg/json")


def read(client: TestClient, path: str) -> Any:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    return answer.json()


@pytest.mark.parametrize("path", PATHS)
def test_project(stocked: TestClient, path: str) -> None:
    """The newest version is described, and every version has its files."""
    answer = read(stocked, path)
    assert (answer["info"]["name"].lower().replace(".", "_"), answer["info"]["version"]) == ("demo_pkg", "1.10")
    assert list(answer["releases"]) == ["1.0", "1.9", "1.10"]
    assert answer["urls"] == answer["releases"]["1.10"]
    assert isinstance(answer["last_serial"], int)
    assert answer["vulnerabilities"] == []


def test_file(stocked: TestClient) -> None:
    """Everything that tools read of a file."""
    wheel = build_wheel("Demo.Pkg", "1.0", requires_python=">=3.8")
    metadata = stocked.get(f"/packages/{wheel.filename}.metadata").content
    assert read(stocked, PATHS[0])["releases"]["1.0"] == [
        {
            "filename": wheel.filename,
            "packagetype": "bdist_wheel",
            "python_version": "py3",
            "digests": {
                "md5": hashlib.md5(wheel.content).hexdigest(),
                "sha256": wheel.sha256,
                "blake2b_256": hashlib.blake2b(wheel.content, digest_size=32).hexdigest(),
            },
            "md5_digest": hashlib.md5(wheel.content).hexdigest(),
            "size": len(wheel.content),
            "upload_time": "2023-11-14T22:13:20",
            "upload_time_iso_8601": "2023-11-14T22:13:20.000000Z",
            "url": f"{ROOT}/packages/{wheel.filename}",
            "requires_python": ">=3.8",
            "yanked": False,
            "yanked_reason": None,
            "has_sig": False,
            "core-metadata": {"sha256": hashlib.sha256(metadata).hexdigest()},
            "comment_text": "",
            "downloads": -1,
        }
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"), (("1.0", "1.0"), ("1", "1.0"), ("v1.9.0", "1.9"), ("1.10", "1.10"), ("1.10.0", "1.10"))
)
def test_release(stocked: TestClient, wanted: str, expected: str) -> None:
    """One release under any spelling of its version, without the others."""
    answer = read(stocked, f"/pypi/demo-pkg/{wanted}/json")
    assert answer["info"]["version"] == expected
    assert "releases" not in answer
    assert len(answer["urls"]) == 1


@pytest.mark.parametrize(
    "path",
    (
        "/pypi/absent/json",
        "/absent/json",
        "/pypi/demo-pkg/2.0/json",
        "/pypi/demo-pkg/1.1/json",
        "/pypi/demo-pkg/nonsense/json",
        "/pypi/demo-pkg/%00/json",
        "/pypi/demo-pkg/%C3%A9%E2%80%A8/json",
        f"/pypi/demo-pkg/{'9' * 5000}/json",
        "/pypi/a%20b/json",
        "/pypi//json",
        "/pypi/demo-pkg/json/",
        "/pypi/demo-pkg/",
    ),
)
def test_what_is_not_here(stocked: TestClient, path: str) -> None:
    """One line of text says what is missing; an upstream is never asked."""
    answer = stocked.get(path)
    assert (answer.status_code, len(answer.text.splitlines())) == (404, 1)
    assert answer.text.strip().isprintable()


def test_versions_that_are_none(open_index: OpenIndex, packages: Path) -> None:
    """Versions that PEP 440 cannot read are found by their own text only."""
    (packages / "demo.zip").write_bytes(make_sdist(packages, "demo", "1.0", suffix=".zip").read_bytes())
    (packages / "demo-2x4.tar.gz").write_bytes(make_sdist(packages, "demo", "1.0").read_bytes())
    client = open_index()
    assert read(client, "/pypi/demo/json")["info"]["version"] == "1.0"
    assert read(client, "/pypi/demo/2x4/json")["urls"][0]["filename"] == "demo-2x4.tar.gz"
    for wanted in ("nonsense", "2x5", "latest"):
        assert client.get(f"/pypi/demo/{wanted}/json").status_code == 404


@pytest.mark.parametrize(
    ("versions", "expected"),
    (
        (["1.0", "2.0rc1"], "1.0"),
        (["1.0.dev1", "1.0rc1"], "1.0rc1"),
        (["1!0.5", "2025.1"], "1!0.5"),
        (["1.0", "1.0+acme.1", "1.0.post1"], "1.0.post1"),
    ),
)
def test_newest(open_index: OpenIndex, packages: Path, versions: list[str], expected: str) -> None:
    """The newest final version speaks for the project, or the newest at all where none is final."""
    for version in versions:
        make_wheel(packages, "demo", version)
    assert read(open_index(), "/pypi/demo/json")["info"]["version"] == expected


def test_metadata(open_index: OpenIndex, packages: Path) -> None:
    """A release is described by its own metadata, the wheel's before the sdist's."""
    make_sdist(packages, "demo", "1.0", requires_python=">=3.1")
    make_wheel(packages, "demo", "1.0", requires_python=">=3.9", requires=["other>1"], description="# Title\n\ntext")
    info = read(open_index(), "/pypi/demo/json")["info"]
    assert info["summary"] == "demo for tests"
    assert (info["requires_python"], info["requires_dist"]) == (">=3.9", ["other>1"])
    assert info["description"].startswith("# Title")
    assert info["description_content_type"] == "text/markdown"
    assert info["yanked"] is False
    assert info["project_url"] == f"{ROOT}/project/demo/"


def test_archive_that_cannot_be_opened(open_index: OpenIndex, packages: Path) -> None:
    """A broken file still has a name, a version and digests."""
    (packages / "demo-1.0-py3-none-any.whl").write_bytes(b"broken")
    os.utime(packages / "demo-1.0-py3-none-any.whl", (1, 1))
    answer = read(open_index(), "/pypi/demo/json")
    assert (answer["info"]["name"], answer["info"]["version"]) == ("demo", "1.0")
    assert answer["urls"][0]["digests"]["sha256"] == hashlib.sha256(b"broken").hexdigest()


@pytest.mark.parametrize("prefix", ("", "/team/index"))
@pytest.mark.parametrize("host", ("index.test", "other.test:8443", "[::1]:8080"))
def test_urls_are_those_of_the_simple_page(open_index: OpenIndex, packages: Path, prefix: str, host: str) -> None:
    """pip-tools looks for a file by the very URL that the simple page's link resolves to."""
    make_wheel(packages / "sub dir", "demo", "1.0+acme.1")
    client = open_index(server_base_url=prefix)
    page = f"{prefix}/simple/demo/"
    entries = client.get(page, headers={"host": host, "accept": SIMPLE}).json()["files"]
    urls = client.get(f"{prefix}/pypi/demo/json", headers={"host": host}).json()["urls"]
    assert [urljoin(f"http://{host}{page}", entry["url"]) for entry in entries] == [file["url"] for file in urls]


@pytest.mark.parametrize("host", ("", "evil.example/x", 'a"><b>', "a b", "user@evil.example", "a\xe9", "x" * 300))
def test_hosts_that_are_none(stocked: TestClient, host: str) -> None:
    """A Host that cannot be one is not repeated."""
    answer = stocked.get("/pypi/demo-pkg/json", headers=header("host", host))
    url = answer.json()["urls"][0]["url"]
    assert url.endswith("/packages/demo_pkg-1.10-py3-none-any.whl")
    assert not host or host not in url


def test_private(open_index: OpenIndex, packages: Path, passwords: Path) -> None:
    """It is a list, and needs the credentials of one, for projects that are not here as well."""
    make_wheel(packages, "demo", "1.0")
    client = open_index(passwords=passwords, authenticate=frozenset({Action.LIST}))
    for path in ("/pypi/demo/json", "/pypi/demo/1.0/json", "/demo/json", "/pypi/absent/json"):
        assert client.get(path).status_code == 401
    assert client.get("/pypi/demo/json", auth=("alice", "wonder")).status_code == 200


def test_public_fallback_is_not_asked(open_index: OpenIndex) -> None:
    """Only local projects are described here."""
    client = open_index(
        disable_fallback=False, upstreams=(UpstreamSettings("upstream", "https://mirror.example/simple/"),)
    )
    assert client.get("/pypi/absent/json").status_code == 404


def test_signature(open_index: OpenIndex, packages: Path) -> None:
    """A signature beside a file is told of the file."""
    sdist = build_sdist("demo", "1.0")
    sdist.write(packages)
    (packages / f"{sdist.filename}.asc").write_text("signature")
    (file,) = read(open_index(), "/pypi/demo/json")["urls"]
    assert (file["packagetype"], file["python_version"], file["has_sig"]) == ("sdist", "source", True)
