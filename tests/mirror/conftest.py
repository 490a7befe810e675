"""What the tests of the caching upstream share: upstreams that fail on command, and a mirror of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.tools.mirrored import Mirrored, running_mirrored
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, Server


class Mirror(Protocol):
    def __call__(self, *args: str, config: str = "", env: dict[str, str] | None = None) -> Server:
        """Start a mirror of `mirrored`, open to everyone; `config` is TOML, and may name other upstreams."""


@pytest.fixture
def mirrored() -> Iterator[Mirrored]:
    """An upstream; whatever the test does, nobody asks it for the list of all its projects."""
    with running_mirrored() as upstream:
        yield upstream
        assert "/simple/" not in upstream.paths


@pytest.fixture
def second() -> Iterator[Mirrored]:
    """Another upstream, or another host with files."""
    with running_mirrored() as upstream:
        yield upstream
        assert "/simple/" not in upstream.paths


@pytest.fixture
def mirror(serve: Serve, mirrored: Mirrored, tmp_path: Path) -> Mirror:
    def start(*args: str, config: str = "", env: dict[str, str] | None = None) -> Server:
        path = tmp_path / "config.toml"
        path.write_text(config)
        says_where = "--fallback-url" in args or "[[upstream]]" in config
        where = () if says_where else ("--fallback-url", mirrored.url)
        return serve(*OPEN, "--fallback-mode", "cache", "--config", str(path), *where, *args, env=env)

    return start


@pytest.fixture
def program(tmp_path: Path, environment: dict[str, str], packages: Path) -> Program:
    """Commands beside the server; without arguments they find its directory."""
    return Program(tmp_path, environment)
