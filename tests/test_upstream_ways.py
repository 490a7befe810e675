"""Where another index may send the server, and what the machine says of the way to it."""

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from pypiserver_ng.errors import UpstreamFailed
from pypiserver_ng.model import NormalizedName
from pypiserver_ng.upstream.addresses import Credentials, Upstream, without_credentials
from pypiserver_ng.upstream.client import UpstreamClient
from pypiserver_ng.upstream.guard import Guard, Reach, RefusedAddressError, measure, read_literal
from pypiserver_ng.upstream.parsing import RawPage
from pypiserver_ng.upstream.surroundings import Netrc, Proxies, Proxy
from tests.tools.odd_upstream import reply, running_odd_upstream

NAME = NormalizedName("foo")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxies and no netrc but those of the test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


# Addresses.


@pytest.mark.parametrize(
    ("host", "reach"),
    (
        ("8.8.8.8", Reach.WORLD),
        ("2606:4700::1", Reach.WORLD),
        ("64:ff9b::808:808", Reach.WORLD),
        ("10.0.0.1", Reach.PRIVATE),
        ("172.16.0.1", Reach.PRIVATE),
        ("192.168.0.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fc00::1", Reach.PRIVATE),
        ("fec0::1", Reach.PRIVATE),
        ("::ffff:10.0.0.1", Reach.PRIVATE),
        ("2002:a00:1::", Reach.PRIVATE),
        ("64:ff9b::a00:1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.1", Reach.LOOPBACK),
        ("0x7f.0.0.1", Reach.LOOPBACK),
        ("2130706433", Reach.LOOPBACK),
        ("[::1]", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("169.254.169.254", Reach.NOBODY),
        ("::ffff:169.254.169.254", Reach.NOBODY),
        ("fe80::1", Reach.NOBODY),
        ("0.0.0.0", Reach.NOBODY),
        ("0.1.2.3", Reach.NOBODY),
        ("::", Reach.NOBODY),
        ("224.0.0.1", Reach.NOBODY),
        ("ff02::1", Reach.NOBODY),
        ("240.0.0.1", Reach.NOBODY),
        ("255.255.255.255", Reach.NOBODY),
    ),
)
def test_an_address_is_measured(host: str, reach: Reach) -> None:
    """In every spelling, and whatever it is wrapped in."""
    address = read_literal(host)
    assert address is not None
    assert measure(address) is reach


@pytest.mark.parametrize("host", ("mirror.example", "1.2.3.4.5", "x", ""))
def test_a_name_is_no_address(host: str) -> None:
    """It is judged when it is looked up."""
    assert read_literal(host) is None


@pytest.mark.parametrize(
    ("home", "host", "allowed"),
    (
        ("8.8.8.8", "9.9.9.9", True),
        ("8.8.8.8", "10.0.0.1", False),
        ("8.8.8.8", "127.0.0.1", False),
        ("8.8.8.8", "127.1", False),
        ("8.8.8.8", "169.254.169.254", False),
        ("10.0.0.1", "10.0.0.2", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("10.0.0.1", "9.9.9.9", True),
        ("127.0.0.1", "127.0.0.2", True),
        ("127.0.0.1", "10.0.0.1", True),
        ("127.0.0.1", "169.254.169.254", False),
        ("169.254.1.1", "169.254.1.1", True),
        ("169.254.1.1", "169.254.169.254", False),
        ("mirror.invalid", "127.0.0.1", False),
        ("mirror.invalid", "9.9.9.9", True),
        ("localhost", "127.0.0.1", True),
        ("8.8.8.8", "mirror.example", True),
    ),
)
def test_an_index_sends_only_outwards(home: str, host: str, allowed: bool) -> None:
    """The owner's choice of its own host is never questioned."""

    async def scenario() -> None:
        await Guard(home).check_literal(host)

    if allowed:
        asyncio.run(scenario())
    else:
        with pytest.raises(RefusedAddressError):
            asyncio.run(scenario())


def test_a_name_is_judged_by_its_addresses() -> None:
    """At the look-up that connecting uses, so that it cannot have other ones a moment later."""

    async def resolve(home: str) -> set[str]:
        return {found["host"] for found in await Guard(home).resolve("localhost", 80, socket.AF_INET)}

    assert asyncio.run(resolve("localhost")) == asyncio.run(resolve("127.0.0.1")) == {"127.0.0.1"}
    for home in ("8.8.8.8", "10.0.0.1", "mirror.invalid"):
        with pytest.raises(RefusedAddressError):
            asyncio.run(resolve(home))


class Names(AbstractResolver):
    """A name service of the test's own."""

    def __init__(self, **addresses: tuple[str, ...]) -> None:
        self.addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in self.addresses[host]
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("home", "host", "expected"),
    (
        (("9.9.9.9",), ("8.8.8.8", "127.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1"), {"8.8.8.8"}),
        (("10.0.0.1", "127.0.0.1"), ("10.0.0.2", "127.0.0.2"), {"10.0.0.2"}),
        (("127.0.0.1", "9.9.9.9"), ("8.8.8.8", "127.0.0.2"), {"8.8.8.8"}),
        (("169.254.1.1",), ("169.254.169.254", "127.0.0.1"), {"127.0.0.1"}),
    ),
)
def test_of_several_addresses_those_outside_stay(
    home: tuple[str, ...],
    host: tuple[str, ...],
    expected: set[str],
) -> None:
    """An index is as near as its farthest address; its own are never judged."""

    async def scenario() -> None:
        guard = Guard("home")
        guard._names = Names(home=home, host=host)
        assert {found["host"] for found in await guard.resolve("host")} == expected
        assert {found["host"] for found in await guard.resolve("home")} == set(home)

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ("127.0.0.1", "localhost"))
def test_an_index_from_outside_reaches_nothing_inside(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a redirect nor by a file's URL: the server inside hears nothing."""

    async def scenario() -> None:
        async with running_odd_upstream() as inside, running_odd_upstream() as proxy:
            # The index from outside is played by a proxy, since loopback has no other outside.
            monkeypatch.setenv("HTTP_PROXY", proxy.root)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1, localhost")
            secret = f"http://{host}:{inside.port}/secret"
            proxy.say("http://mirror.invalid/simple/foo/", reply(302, Location=secret))
            client = UpstreamClient()
            upstream = Upstream("http://mirror.invalid/simple/", "public")
            with pytest.raises(UpstreamFailed, match="own network"):
                await client.fetch_page(upstream, NAME)
            with pytest.raises(UpstreamFailed, match="own network"):
                await client.head(upstream, secret)
            with pytest.raises(UpstreamFailed, match="own network"):
                async with client.open(upstream, secret):
                    pass
            assert inside.connections == 0
            await client.close()

    asyncio.run(scenario())


def test_addresses_are_checked_before_a_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may stand where more can be reached."""

    async def scenario() -> None:
        async with running_odd_upstream() as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.root)
            proxy.say("http://mirror.invalid/simple/foo/", reply(302, Location="http://169.254.169.254/latest"))
            client = UpstreamClient()
            with pytest.raises(UpstreamFailed, match="own network"):
                await client.fetch_page(Upstream("http://mirror.invalid/simple/", "public"), NAME)
            assert proxy.targets == ["http://mirror.invalid/simple/foo/"]
            await client.close()

    asyncio.run(scenario())


def test_an_index_on_loopback_may_have_its_files_on_another_port() -> None:
    """And its own host may be a name."""

    async def scenario() -> None:
        async with running_odd_upstream() as odd, running_odd_upstream() as files:
            odd.say("/simple/foo/", reply(302, Location=f"{files.root}/foo/"))
            files.say("/foo/", reply(body=b"x"))
            client = UpstreamClient()
            page = await client.fetch_page(Upstream(f"http://localhost:{odd.port}/simple/"), NAME)
            assert isinstance(page, RawPage)
            await client.close()

    asyncio.run(scenario())


# URLs, netrc, proxies.


@pytest.mark.parametrize(
    ("url", "public", "credentials"),
    (
        ("https://mirror.example/simple", "https://mirror.example/simple/", None),
        ("https://u:p@mirror.example:8443/simple//", "https://mirror.example:8443/simple/", Credentials("u", "p")),
        ("https://a%40b:p%3A%2F@mirror.example/?x=1#y", "https://mirror.example/", Credentials("a@b", "p:/")),
        ("https://token@mirror.example/", "https://mirror.example/", Credentials("token", "")),
        ("https://:p@mirror.example/", "https://mirror.example/", Credentials("", "p")),
        ("https://@mirror.example/", "https://mirror.example/", None),
    ),
)
def test_a_url_is_parted_from_its_credentials(url: str, public: str, credentials: Credentials | None) -> None:
    """Which no text of theirs shows."""
    upstream = Upstream(url)
    assert (upstream.public_url, upstream.credentials) == (public, credentials)
    assert without_credentials(url) == public
    assert upstream.project_url(NAME) == f"{public}foo/"
    assert "p%3A" not in repr(upstream.credentials)
    assert "p:/" not in repr(upstream.credentials)


@pytest.mark.parametrize(
    ("text", "host", "expected"),
    (
        ("machine mirror.example login u password p", "mirror.example", Credentials("u", "p")),
        ("machine mirror.example login u", "mirror.example", Credentials("u", "")),
        ("machine other.example login u password p", "mirror.example", None),
        ("default login u password p", "mirror.example", Credentials("u", "p")),
        ("machine mirror.example login u password p\nmachine", "mirror.example", None),
        ("\udcff", "mirror.example", None),
        ("", "mirror.example", None),
    ),
)
def test_netrc_has_credentials(text: str, host: str, expected: Credentials | None, tmp_path: Path) -> None:
    """In the home directory; a broken file has none."""
    (tmp_path / ".netrc").write_text(text, errors="surrogateescape")
    assert Netrc().find(host) == expected


@pytest.mark.parametrize("what", ("nothing", "directory", "unset"))
def test_netrc_may_be_missing(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there are none, and no failure."""
    if what == "directory":
        monkeypatch.setenv("NETRC", str(tmp_path))
    elif what == "unset":
        monkeypatch.setenv("NETRC", "")
    assert Netrc().find("mirror.example") is None


@pytest.mark.parametrize(
    ("variables", "origin", "expected"),
    (
        ({}, ("http", "h.example", 80), None),
        ({"HTTP_PROXY": "http://p.example:1"}, ("http", "h.example", 80), Proxy("http://p.example:1")),
        ({"HTTP_PROXY": "http://p.example:1"}, ("https", "h.example", 443), None),
        ({"https_proxy": "p.example:1"}, ("https", "h.example", 443), Proxy("http://p.example:1")),
        ({"ALL_PROXY": "http://p.example:1/"}, ("https", "h.example", 443), Proxy("http://p.example:1")),
        (
            {"HTTP_PROXY": "http://u:%70@p.example:1"},
            ("http", "h.example", 80),
            Proxy("http://p.example:1", Credentials("u", "p")),
        ),
        (
            {"HTTP_PROXY": "http://a.example", "http_proxy": "http://b.example"},
            ("http", "h.example", 80),
            Proxy("http://b.example"),
        ),
        ({"HTTP_PROXY": "http://p.example", "http_proxy": ""}, ("http", "h.example", 80), None),
        ({"HTTP_PROXY": "http://p.example", "NO_PROXY": "*"}, ("http", "h.example", 80), None),
        ({"HTTP_PROXY": "http://p.example", "NO_PROXY": "x, .EXAMPLE"}, ("http", "h.example", 80), None),
        ({"HTTP_PROXY": "http://p.example", "NO_PROXY": "h.example"}, ("http", "h.example", 80), None),
        ({"HTTP_PROXY": "http://p.example", "NO_PROXY": "h.example:80"}, ("http", "h.example", 80), None),
        (
            {"HTTP_PROXY": "http://p.example", "NO_PROXY": "h.example:81,,ample"},
            ("http", "h.example", 80),
            Proxy("http://p.example"),
        ),
    ),
)
def test_a_proxy_is_chosen(
    variables: dict[str, str],
    origin: tuple[str, str, int],
    expected: Proxy | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As pip and curl choose it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Proxies().choose(*origin) == expected
