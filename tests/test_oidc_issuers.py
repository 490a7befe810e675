"""An issuer's keys: fetched from where its discovery document says, kept for a while, and never hammered."""

import asyncio
import gzip
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pypiserver_ng.auth import issuers
from pypiserver_ng.auth.issuers import FRESH, LONGEST, PAUSE, PAUSE_AFTER_FAILURE, STALE, Issuer, Key, fetch_keys
from pypiserver_ng.errors import Unavailable
from tests.tools.issuer import FakeIssuer, make_jwk, make_key, running_issuer


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(issuer: FakeIssuer, clock: Clock) -> Issuer:
    return Issuer(issuer.url, fetch_keys, clock=clock)


def find(known: Issuer, number: str | None = "one", algorithm: str = "RS256") -> str | None:
    key = asyncio.run(known.find(number, algorithm))
    return None if key is None else key.id


def fetch(issuer: FakeIssuer) -> Sequence[Key]:
    return asyncio.run(fetch_keys(issuer.url))


def test_keys_are_asked_for_once(issuer: FakeIssuer, known: Issuer, clock: Clock) -> None:
    """Discovery document and keys, and then not again for a while."""
    assert find(known) == "one"
    clock.now += FRESH - 1
    assert find(known) == "one"
    assert issuer.requests == ["/.well-known/openid-configuration", "/keys"]


def test_those_who_wait_share_one_question(issuer: FakeIssuer, known: Issuer) -> None:
    """Many tokens at once are one crowd."""

    async def scenario() -> None:
        found = await asyncio.gather(*[known.find("one", "RS256") for _ in range(20)])
        assert all(key is not None for key in found)

    asyncio.run(scenario())
    assert len(issuer.requests) == 2


def test_a_new_key_is_found(issuer: FakeIssuer, known: Issuer, clock: Clock) -> None:
    """As soon as a token names it, and the one that it replaces does not work any more."""
    assert find(known) == "one"
    issuer.rotate("two")
    clock.now += PAUSE
    assert find(known, "two") == "two"
    assert find(known, "one") is None


def test_a_withdrawn_key_stops_working(issuer: FakeIssuer, known: Issuer, clock: Clock) -> None:
    """Also where nobody uses a new one."""
    assert find(known) == "one"
    issuer.rotate("two")
    clock.now += FRESH
    assert find(known, "one") is None


def test_unknown_keys_do_not_hammer_the_issuer(issuer: FakeIssuer, known: Issuer, clock: Clock) -> None:
    """One question in half a minute, whatever tokens name."""
    assert find(known) == "one"
    clock.now += PAUSE - 1
    for number in range(100):
        assert find(known, f"../../{number}") is None
    assert len(issuer.requests) == 2
    clock.now += 1
    for number in range(100):
        assert find(known, f"../../{number}") is None
    assert len(issuer.requests) == 4


def test_keys_outlive_their_issuer_for_a_while(issuer: FakeIssuer, known: Issuer, clock: Clock) -> None:
    """A failure is not a withdrawal; but neither does a key count for ever."""
    assert find(known) == "one"
    issuer.status = 500
    clock.now += STALE - 1
    assert find(known) == "one"
    assert find(known, "two") is None
    clock.now += PAUSE_AFTER_FAILURE
    with pytest.raises(Unavailable, match="answered 500") as refused:
        find(known)
    assert refused.value.retry_after == PAUSE_AFTER_FAILURE
    issuer.status = 200
    clock.now += PAUSE_AFTER_FAILURE
    assert find(known) == "one"


def test_an_issuer_that_is_down_is_left_alone_for_a_moment(issuer: FakeIssuer, known: Issuer, clock: Clock) -> None:
    """Before its keys were ever had."""
    issuer.status = 503
    for _ in range(10):
        with pytest.raises(Unavailable, match=f"the issuer {issuer.url} cannot be had now: it answered 503"):
            find(known)
    assert len(issuer.requests) == 1
    issuer.status = 200
    clock.now += PAUSE_AFTER_FAILURE
    assert find(known) == "one"


def test_nobody_listens() -> None:
    """One line, without a traceback."""
    with running_issuer() as gone:
        pass
    with pytest.raises(Unavailable, match="cannot be reached"):
        fetch(gone)


def test_an_issuer_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_server: str
) -> None:
    """It takes the connection, and says nothing."""
    monkeypatch.setattr(issuers, "SECONDS", 0.2)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
        asyncio.run(fetch_keys(unused_tcp_server))


@pytest.fixture
def unused_tcp_server() -> Iterator[str]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("change", "said"),
    (
        ({"discovery": {"issuer": "https://issuer.example", "jwks_uri": "https://issuer.example/keys"}}, "another"),
        ({"discovery": {"issuer": 1, "jwks_uri": 2}}, "specification"),
        ({"discovery": []}, "specification"),
        ({"discovery": b"<html>"}, "specification"),
        ({"discovery": b"\xff"}, "specification"),
        ({"discovery": b'{"issuer": "\xff"}'}, "specification"),
        ({"discovery": b"[" * 100_000}, "specification"),
        ({"discovery": b" " * (LONGEST + 1)}, "more than 1 MiB"),
        ({"published": {}}, "specification"),
        ({"published": {"keys": {}}}, "specification"),
        ({"published": {"keys": ["key"]}}, "specification"),
        ({"published": {"keys": [{}] * 101}}, "specification"),
        ({"published": b" " * (LONGEST + 1)}, "more than 1 MiB"),
        ({"status": 302}, "answered 302"),
        ({"status": 404}, "answered 404"),
    ),
)
def test_an_odd_answer_is_a_failure(issuer: FakeIssuer, change: dict[str, Any], said: str) -> None:
    """And nothing else: nothing of it is believed, and redirects are not followed."""
    for name, value in change.items():
        setattr(issuer, name, value)
    with pytest.raises(Unavailable, match=said):
        fetch(issuer)
    assert "/elsewhere" not in issuer.requests


