"""Who guesses passwords has to wait, and nobody else: one address with one user, in all processes of a server."""

import os
import random
from collections.abc import Callable

import pytest

from pypiserver_ng.auth.throttle import MOST, WINDOW, Throttle
from pypiserver_ng.counters import Board
from pypiserver_ng.errors import TooMany

HERE = "192.0.2.1"


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(Board().failures, clock=clock)


def is_refused(call: Callable[[str | None, str], None], address: str | None, user: str) -> bool:
    try:
        call(address, user)
    except TooMany:
        return True
    return False


def fail(throttle: Throttle, times: int, address: str | None = HERE, user: str = "alice") -> list[bool]:
    """Which of the failures were too many."""
    return [is_refused(throttle.fail, address, user) for _ in range(times)]


def is_out(throttle: Throttle, address: str | None = HERE, user: str = "alice") -> bool:
    return is_refused(throttle.check, address, user)


def test_ten_failures_are_let_pass(throttle: Throttle) -> None:
    """The eleventh is too many, and from then on everything is."""
    assert fail(throttle, MOST) == [False] * MOST
    assert not is_out(throttle)
    assert throttle.is_calm()
    assert fail(throttle, 1) == [True]
    assert is_out(throttle)
    assert not throttle.is_calm()


def test_when_to_come_again(throttle: Throttle, clock: Clock) -> None:
    """After so many whole seconds as were said: then one more may fail, for each that has left the window."""
    for _ in range(MOST + 1):
        is_refused(throttle.fail, HERE, "alice")
        clock.now += 10.5
    with pytest.raises(TooMany, match="try again in 4 minutes") as refusal:
        throttle.check(HERE, "alice")
    assert refusal.value.retry_after == 185
    clock.now += 184
    with pytest.raises(TooMany, match="try again in a minute"):
        throttle.check(HERE, "alice")
    clock.now += 1
    assert not is_out(throttle)
    assert fail(throttle, 1) == [True]
    clock.now += 10.5
    assert not is_out(throttle)
    clock.now += WINDOW
    assert throttle.is_calm()
    assert fail(throttle, MOST) == [False] * MOST


def test_slow_failures_never_are_too_many(throttle: Throttle, clock: Clock) -> None:
    """Ten in each window."""
    for _ in range(100):
        assert fail(throttle, 1) == [False]
        clock.now += WINDOW / MOST


def test_a_success_clears_the_count(throttle: Throttle) -> None:
    for _ in range(5):
        assert fail(throttle, MOST) == [False] * MOST
        throttle.forget(HERE, "alice")
    throttle.forget(HERE, "nobody")


@pytest.mark.parametrize(
    ("address", "user"),
    (
        ("192.0.2.2", "alice"),
        (HERE, "bob"),
        (HERE, "Alice"),
        (HERE, ""),
        (None, "alice"),
        ("", "alice"),
        ("2001:db8::1", "alice"),
        (HERE, "alice\0"),
    ),
)
def test_others_are_not_locked_out(throttle: Throttle, address: str | None, user: str) -> None:
    """Neither the user from elsewhere, nor the address for another user."""
    assert fail(throttle, MOST + 5)[-1]
    assert not is_out(throttle, address, user)
    assert fail(throttle, MOST, address, user) == [False] * MOST


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    (
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:DB8:0:1::0002", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("no address", "no address", True),
        (None, "", True),
    ),
)
def test_what_is_one_address(throttle: Throttle, one: str | None, other: str | None, is_same: bool) -> None:
    """Of IPv6 the /64."""
    fail(throttle, MOST + 1, one)
    assert is_out(throttle, one)
    assert is_out(throttle, other) is is_same


@pytest.mark.parametrize("user", ("é" * 5000, "\ud800", "a\nb"))
def test_odd_users(throttle: Throttle, user: str) -> None:
    """Whatever somebody sends is counted."""
    assert fail(throttle, MOST + 1, user=user)[-1]


def test_many_users_and_many_addresses(throttle: Throttle) -> None:
    """A flood from one address, and one for a user, lock nobody out and forget no lock."""
    fail(throttle, MOST + 1, "198.51.100.1", "guessed")
    for number in range(20_000):
        assert not is_refused(throttle.fail, HERE, f"user{number}")
        assert not is_refused(throttle.fail, f"10.0.{number % 256}.{number // 256}", "alice")
    assert not is_out(throttle)
    assert not is_out(throttle, HERE, "user1")
    assert is_out(throttle, "198.51.100.1", "guessed")


def test_a_full_table_makes_room(clock: Clock) -> None:
    """Where every slot is locked out, the oldest goes; none of the others has to pay for it."""
    throttle = Throttle(Board().failures[: 3 + 8 * 12], clock=clock)
    for number in range(20):
        assert fail(throttle, MOST + 1, user=str(number)) == [False] * MOST + [True]
        clock.now += 1
    assert [is_out(throttle, user=str(number)) for number in range(20)] == [False] * 12 + [True] * 8


def test_all_processes_count_together() -> None:
    """And with the same key."""
    board = Board(2)
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            fail(Throttle(board.failures), 4)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert is_out(Throttle(board.failures))


def test_where_a_pair_lies_is_secret() -> None:
    """Nobody can choose whom to collide with: the same count under another key is nobody's."""
    board, other = Board(), Board()
    fail(Throttle(board.failures), MOST + 1)
    other.failures[2:] = board.failures[2:]
    assert other.failures[:2] != board.failures[:2]
    assert not is_out(Throttle(other.failures))


def test_spoilt_memory_is_survived(clock: Clock) -> None:
    """Whatever another process left in the middle of a change."""
    board = Board()
    throttle = Throttle(board.failures, clock=clock)
    chance = random.Random(1)
    for cell in range(2, len(board.failures)):
        board.failures[cell] = chance.getrandbits(64)
    for number in range(100):
        fail(throttle, 3, user=str(number))
        is_out(throttle, user=str(number))
        throttle.forget(HERE, str(number))
