"""Who guesses a password is told to wait, by every worker; others are not."""

import base64
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from pypiserver_ng.auth.throttle import MOST, WINDOW
from pypiserver_ng.storage.trail import Trail
from tests.tools.distributions import build_wheel
from tests.tools.server import Serve, Server, wait_until

CLOSED = ("-a", "update,download,list", "--disable-fallback", "--trusted-proxy", "127.0.0.1")
WHEEL = build_wheel("demo", "1.0")


def ask(
    server: Server, password: str, *, user: str = "alice", address: str = "192.0.2.1", path: str = "/simple/demo/"
) -> httpx2.Response:
    """On a connection of its own, so that any worker may get it."""
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"authorization": f"Basic {credentials}", "x-forwarded-for": address}
    return httpx2.get(server.url + path, headers=headers, trust_env=False, timeout=60)


@pytest.fixture
def guarded(serve: Serve, packages: Path, passwords: Path) -> Server:
    WHEEL.write(packages)
    return serve("-P", str(passwords), "--workers", "2", *CLOSED)


def test_who_guesses_has_to_wait(guarded: Server, packages: Path) -> None:
    """Also with the right password, which a worker remembers, and for every path; others are answered as before."""
    for _ in range(20):
        assert ask(guarded, "wonder").status_code == 200
    assert [ask(guarded, f"guess{number}").status_code for number in range(MOST)] == [401] * MOST
    assert ask(guarded, "guess").status_code == 429
    for number in range(20):
        refused = ask(
            guarded, "wonder" if number % 2 else "guess", path=("/simple/", f"/packages/{WHEEL.filename}")[number % 2]
        )
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= WINDOW
        assert "Too many wrong passwords" in refused.text
    for _ in range(10):
        assert ask(guarded, "wonder", address="192.0.2.2").status_code == 200
        assert ask(guarded, "wrong", user="bob").status_code == 401
    assert httpx2.get(f"{guarded.url}/health").status_code == 200

    def is_noted() -> bool:
        with closing(Trail(packages / ".pypiserver-ng")) as trail:
            noted = [entry for entry in trail.read() if entry.reason and entry.reason.startswith("Too many")]
        return any((entry.action, entry.user, entry.address) == ("login", "alice", "192.0.2.1") for entry in noted)

    wait_until(is_noted, within=5)


def test_a_success_forgives(guarded: Server) -> None:
    """Whatever was mistyped before a password was verified."""
    for password, status in (("wrong", 401), ("wonder", 200), ("wrong", 401)):
        for _ in range(1 if status == 200 else MOST):
            assert ask(guarded, password).status_code == status
