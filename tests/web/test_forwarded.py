"""Who is believed when it says where this server is: the trusted proxy, and nobody else."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from pypiserver_ng.app import create_app
from pypiserver_ng.web.forwarded import Forwarded
from tests.tools.distributions import make_wheel
from tests.web.conftest import make_config
from tests.web.forms import Wire, header

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
        ([("x-forwarded-port", "8443")], f"{HERE}:8443"),
        ([("x-forwarded-port", "80")], HERE),
        ([("x-forwarded-port", "443"), ("x-forwarded-proto", "https")], "https://index.test"),
        ([("x-forwarded-port", "80"), ("x-forwarded-proto", "https")], "https://index.test:80"),
        # Who names a port in the host knows it better.
        ([("x-forwarded-host", "a.example:81"), ("x-forwarded-port", "8443")], "http://a.example:81"),
        ([("x-forwarded-host", "[fd00::1]"), ("x-forwarded-port", "8443")], "http://[fd00::1]:8443"),
        ([("forwarded", "host=a.example;proto=https")], "https://a.example"),
        ([("forwarded", 'for=192.0.2.1;by=10.0.0.5;Host="a.example:8443";PROTO=HTTPS')], "https://a.example:8443"),
        ([("forwarded", 'host="a\\.example"')], "http://a.example"),
        ([("forwarded", "host=evil.example, host=a.example ")], "http://a.example"),
        ([("forwarded", "host=evil.example"), ("forwarded", "host=a.example")], "http://a.example"),
        # A quotation mark that a client opened does not swallow what the proxy appends.
        ([("forwarded", 'host=evil.example;x=", host=a.example')], "http://a.example"),
        ([("forwarded", 'host=evil.example;x=", for="[fd00::1]";host="a.example"')], "http://a.example"),
        # A proxy that writes the one kind may let pass what its clients say in the other.
        ([("forwarded", "host=evil.example;proto=https"), ("x-forwarded-for", "192.0.2.1")], HERE),
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
        [("x-forwarded-port", "0")],
        [("x-forwarded-port", "99999999")],
        [("x-forwarded-port", "80@evil.example")],
        [("forwarded", "evil.example")],
        [("forwarded", "host=")],
        [("forwarded", "host=evil.example/path")],
        [("forwarded", "host=evil.example;host=a.example")],
        [("forwarded", 'host="evil.example')],
        [("forwarded", "host = evil.example")],
        [("forwarded", "proto=javascript;for=unknown")],
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
    ("x-forwarded-port", "81"),
    ("x-forwarded-for", "127.0.0.1"),
    ("forwarded", "for=127.0.0.1;host=evil.example;proto=https"),
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


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    (
        ("x-forwarded-for", "192.0.2.1", "192.0.2.1"),
        ("x-forwarded-for", "127.0.0.1, 192.0.2.1", "192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1:4711", "192.0.2.1"),
        ("x-forwarded-for", "fd00::9", "fd00::9"),
        ("x-forwarded-for", "[fd00::9]:4711", "fd00::9"),
        ("x-forwarded-for", "fe80::1%eth0", PROXY),
        ("x-forwarded-for", "192.0.2.1 evil", PROXY),
        ("x-forwarded-for", "192.0.2.1, unknown", PROXY),
        ("forwarded", "for=192.0.2.1", "192.0.2.1"),
        ("forwarded", 'for="192.0.2.1:4711"', "192.0.2.1"),
        ("forwarded", 'For="[2001:db8::1]:4711";proto=http', "2001:db8::1"),
        ("forwarded", 'for=127.0.0.1, for="[2001:db8::1]"', "2001:db8::1"),
        ("forwarded", "for=127.0.0.1, for=_hidden", PROXY),
        ("forwarded", "for=127.0.0.1, for=unknown", PROXY),
        ("forwarded", "proto=https", PROXY),
    ),
)
def test_the_client_is_whom_the_proxy_names(name: str, value: str, expected: str) -> None:
    """For the log and for whoever counts: an address, and the proxy's own where it names none."""
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])
        await Response()(scope, _receive, send)

    TestClient(Forwarded(app, TRUSTED), client=(PROXY, 1)).get("/", headers={name: value})
    assert seen == [expected]


HOSTS = (
    b"evil.example/path",
    b"user@evil.example",
    b"a, b",
    b"a b",
    b'a"><script>alert(1)</script>',
    b"a\\b",
    b"[::1",
    b"a:port",
    b"a:80:80",
    b"caf\xe9",
    b"a?b",
    b"a#b",
)


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_is_none_is_refused(wire: Wire, host: bytes) -> None:
    """Before the application sees it."""
    answer = wire.ask(b"GET /pypi/demo/json HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
    assert answer.status == 400
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("host", ("a'onclick=alert(1)", "a;b", "(a)", "%3Cscript%3E", "-evil", "a" * 300, ""))
@pytest.mark.parametrize("path", ("/", "/pypi/demo/json"))
def test_a_host_that_nobody_has_is_not_repeated(wire: Wire, path: str, host: str) -> None:
    """The grammar of URLs allows more than names and addresses: then links lead to where this server listens."""
    answer = wire.ask(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    assert answer.status == 200
    assert f"http://127.0.0.1:{wire.address[1]}/" in answer.body.decode()
    assert not host or host not in answer.body.decode()


def test_the_target_names_the_host(wire: Wire) -> None:
    """In absolute form, whatever the header says (RFC 9112, 3.2.2)."""
    answer = wire.ask(b"GET http://a.example:81/pypi/demo/json HTTP/1.1\r\nhost: b.example\r\n\r\n")
    assert json.loads(answer.body)["urls"][0]["url"].startswith("http://a.example:81/packages/")
