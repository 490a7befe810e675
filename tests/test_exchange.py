"""Who is refused too many tokens has to wait, and nobody else."""

import pytest

from pypiserver_ng.auth import exchange
from pypiserver_ng.auth.exchange import MOST_REFUSALS, WINDOW, Exchange, Minted, Refused, Verified
from pypiserver_ng.errors import TooMany
from pypiserver_ng.model import Publisher


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def believe_nobody(_text: str) -> Verified:
    raise Refused("invalid-token", "no")


async def mint_nothing(_verified: Verified, _address: str | None) -> Minted:
    raise AssertionError


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def strict(clock: Clock) -> Exchange:
    """It believes nobody."""
    publishers = (Publisher("https://issuer.example", "here", (("sub", "acme"),), ("acme",)),)

    async def spend(_key: str, _more: object) -> bool:
        raise AssertionError

    return Exchange(publishers, believe_nobody, spend, mint_nothing, spend, clock=clock)


def fail(strict: Exchange, address: str | None, times: int = MOST_REFUSALS) -> None:
    for _ in range(times):
        with pytest.raises(Refused), strict.counting(address):
            raise Refused("invalid-token", "no")


def is_locked_out(strict: Exchange, address: str | None) -> bool:
    try:
        with strict.counting(address):
            return False
    except TooMany:
        return True


@pytest.mark.parametrize("address", ("192.0.2.1", "2001:db8::1", "testclient", None))
def test_refusals_are_counted(strict: Exchange, clock: Clock, address: str | None) -> None:
    """As many as are allowed, in as many seconds as they count."""
    fail(strict, address, MOST_REFUSALS - 1)
    assert not is_locked_out(strict, address)
    clock.now += 10
    fail(strict, address, 1)
    assert is_locked_out(strict, address)
    clock.now += WINDOW - 11
    with pytest.raises(TooMany) as refused, strict.counting(address):
        pass
    assert refused.value.retry_after == 2
    clock.now += 1
    assert not is_locked_out(strict, address)
    fail(strict, address, MOST_REFUSALS - 2)
    assert not is_locked_out(strict, address)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    (
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ),
)
def test_whose_refusals_are_counted_together(strict: Exchange, one: str, other: str, together: bool) -> None:
    """Whoever has an IPv6 address has its whole /64."""
    fail(strict, one)
    assert is_locked_out(strict, other) is together


def test_other_failures_do_not_count(strict: Exchange) -> None:
    """Nobody can help it when an issuer is away."""
    for _ in range(MOST_REFUSALS + 1):
        with pytest.raises(OSError, match="away"), strict.counting("192.0.2.1"):
            raise OSError("away")
    assert not is_locked_out(strict, "192.0.2.1")


def test_a_flood_of_addresses_takes_no_memory(strict: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was refused longest ago is forgotten first."""
    monkeypatch.setattr(exchange, "_MOST_ADDRESSES", 3)
    for number in range(4):
        fail(strict, f"192.0.2.{number}")
    assert [is_locked_out(strict, f"192.0.2.{number}") for number in range(4)] == [False, True, True, True]


def test_who_goes_on_being_refused_is_not_forgotten(strict: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last refusal counts, not the first."""
    monkeypatch.setattr(exchange, "_MOST_ADDRESSES", 3)
    for number in (0, 1, 2):
        fail(strict, f"192.0.2.{number}", MOST_REFUSALS - 1)
    for number in (0, 3):
        fail(strict, f"192.0.2.{number}", 1)
    assert [is_locked_out(strict, f"192.0.2.{number}") for number in range(4)] == [True, False, False, False]
