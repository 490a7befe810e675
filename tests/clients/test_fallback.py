"""Projects that are not here reach real pip and uv through the redirect to another index."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.clients import Client, installed_version
from tests.tools.distributions import build_sdist, build_wheel, make_wheel
from tests.tools.fake_upstream import FakeUpstream
from tests.tools.server import Serve

pytestmark = pytest.mark.clients

#: Installs the requirements from the index into the directory.
Install = Callable[[str, Path, str], str]


@pytest.fixture(params=["pip", "pip-html", "uv"])
def install(request: pytest.FixtureRequest, client: Callable[[str], Client]) -> Install:
    tool = client(request.param)
    options = ("pip", "install", "--default-index") if request.param == "uv" else ("install", "--index-url")

    def run(index: str, target: Path, requirement: str) -> str:
        return tool.run(*options, index, "--target", target, requirement)

    return run


@pytest.mark.parametrize("written", ("public-lib", "Public.Lib"))
def test_a_public_project_arrives(
    install: Install, serve: Serve, upstream: FakeUpstream, tmp_path: Path, written: str
) -> None:
    """The other index is asked for the normalized name, once, and its file is installed."""
    upstream.add("public-lib", build_wheel("public-lib", "3.0"))
    server = serve("--fallback-url", upstream.url)
    install(server.simple, tmp_path / "site", written)
    assert installed_version(tmp_path / "site", "public_lib") == "3.0"
    assert upstream.paths[0] == "/simple/public-lib/"


def test_a_public_dependency_of_a_local_project_arrives(
    install: Install, serve: Serve, upstream: FakeUpstream, packages: Path, tmp_path: Path
) -> None:
    """Local and public projects are installed together from one URL, sdists too."""
    make_wheel(packages, "acme-app", "1.0", requires=["public-lib", "public-source"])
    upstream.add("public-lib", build_wheel("public-lib", "3.0"))
    upstream.add("public-source", build_sdist("public-source", "0.1"))
    server = serve("--fallback-url", upstream.url)
    install(server.simple, tmp_path / "site", "acme-app")
    found = [installed_version(tmp_path / "site", module) for module in ("acme_app", "public_lib", "public_source")]
    assert found == ["1.0", "3.0", "0.1"]
    assert not [path for path in upstream.paths if "acme" in path]


def test_the_bare_root_falls_back_too(install: Install, serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    """`--index-url http://host:port` without `/simple/` reaches the other index as well."""
    upstream.add("public-lib", build_wheel("public-lib", "3.0"))
    server = serve("--fallback-url", upstream.url)
    install(server.url, tmp_path / "site", "public-lib")
    assert installed_version(tmp_path / "site", "public_lib") == "3.0"


def test_our_credentials_stay_here(
    install: Install, serve: Serve, upstream: FakeUpstream, passwords: Path, tmp_path: Path
) -> None:
    """What a client sends to us is not sent on to the other index."""
    upstream.add("public-lib", build_wheel("public-lib", "3.0"))
    guarded = ("-P", str(passwords), "-a", "update,download,list")
    server = serve("--fallback-url", upstream.url, *guarded)
    install(server.with_credentials("alice", "wonder"), tmp_path / "site", "public-lib")
    assert upstream.requests
    assert not [request for request in upstream.requests if "authorization" in request.headers]
