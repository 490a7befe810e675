"""What tests ask for by name: a directory of files, a started server, a fake upstream, a real client."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.tools.clients import Client, ClientMissingError, find_command
from tests.tools.environment import clean_environment
from tests.tools.fake_upstream import FakeUpstream, running_upstream
from tests.tools.server import Serve, Server, running_server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of every started program, with a home of its own."""
    return clean_environment(tmp_path / "home")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """An empty package directory."""
    directory = tmp_path / "packages"
    directory.mkdir()
    return directory


@pytest.fixture
def serve(tmp_path: Path, packages: Path, environment: dict[str, str]) -> Iterator[Serve]:
    """Starts real servers and stops them after the test."""
    first = packages
    with ExitStack() as running:

        def start(*args: str, packages: Path | None = None, env: dict[str, str] | None = None) -> Server:
            variables = {**environment, **(env or {})}
            server = running_server(*args, packages=packages or first, cwd=tmp_path, env=variables)
            return running.enter_context(server)

        yield start


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """An empty upstream index that remembers what it was asked."""
    with running_upstream() as index:
        yield index


@pytest.fixture
def client(tmp_path: Path, environment: dict[str, str]) -> Callable[[str], Client]:
    """Finds a real client by name, or skips the test and names it."""

    def find(name: str) -> Client:
        command = find_command(name)
        if isinstance(command, ClientMissingError):
            pytest.skip(str(command))
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        return Client(command, work, environment)

    return find


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    """An htpasswd file with the user `alice`, whose password is `wonder`."""
    path = tmp_path / "htpasswd"
    digest = base64.b64encode(hashlib.sha1(b"wonder").digest()).decode()
    path.write_text(f"alice:{{SHA}}{digest}\n")
    return path