@pytest.mark.parametrize(
    "url",
    ("http://issuer.example/keys", "file:///keys", "ftp://127.0.0.1/keys", "//127.0.0.1/keys", "/keys", "", "http://["),
)
def test_keys_come_by_https_or_from_this_machine(issuer: FakeIssuer, url: str) -> None:
    """Whatever the discovery document says."""
    issuer.discovery["jwks_uri"] = url
    with pytest.raises(Unavailable, match=r"by https|cannot be reached"):
        fetch(issuer)
    assert "/keys" not in issuer.requests


@pytest.mark.parametrize(
    ("issuer_url", "url", "may"),
    (
        ("https://issuer.example", "https://keys.example/set", True),
        ("https://issuer.example", "http://127.0.0.1/set", False),
        ("https://issuer.example", "http://keys.example/set", False),
        ("http://localhost:1", "http://[::1]:2/set", True),
        ("http://localhost:1", "http://localhost.example/set", False),
    ),
)
def test_what_an_issuer_may_lead_to(issuer_url: str, url: str, may: bool) -> None:
    """Keys of somebody in the network do not come from a server on this machine."""
    assert issuers._may_lead_to(issuer_url, url) is may


def test_a_slash_at_the_end_is_no_step(issuer: FakeIssuer) -> None:
    """Of an issuer below a path; its name keeps it."""
    issuer.discovery["issuer"] = f"{issuer.url}/tenant/"
    asyncio.run(fetch_keys(f"{issuer.url}/tenant/"))
    assert issuer.requests == ["/tenant/.well-known/openid-configuration", "/keys"]


def test_what_is_packed_was_not_asked_for(issuer: FakeIssuer) -> None:
    """It could become any length."""
    issuer.coding, issuer.discovery = "gzip", gzip.compress(json.dumps(issuer.discovery).encode())
    with pytest.raises(Unavailable, match="specification"):
        fetch(issuer)


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    (
        ({}, "https://issuer.example/keys", None),
        ({"HTTPS_PROXY": "http://proxy.example"}, "https://issuer.example/keys", "http://proxy.example"),
        ({"ALL_PROXY": "http://proxy.example"}, "https://issuer.example/keys", "http://proxy.example"),
        ({"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": ".example"}, "https://issuer.example/keys", None),
        ({"HTTP_PROXY": "http://proxy.example", "ALL_PROXY": "http://proxy.example"}, "http://127.0.0.1/keys", None),
    ),
)
def test_an_issuer_is_asked_by_way_of_a_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    """As the environment says; but never for what is on this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert issuers._choose_proxy(url) == proxy


def test_only_public_keys_for_signatures_are_taken(issuer: FakeIssuer) -> None:
    """A secret that both sides know, a key for encryption and a private one verify nothing."""
    sound = make_jwk(make_key("RSA"), "RS256", "sound")
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"}
    issuer.published = {
        "keys": [{**sound, "use": "enc", "kid": "enc"}, {**sound, "d": "AQAB", "kid": "private"}, secret, {}, sound]
    }
    found = fetch(issuer)
    usable = [key.id for key in found if any(key.fits(algorithm) for algorithm in issuers.ALGORITHMS)]
    assert usable == ["sound"]


def test_a_key_is_for_its_algorithm(issuer: FakeIssuer) -> None:
    """What it says of itself counts, and its kind."""
    rsa, curve = make_jwk(make_key("RSA"), "RS256", "rsa"), make_jwk(make_key("P-256"), "ES256", "ec")
    free_curve = {name: value for name, value in curve.items() if name != "alg"}
    free = {name: value for name, value in rsa.items() if name != "alg"}
    assert [name for name in sorted(issuers.ALGORITHMS) if Key("x", rsa).fits(name)] == ["RS256"]
    for jwk in (curve, free_curve):
        assert [name for name in sorted(issuers.ALGORITHMS) if Key("x", jwk).fits(name)] == ["ES256"]
    assert [name for name in sorted(issuers.ALGORITHMS) if Key("x", free).fits(name)] == [
        *("PS256", "PS384", "PS512"),
        *("RS256", "RS384", "RS512"),
    ]


def test_a_token_without_a_key_id_needs_no_choice(issuer: FakeIssuer, known: Issuer, clock: Clock) -> None:
    """OpenID Connect asks for an id where there are several keys."""
    issuer.keys["curve"] = ("ES256", make_key("P-256"))
    assert find(known, None) == "one"
    issuer.keys["other"] = ("RS256", make_key("RSA", 9))
    clock.now += PAUSE + FRESH
    assert find(known, None) is None
    assert find(known, "other") == "other"
