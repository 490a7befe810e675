"""What the tests of the web surfaces share: an index in this process, and a real one behind a socket."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.app import create_app
from pypiserver_ng.config import Config
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.environment import clean_environment
from tests.tools.server import OPEN, Server, running_server
from tests.web.forms import Wire, scratch, stored

#: The host that requests in this process name.
ROOT = "http://index.test"


class OpenIndex(Protocol):
    def __call__(self, **settings: Any) -> TestClient:
        """An index on the `packages` fixture; `settings` are fields of Config. Open to everyone by default."""


def make_config(packages: Path, /, **settings: Any) -> Config:
    """A server that is open to everyone and has no fallback, unless `settings` say otherwise."""
    defaults: dict[str, Any] = {
        "packages": (packages,),
        "state_dir": packages / ".pypiserver-ng",
        "authenticate": frozenset(),
        "disable_fallback": True,
    }
    return Config(**(defaults | settings))


def make_client(config: Config) -> TestClient:
    """A client of the whole application in this process; redirects are for the test to see."""
    client = TestClient(create_app(config).asgi, base_url=ROOT, follow_redirects=False)
    # What is left out of a request is left out: the client adds nothing of its own.
    for name in ("accept", "accept-encoding", "user-agent"):
        del client.headers[name]
    return client


def read_all(client: TestClient, prefix: str = "") -> None:
    """Wait until every file has been read: until then searches and the home page do not know its project."""
    page = client.get(f"{prefix}/simple/", headers={"accept": "application/vnd.pypi.simple.v1+json"})
    for project in page.json()["projects"]:
        assert client.get(f"{prefix}/simple/{project['name']}/").status_code == 200


@pytest.fixture
def open_index(packages: Path) -> Iterator[OpenIndex]:
    """Starts indexes in this process and stops them after the test."""
    with ExitStack() as running:
        yield lambda **settings: running.enter_context(make_client(make_config(packages, **settings)))


@pytest.fixture
def client(open_index: OpenIndex) -> TestClient:
    """An index without files, open to everyone."""
    return open_index()


@pytest.fixture
def unchanged(packages: Path) -> Iterator[None]:
    """Whatever the test does, it leaves nothing behind."""
    yield
    assert stored(packages) == {}
    assert scratch(packages) == []


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An index that nobody changes: `demo-pkg` with two releases and an sdist, and `other`."""
    packages = tmp_path_factory.mktemp("stocked")
    for distribution in (
        build_wheel("Demo.Pkg", "1.0", requires_python=">=3.8"),
        build_wheel("Demo.Pkg", "1.10"),
        build_sdist("Demo.Pkg", "1.9"),
        build_wheel("other", "2.0+local.1", requires=["demo-pkg"]),
    ):
        path = distribution.write(packages / "sub" if distribution.filename.startswith("other") else packages)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    with make_client(make_config(packages)) as client:
        read_all(client)
        yield client


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server, open to everyone, whose packages directory is `live.packages`."""
    home = tmp_path_factory.mktemp("live")
    packages = home / "packages"
    build_wheel("demo", "1.0").write(packages)
    environment = clean_environment(home / "home")
    with running_server(*OPEN, "--disable-fallback", packages=packages, cwd=home, env=environment) as server:
        yield server


@pytest.fixture
def wire(live: Server) -> Iterator[Wire]:
    """Raw connections to the real server; afterwards it must still answer others."""
    wire = Wire(live.url)
    yield wire
    assert wire.ask(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").body == b"Ok"
