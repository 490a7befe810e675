"""Wrong passwords and who waits for them: the authenticator and the count of failures together."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pypiserver_ng.auth import Authenticator, Htpasswd, PasswordFile, Throttle
from pypiserver_ng.auth.credentials import SHARE
from pypiserver_ng.auth.throttle import MOST
from pypiserver_ng.counters import Board
from pypiserver_ng.errors import TooMany, Unauthenticated, Unavailable
from tests.test_auth import ALICE, RIGHT, WRONG, basic, line

HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Authenticator]:
    path = tmp_path / "htpasswd"
    path.write_text(line("alice", "secret"))
    authenticator = Authenticator(PasswordFile(path, pause=lambda _: None), None, Throttle(Board().failures))
    yield authenticator
    authenticator.close()


async def guess(guarded: Authenticator, count: int, address: str = HERE) -> list[type[Exception]]:
    """How so many wrong passwords are answered, one after the other."""
    kinds: list[type[Exception]] = []
    for number in range(count):
        try:
            await guarded.identify(basic("alice", f"wrong {number}"), address)
        except (Unauthenticated, TooMany) as fault:
            kinds.append(type(fault))
    return kinds


def test_a_right_password_among_many_guesses(guarded: Authenticator) -> None:
    """It is too late when too many of those that were sent with it were wrong."""

    async def scenario() -> None:
        # Two are verified at a time: some more, so that it is surely the last.
        guesses = [guarded.identify(basic("alice", f"wrong {number}"), HERE) for number in range(MOST + 3)]
        answers = await asyncio.gather(*guesses, guarded.identify(RIGHT, HERE), return_exceptions=True)
        assert [type(answer) for answer in answers[:-1]].count(Unauthenticated) == MOST
        assert isinstance(answers[-1], TooMany)
        assert await guarded.identify(RIGHT, THERE) == ALICE

    asyncio.run(scenario())


def test_one_wrong_password_that_is_sent_often_at_once(guarded: Authenticator) -> None:
    """As a client does that asks for much at once: it guessed once."""

    async def scenario() -> None:
        answers = await asyncio.gather(*(guarded.identify(WRONG, HERE) for _ in range(50)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unauthenticated}
        assert await guess(guarded, MOST - 1) == [Unauthenticated] * (MOST - 1)
        assert await guarded.identify(RIGHT, HERE) == ALICE

    asyncio.run(scenario())


def test_who_was_verified_goes_on(guarded: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody else is locked out, without hashing again; where they are themselves, they wait."""
    verified: list[str] = []
    verify = Htpasswd.verify

    def count(self: Htpasswd, user: str, password: str) -> bool:
        verified.append(password)
        return verify(self, user, password)

    monkeypatch.setattr(Htpasswd, "verify", count)

    async def scenario() -> None:
        assert await guarded.identify(RIGHT, THERE) == ALICE
        still = guarded.remember(RIGHT)
        assert still()
        assert (await guess(guarded, MOST + 1))[-1] is TooMany
        # From memory alone it cannot be told any more: it counts from where they ask.
        assert guarded.peek(RIGHT) is None
        assert not still()
        assert await guarded.identify(RIGHT, THERE) == ALICE
        assert verified.count("secret") == 1
        with pytest.raises(TooMany):
            await guarded.identify(RIGHT, HERE)

    asyncio.run(scenario())


def test_tokens_do_not_wait(guarded: Authenticator) -> None:
    """Nobody guesses one, and a machine that has a stale one must not keep out the others behind its address."""

    async def scenario() -> None:
        for _ in range(2 * MOST):
            with pytest.raises(Unauthenticated):
                await guarded.identify(basic("__token__", "pypi-ng-x"), HERE)

    asyncio.run(scenario())


def test_one_network_leaves_room(guarded: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends many user names at once waits, and others do not."""
    goes_on = threading.Event()
    verify = Htpasswd.verify

    def wait(self: Htpasswd, user: str, password: str) -> bool:
        goes_on.wait(10)
        return verify(self, user, password)

    monkeypatch.setattr(Htpasswd, "verify", wait)

    async def scenario() -> None:
        guesses = [asyncio.create_task(guarded.identify(basic(f"user{n}", "x"), HERE)) for n in range(SHARE + 5)]
        await asyncio.sleep(0)
        right = asyncio.create_task(guarded.identify(RIGHT, THERE))
        await asyncio.sleep(0)
        goes_on.set()
        answers = await asyncio.gather(*guesses, return_exceptions=True)
        assert [type(answer) for answer in answers].count(Unavailable) == 5
        assert await right == ALICE
        # They may come again.
        assert await guarded.identify(RIGHT, HERE) == ALICE

    asyncio.run(scenario())
