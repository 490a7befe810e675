"""Who is believed when it says where this server is: the trusted proxy, and nobody else."""

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.app import create_app
from tests.tools.distributions import make_wheel
from tests.web.conftest import make_config
from tests.web.forms import header

PROXY = "10.0.0.5"
TRUSTED = (ip_network("10.0.0.0/24"), ip_network("fd00::/8"))
HERE = "http://index.test"


class Ask(Protocol):
    def __call__(self, *headers: tuple[str, str], peer: str = PROXY, **settings: Any) -> str:
        """The root's URL as the answers tell it to a client that comes through `peer`."""


@pytest.fixture
def ask(packages: Path) -> Iterator[Ask]:
    make_wheel(packages, "demo", "1.0")
    with ExitStack() as running:

        def start(*headers: tuple[str, str], peer: str = PROXY, **settings: Any) -> str:
            config = make_config(packages, **({"trusted_proxy": TRUSTED} | settings))
            client = TestClient(create_app(config).asgi, base_url=HERE, client=(peer, 1234))
            running.enter_context(client)
            raw = [pair for name, value in headers for pair in header(name, value).items()]
            answer = client.get(f"{config.server_base_url}/pypi/demo/json", headers=raw)
            assert answer.status_code == 200
            url: str = answer.json()["urls"][0]["url"]
            return url.removesuffix("/packages/demo-1.0-py3-none-any.whl")

        yield start


@pytest.mark.parametrize(
    ("headers", "expected"),
    (
        ([], HERE),
        ([("x-forwarded-proto", "https")], "https://index.test"),
        ([("x-forwarded-host", "pypi.acme.example")], "http://pypi.acme.example"),
        ([("x-forwarded-host", "pypi.acme.example:8443")], "http://pypi.acme.example:8443"),
        ([("x-forwarded-prefix", "/team/index/")], f"{HERE}/team/index"),
        ([("x-forwarded-prefix", "/")], HERE),
        (
            [("x-forwarded-proto", "https"), ("x-forwarded-host", "a.example"), ("x-forwarded-prefix", "/p")],
            "https://a.example/p",
        ),
        # A proxy appends: what stands before its own word was sent by someone else.
        ([("x-forwarded-host", "evil.example, a.example")], "http://a.example"),
        ([("x-forwarded-host", "evil.example"), ("x-forwarded-host", "a.example")], "http://a.example"),
        ([("x-forwarded-proto", "https,http")], HERE),
    ),
)
def test_trusted_proxy(ask: Ask, headers: list[tuple[str, str]], expected: str) -> None:
    """The nearest proxy's word is taken."""
    assert ask(*headers) == expected


@pytest.mark.parametrize(
    "headers",
    (
        [("x-forwarded-proto", "javascript")],
        [("x-forwarded-proto", "")],
        [("x-forwarded-host", "")],
        [("x-forwarded-host", "evil.example/path")],
        [("x-forwarded-host", 'a"><script>')],
        [("x-forwarded-host", "user:secret@evil.example")],
        [("x-forwarded-host", "caf\xe9.example")],
        [("x-forwarded-prefix", "no-slash")],
        [("x-forwarded-prefix", "//evil.example")],
        [("x-forwarded-prefix", '/"><script>')],
        [("x-forwarded-for", "nonsense")],
        [("x-forwarded-for", "unknown, ::::")],
        [("forwarded", "host=evil.example;proto=https")],
        [("x-original-url", "/evil"), ("x-rewrite-url", "/evil"), ("x-script-name", "/evil")],
        [("x-http-method-override", "DELETE")],
    ),
)
def test_nonsense_from_the_proxy(ask: Ask, headers: list[tuple[str, str]]) -> None:
    """What cannot be a scheme, host, prefix or address is passed over, and so are headers of other habits."""
    assert ask(*headers) == HERE


SPOOFED = (
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-prefix", "/evil"),
    ("x-forwarded-for", "127.0.0.1"),
)


@pytest.mark.parametrize("peer", ("10.0.1.5", "127.0.0.1", "192.0.2.1", "::1", "testclient", ""))
def test_nobody_else_is_believed(ask: Ask, peer: str) -> None:
    """A client that calls itself a proxy is a client."""
    assert ask(*SPOOFED, peer=peer) == HERE


def test_without_trusted_proxies(ask: Ask) -> None:
    """By default no forwarded header is believed."""
    assert ask(*SPOOFED, trusted_proxy=()) == HERE


@pytest.mark.parametrize("peer", ("10.0.0.255", "::ffff:10.0.0.5", "fd12::1"))
def test_addresses_of_a_trusted_network(ask: Ask, peer: str) -> None:
    """Networks count, and IPv4 peers of a dual-stack socket are IPv4 peers."""
    assert ask(("x-forwarded-proto", "https"), peer=peer) == "https://index.test"


def test_prefixes_add_up(ask: Ask) -> None:
    """A prefix that a proxy cuts off stands before the server's own."""
    assert ask(("x-forwarded-prefix", "/outer"), server_base_url="/inner") == f"{HERE}/outer/inner"
