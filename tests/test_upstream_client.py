"""Asking other indexes, over loopback: the right ones, the slow ones, and those that mean harm."""

import asyncio
import gzip
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from backports import zstd

from pypiserver_ng import __version__
from pypiserver_ng.errors import NotFound, UpstreamFailed
from pypiserver_ng.model import NormalizedName, OnError
from pypiserver_ng.upstream.addresses import Upstream
from pypiserver_ng.upstream.client import NotModified, UpstreamClient
from pypiserver_ng.upstream.parsing import RawPage, parse_page
from pypiserver_ng.upstream.sessions import Purpose, Timeouts
from tests.tools.certificates import make_certificate
from tests.tools.odd_upstream import Odd, OddUpstream, reply, running_odd_upstream

NAME = NormalizedName("foo")
PAGE = "/simple/foo/"
FILE = "/files/foo-1.0.tar.gz"
HTML = b"<a href=foo-1.0.tar.gz>foo</a>"
#: base64 of user:s3cret
BASIC = "Basic dXNlcjpzM2NyZXQ="


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxies and no netrc but those of the test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@asynccontextmanager
async def asking(timeouts: Timeouts | None = None) -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(timeouts=timeouts)
    try:
        yield client
    finally:
        await client.close()


def run(scenario: Callable[[OddUpstream, UpstreamClient], Awaitable[None]], timeouts: Timeouts | None = None) -> None:
    """One odd upstream, one client, at most 60 seconds."""

    async def play() -> None:
        async with asyncio.timeout(60), running_odd_upstream() as odd, asking(timeouts) as client:
            await scenario(odd, client)

    asyncio.run(play())


def upstream_of(odd: OddUpstream, credentials: str = "", host: str = "127.0.0.1") -> Upstream:
    return Upstream(f"{odd.scheme}://{credentials}{host}:{odd.port}/simple/", "public", OnError.STOP)


async def read(client: UpstreamClient, upstream: Upstream, url: str, **part: int) -> bytes:
    async with client.open(upstream, url, **part) as download:
        return b"".join([chunk async for chunk in download.chunks])


async def fail_page(client: UpstreamClient, upstream: Upstream) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as raised:
        await client.fetch_page(upstream, NAME)
    return check_words(raised.value)


async def fail_file(client: UpstreamClient, upstream: Upstream, url: str, **part: int) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as raised:
        await read(client, upstream, url, **part)
    return check_words(raised.value)


def check_words(failure: UpstreamFailed) -> UpstreamFailed:
    """One line that names the upstream, and no secret and no code."""
    assert re.match(r"The upstream '[a-z]+' \([^ /@]+\) [^\n]*\Z", failure.message)
    assert "s3cret" not in failure.message
    assert "Error" not in failure.message
    return failure


# Pages.


def test_a_page_is_fetched_with_everything_that_helps() -> None:
    """Its validators come back; the request says what is wanted, who asks, and never a cookie."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(
            PAGE,
            reply(
                body=HTML,
                Content_Type="text/html",
                ETag='W/"1"',
                Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT",
                Set_Cookie="a=b",
            ),
        )
        # Clients keep cookies of names only.
        upstream = upstream_of(odd, host="localhost")
        page = await client.fetch_page(upstream, NAME)
        url = upstream.project_url(NAME)
        assert page == RawPage(HTML, "text/html", url, 'W/"1"', "Mon, 01 Jan 2024 00:00:00 GMT")
        odd.say(PAGE, reply(304))
        assert await client.fetch_page(upstream, NAME, page.etag, page.last_modified) == NotModified()
        first, second = (each.headers for each in odd.asked)
        assert first["accept"].startswith("application/vnd.pypi.simple.v1+json, ")
        assert (first["accept-encoding"], first["user-agent"]) == (
            "zstd, gzip, deflate",
            f"pypiserver-ng/{__version__}",
        )
        assert "if-none-match" not in first
        assert (second["if-none-match"], second["if-modified-since"]) == (page.etag, page.last_modified)
        assert not {"cookie", "authorization"} & (first.keys() | second.keys())
        assert odd.connections == 1

    run(scenario)


@pytest.mark.parametrize("status", (404, 410))
def test_a_project_that_is_not_there_is_no_failure(status: int) -> None:
    """The next upstream may have it; for a file it is NotFound."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, reply(status, b"no"))
        odd.say(FILE, reply(status, b"no"))
        assert await client.fetch_page(upstream_of(odd), NAME) is None
        with pytest.raises(NotFound):
            await read(client, upstream_of(odd), odd.root + FILE)
        with pytest.raises(NotFound):
            await client.head(upstream_of(odd), odd.root + FILE)

    run(scenario)


@pytest.mark.parametrize(
    ("coding", "body"),
    (
        ("gzip", gzip.compress(HTML, mtime=0)),
        ("x-gzip", gzip.compress(HTML[:9], mtime=0) + gzip.compress(HTML[9:], mtime=0)),
        ("GZIP", gzip.compress(HTML, mtime=0)),
        ("deflate", zlib.compress(HTML)),
        ("deflate", zlib.compress(HTML, wbits=-15)),
        ("zstd", zstd.compress(HTML)),
        ("identity", HTML),
    ),
)
def test_a_packed_page_is_unpacked(coding: str, body: bytes) -> None:
    """In all codings that were asked for, and as they are really sent."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, reply(body=body, Content_Encoding=coding))
        page = await client.fetch_page(upstream_of(odd), NAME)
        assert isinstance(page, RawPage)
        assert page.content == HTML

    run(scenario)


_ZEROS = b"\0" * 2**20


def make_bomb(coding: str) -> bytes:
    """65 MiB in few bytes."""
    packer = zlib.compressobj(wbits=31) if coding == "gzip" else zstd.ZstdCompressor()
    return b"".join(packer.compress(_ZEROS) for _ in range(65)) + packer.flush()


def make_wide_frame() -> bytes:
    """What takes more memory to unpack than browsers must have."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 24})
    return packer.compress(HTML) + packer.flush()


#: The beginning of a zstd stream, and blocks of it that hold nothing.
ZSTD_HEAD, EMPTY_BLOCKS = b"\x28\xb5\x2f\xfd\x00\x58", b"\0\0\0" * 2**18


@pytest.mark.parametrize(
    ("steps", "said"),
    (
        ((reply(body=make_bomb("gzip"), Content_Encoding="gzip"),), "more than 64 MiB"),
        ((reply(body=make_bomb("zstd"), Content_Encoding="zstd"),), "more than 64 MiB"),
        ((reply(Transfer_Encoding="chunked"), b"100000\r\n" + _ZEROS + b"\r\n", Odd.REPEAT), "more than 64 MiB"),
        ((reply(Connection="close", Content_Length=str(2**40)), _ZEROS, Odd.REPEAT), "more than 64 MiB"),
        ((reply(body=gzip.compress(HTML, mtime=0)[:-9], Content_Encoding="gzip"),), "ended its answer early"),
        ((reply(body=HTML, Content_Encoding="gzip"),), "damaged"),
        ((reply(body=gzip.compress(HTML, mtime=0) + b"x" * 20, Content_Encoding="gzip"),), "damaged"),
        ((reply(body=make_wide_frame(), Content_Encoding="zstd"),), "damaged"),
        ((reply(body=gzip.compress(b"", mtime=0) * 101, Content_Encoding="gzip"),), "too many pieces"),
        (
            (reply(Content_Length=str(2**40), Content_Encoding="zstd") + ZSTD_HEAD, EMPTY_BLOCKS, Odd.REPEAT),
            "does not end",
        ),
        ((reply(body=HTML, Content_Encoding="br"),), "not asked for"),
        ((reply(body=HTML, Content_Encoding="gzip, gzip"),), "not asked for"),
        ((reply(body=HTML, Content_Length="99"), Odd.CLOSE), "ended its answer early"),
        ((reply(Transfer_Encoding="chunked"), b"5\r\nab", Odd.CLOSE), "ended its answer early"),
        ((Odd.CLOSE,), "closed the connection"),
        ((b"HTTP/1.1 200 OK\r\nContent-Le", Odd.CLOSE), "closed the connection"),
        ((b"SSH-2.0-odd\r\n\r\n", Odd.CLOSE), "not HTTP"),
        ((b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",), "not HTTP"),
        ((reply(304),), "was not asked"),
        ((reply(206, HTML, Content_Range="bytes 0-1/2"),), "part of a page"),
        ((reply(500),), "answered with status 500"),
        ((reply(401),), "wants credentials (401); put them into its URL or into the netrc file"),
        ((reply(403),), "wants credentials (403)"),
        ((reply(300),), "answered with status 300"),
        ((reply(302),), "does not say where to"),
        ((reply(302, Location=PAGE),), "more than 5 times"),
        ((reply(302, Location="file:///etc/passwd"),), "cannot be asked"),
        ((reply(302, Location="http://[::1"),), "cannot be asked"),
    ),
)
def test_a_page_that_is_wrong_is_a_failure(steps: tuple[bytes | Odd, ...], said: str) -> None:
    """In one line each, however it is wrong."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, *steps)
        assert said in (await fail_page(client, upstream_of(odd))).message

    run(scenario)


@pytest.mark.parametrize("status", (429, 503))
@pytest.mark.parametrize(
    ("value", "expected"),
    (
        ("120", {120}),
        ("0", {1}),
        ("99999", {3600}),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(days=9), usegmt=True), {3600}, id="in nine days"),
        pytest.param(format_datetime(datetime.now(UTC) - timedelta(days=9), usegmt=True), {1}, id="nine days ago"),
        ("soon", {None}),
        ("-5", {None}),
        ("1" * 500, {None}),
    ),
)
def test_an_upstream_may_ask_for_a_pause(status: int, value: str, expected: set[int | None]) -> None:
    """In seconds or until a date, within reason."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, reply(status, Retry_After=value))
        failure = await fail_page(client, upstream_of(odd))
        assert failure.retry_after in expected
        assert f"({status})" in failure.message

    run(scenario)


@pytest.mark.parametrize("value", ("\xe9", "a b", "x" * 1025, ""))
def test_an_etag_that_could_do_harm_is_forgotten(value: str) -> None:
    """It comes from outside and goes out again; nor is one sent that was kept by somebody else."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, reply(body=HTML, ETag=value, Last_Modified=value))
        page = await client.fetch_page(upstream_of(odd), NAME, f"{value}\r\nX-Evil: 1", "a\nb")
        assert isinstance(page, RawPage)
        assert page.etag is None
        assert not {"if-none-match", "if-modified-since", "x-evil"} & odd.asked[0].headers.keys()

    run(scenario)


SHORT = 0.2


@pytest.mark.parametrize(
    ("steps", "timeouts", "said"),
    (
        ((Odd.HANG,), Timeouts(head=SHORT), "did not begin to answer within 0.2 s"),
        ((b"HTTP/1.1 200 OK\r\n", Odd.HANG), Timeouts(head=SHORT), "did not begin to answer within 0.2 s"),
        ((reply(body=b"x", Content_Length="2"), Odd.HANG), Timeouts(page=SHORT), "needs more than 0.2 s for a page"),
        ((reply(302, Location=PAGE, Content_Length="1"), Odd.HANG), Timeouts(page=SHORT), "needs more than"),
    ),
)
def test_a_slow_page_is_given_up(steps: tuple[bytes | Odd, ...], timeouts: Timeouts, said: str) -> None:
    """Its head and its body have their times."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, *steps)
        assert said in (await fail_page(client, upstream_of(odd))).message

    run(scenario, timeouts)


def test_a_connection_that_falls_asleep_is_given_up() -> None:
    """A used one has the same time for its head as a new one."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, reply(body=HTML))
        assert await client.fetch_page(upstream_of(odd), NAME)
        odd.say(PAGE, Odd.HANG)
        assert "did not begin to answer within 0.2 s" in (await fail_page(client, upstream_of(odd))).message
        assert odd.connections == 1

    run(scenario, Timeouts(head=SHORT))


def test_what_cannot_be_reached_is_said(unused_port: int) -> None:
    """A closed port, a name without address, a URL that is none."""

    async def scenario(_odd: OddUpstream, client: UpstreamClient) -> None:
        for url, said in (
            (f"http://127.0.0.1:{unused_port}/simple/", "cannot be reached: connection refused"),
            ("http://mirror.invalid/simple/", "its name has no address"),
            ("ftp://mirror.example/simple/", "cannot be asked"),
            ("http://h\u00e9st.example/simple/", "cannot be asked"),
        ):
            assert said in (await fail_page(client, Upstream(url, "public"))).message

    run(scenario)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is taken, and on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_few_connections_serve_any_number_of_pages() -> None:
    """All others wait their turn, and the connections are used again."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        names = [NormalizedName(f"foo{number}") for number in range(40)]
        for name in names:
            odd.say(f"/simple/{name}/", reply(body=HTML))
        pages = await asyncio.gather(*(client.fetch_page(upstream_of(odd), name) for name in names))
        assert all(isinstance(page, RawPage) for page in pages)
        assert odd.connections <= Purpose.PAGES.value
        assert len(odd.asked) == 40

    run(scenario)


def test_who_waits_too_long_for_a_connection_is_told() -> None:
    """Sixteen files that hang leave none for the next one, but pages have their own."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        upstream = upstream_of(odd)
        odd.say(FILE, reply(Content_Length="9"), Odd.HANG)
        odd.say(PAGE, reply(body=HTML))
        async with AsyncExitStack() as stack:
            for _ in range(16):
                await stack.enter_async_context(client.open(upstream, odd.root + FILE))
            failure = await fail_file(client, upstream, odd.root + FILE)
            assert "no connection left for us after 0.2 s" in failure.message
            assert await client.fetch_page(upstream, NAME)

    run(scenario, Timeouts(queue=SHORT))


def test_a_client_can_be_closed_in_the_middle() -> None:
    """Whoever waits then is told that it failed; closing twice is nothing."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(FILE, reply(body=b"ab", Content_Length="9"), Odd.HANG)
        async with client.open(upstream_of(odd), odd.root + FILE) as download:
            assert await anext(download.chunks) == b"ab"
            await client.close()
            await client.close()
            with pytest.raises(UpstreamFailed):
                await anext(download.chunks)

    run(scenario)


# Redirects and credentials.


def test_redirects_are_followed_to_where_the_page_is() -> None:
    """Relative links start at the last URL."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, reply(301, b"moved", Location="/other"))
        odd.say("/other", reply(308, Location="new/?a=b c"))
        odd.say("/new/?a=b%20c", reply(body=HTML, Content_Type="text/html"))
        page = await client.fetch_page(upstream_of(odd), NAME)
        assert isinstance(page, RawPage)
        assert parse_page(page, NAME).files[0].url == f"{odd.root}/new/foo-1.0.tar.gz"
        assert odd.connections == 1

    run(scenario)


def test_credentials_stay_at_home() -> None:
    """They go to the upstream's own origin, percent-decoded, and neither along a redirect nor to the files' host."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        async with running_odd_upstream() as stranger:
            upstream = upstream_of(odd, "user:s3cr%65t@")
            odd.say(PAGE, reply(302, Location=f"http://user:other@127.0.0.1:{stranger.port}/away"))
            stranger.say("/away", reply(302, Location=f"{odd.root}/home"))
            odd.say("/home", reply(body=HTML))
            odd.say(FILE, reply(body=b"x"))
            stranger.say(FILE, reply(body=b"x"))
            page = await client.fetch_page(upstream, NAME)
            await read(client, upstream, odd.root + FILE)
            await read(client, upstream, stranger.root + FILE)
            assert isinstance(page, RawPage)
            assert page.url == f"{odd.root}/home"
            assert [each.headers.get("authorization") for each in odd.asked] == [BASIC] * 3
            assert [each.headers.get("authorization") for each in stranger.asked] == [None] * 2

    run(scenario)


def test_credentials_that_are_refused_are_named_without_being_told() -> None:
    """At home they are to be corrected, elsewhere none are sent."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        async with running_odd_upstream() as stranger:
            upstream = upstream_of(odd, "user:s3cret@")
            odd.say(PAGE, reply(401))
            stranger.say(FILE, reply(403))
            assert "refuses our credentials (401); correct them" in (await fail_page(client, upstream)).message
            message = (await fail_file(client, upstream, stranger.root + FILE)).message
            assert "refuses to give it (403)" in message
            assert str(stranger.port) in message

    run(scenario)


def test_a_token_alone_is_a_user() -> None:
    """As some indexes want it."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, reply(body=HTML))
        await client.fetch_page(upstream_of(odd, "token@"), NAME)
        assert odd.asked[0].headers["authorization"] == "Basic dG9rZW46"

    run(scenario)


def test_netrc_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the upstream's own host; what its URL says comes first."""
    path = tmp_path / "my-netrc"
    monkeypatch.setenv("NETRC", str(path))

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        async with running_odd_upstream() as stranger:
            odd.say(PAGE, reply(302, Location=stranger.root + PAGE))
            stranger.say(PAGE, reply(body=HTML))
            upstream = upstream_of(odd)
            await client.fetch_page(upstream, NAME)
            path.write_text("machine 127.0.0.1 login user password s3cret\n")
            await client.fetch_page(upstream, NAME)
            await client.fetch_page(upstream_of(odd, "token@"), NAME)
            path.write_text("machine other.example login user password s3cret\n")
            await client.fetch_page(upstream, NAME)
            sent = [each.headers.get("authorization") for each in odd.asked]
            assert sent == [None, BASIC, "Basic dG9rZW46", None]
            assert not any("authorization" in each.headers for each in stranger.asked)

    run(scenario)


def test_a_broken_netrc_is_named_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By its line, never by what stands in it."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1\nlogin user passwort s3cret\n")

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(PAGE, reply(body=HTML))
        for _ in range(3):
            await client.fetch_page(upstream_of(odd), NAME)
        assert "authorization" not in odd.asked[2].headers

    run(scenario)
    (line,) = [record.getMessage() for record in caplog.records if "netrc" in record.getMessage()]
    assert "line 2" in line
    assert "s3cret" not in line


# TLS.


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


def serving_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_a_certificate_must_be_trusted(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how, and then it is."""

    async def scenario() -> None:
        async with running_odd_upstream(serving_context(certificate)) as odd:
            odd.say(PAGE, reply(body=HTML))
            async with asking() as client:
                assert "SSL_CERT_FILE" in (await fail_page(client, upstream_of(odd))).message
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
            async with asking() as client:
                assert await client.fetch_page(upstream_of(odd), NAME)

    asyncio.run(scenario())


def test_nothing_leads_from_https_to_http(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a page nor a file; the other way is fine."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        async with running_odd_upstream(serving_context(certificate)) as safe:
            odd.say(PAGE, reply(302, Location=f"{safe.root}/page"))
            safe.say("/page", reply(body=HTML))
            assert await client.fetch_page(upstream_of(odd), NAME)
            safe.say(PAGE, reply(302, Location=f"{odd.root}/page"))
            safe.say(FILE, reply(302, Location=f"{odd.root}/page"))
            odd.say("/page", reply(body=HTML))
            assert "from https to http" in (await fail_page(client, upstream_of(safe))).message
            assert "from https to http" in (await fail_file(client, upstream_of(safe), safe.root + FILE)).message
            assert odd.targets == [PAGE]

    run(scenario)


def test_no_tls_where_tls_is_wanted_is_said() -> None:
    """A plain server behind an https URL."""

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(400))
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server, asking() as client:
            port = server.sockets[0].getsockname()[1]
            upstream = Upstream(f"https://127.0.0.1:{port}/simple/", "public")
            assert "TLS" in (await fail_page(client, upstream)).message

    asyncio.run(scenario())


# Proxies.


def test_a_proxy_is_asked_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own credentials, which the upstream's are not; hosts in NO_PROXY are asked directly."""

    async def scenario(odd: OddUpstream, _client: UpstreamClient) -> None:
        async with running_odd_upstream() as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://pr:oxy@127.0.0.1:{proxy.port}")
            monkeypatch.setenv("no_proxy", "localhost, .internal.example")
            proxy.say("http://mirror.example/simple/foo/", reply(body=HTML))
            odd.say(PAGE, reply(body=HTML))
            async with asking() as client:
                assert await client.fetch_page(Upstream("http://user:s3cret@mirror.example/simple/"), NAME)
                assert await client.fetch_page(upstream_of(odd, host="localhost"), NAME)
            (asked,) = proxy.asked
            assert asked.headers["authorization"] == BASIC
            assert asked.headers["proxy-authorization"] == "Basic cHI6b3h5"
            assert odd.targets == [PAGE]
            assert "proxy-authorization" not in odd.asked[0].headers

    run(scenario)


def test_tls_goes_through_a_tunnel(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy sees neither credentials nor paths, the upstream nothing of the proxy."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    async def scenario(proxy: OddUpstream, _client: UpstreamClient) -> None:
        async with running_odd_upstream(serving_context(certificate)) as safe:
            monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}".join(("http://pr:oxy@", "")))
            proxy.say(f"127.0.0.1:{safe.port}", b"HTTP/1.1 200 OK\r\n\r\n", Odd.TUNNEL)
            safe.say(PAGE, reply(body=HTML))
            async with asking() as client:
                assert await client.fetch_page(upstream_of(safe, "user:s3cret@"), NAME)
            (tunnel,), (asked,) = proxy.asked, safe.asked
            assert (tunnel.method, asked.headers["authorization"]) == ("CONNECT", BASIC)
            assert tunnel.headers["proxy-authorization"] == "Basic cHI6b3h5"
            assert "authorization" not in tunnel.headers
            assert "proxy-authorization" not in asked.headers

    run(scenario)


@pytest.mark.parametrize("scheme", ("http", "https"))
def test_a_proxy_that_wants_credentials_is_said(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both for a request and for a tunnel."""

    async def scenario(proxy: OddUpstream, _client: UpstreamClient) -> None:
        monkeypatch.setenv("ALL_PROXY", proxy.root)
        proxy.say("http://mirror.example/simple/foo/", reply(407))
        proxy.say("mirror.example:443", reply(407))
        async with asking() as client:
            failure = await fail_page(client, Upstream(f"{scheme}://mirror.example/simple/", "public"))
            assert "the proxy wants credentials (407)" in failure.message

    run(scenario)


def test_a_proxy_that_is_not_there_is_said(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that speaks something else."""

    async def scenario(_odd: OddUpstream, _client: UpstreamClient) -> None:
        for proxy, said in (("http", "the proxy does not answer"), ("socks5", "only http and https proxies")):
            monkeypatch.setenv("HTTP_PROXY", f"{proxy}://127.0.0.1:{unused_port}")
            async with asking() as client:
                failure = await fail_page(client, Upstream("http://mirror.example/simple/", "public"))
                assert said in failure.message

    run(scenario)


# Files.


def test_a_file_comes_as_it_is() -> None:
    """Unpacked nowhere, with its length known before its bytes."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        body = bytes(range(256)) * 4096
        odd.say(FILE, reply(302, Location="/real"))
        odd.say("/real", reply(body=body, Content_Encoding="identity"))
        async with client.open(upstream_of(odd), odd.root + FILE) as download:
            assert (download.status, download.length, download.first, download.total) == (200, 2**20, 0, 2**20)
            assert b"".join([chunk async for chunk in download.chunks]) == body
        assert await client.head(upstream_of(odd), odd.root + "/real") == 2**20
        assert {each.headers["accept-encoding"] for each in odd.asked} == {"identity"}
        assert [each.method for each in odd.asked] == ["GET", "GET", "HEAD"]

    run(scenario)


def test_a_length_may_be_unknown() -> None:
    """In a chunked answer, or where HEAD is not spoken."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(FILE, reply(Transfer_Encoding="chunked"), b"2\r\nab\r\n0\r\n\r\n")
        async with client.open(upstream_of(odd), odd.root + FILE) as download:
            assert (download.length, download.total) == (None, None)
            assert [chunk async for chunk in download.chunks] == [b"ab"]
        odd.say(FILE, reply(405))
        assert await client.head(upstream_of(odd), odd.root + FILE) is None

    run(scenario)


RANGES: tuple[tuple[dict[str, int], str, dict[str, str], bytes, tuple[object, ...]], ...] = (
    ({"first": 2, "last": 3}, "bytes=2-3", {"Content_Range": "bytes 2-3/9"}, b"cd", (206, 2, 2, 9)),
    ({"first": 2}, "bytes=2-", {"Content_Range": "bytes 2-3/4"}, b"cd", (206, 2, 2, 4)),
    ({"last": 1}, "bytes=0-1", {"Content_Range": "bytes 0-1/*"}, b"ab", (206, 2, 0, None)),
    ({"first": 2, "last": 99}, "bytes=2-99", {"Content_Range": "bytes 2-3/4"}, b"cd", (206, 2, 2, 4)),
)


@pytest.mark.parametrize(("part", "header", "answered", "body", "expected"), RANGES)
def test_a_part_of_a_file_can_be_asked_for(
    part: dict[str, int],
    header: str,
    answered: dict[str, str],
    body: bytes,
    expected: tuple[object, ...],
) -> None:
    """The whole file may come instead, and then it says so."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(FILE, reply(206 if answered else 200, body, **answered))
        async with client.open(upstream_of(odd), odd.root + FILE, **part) as download:
            assert (download.status, download.length, download.first, download.total) == expected
            assert b"".join([chunk async for chunk in download.chunks]) == body
        assert odd.asked[0].headers["range"] == header

    run(scenario)


@pytest.mark.parametrize(
    ("steps", "part", "said"),
    (
        ((reply(206, b"ab", Content_Range="bytes 0-1/9"),), {}, "not asked for"),
        ((reply(206, b"ab", Content_Type="multipart/byteranges"),), {"first": 1}, "not asked for"),
        ((reply(206, b"ab", Content_Range="bytes 0-1/9"),), {"first": 1, "last": 2}, "another part"),
        ((reply(206, b"ab", Content_Range="bytes 1-2/9"),), {"first": 1, "last": 3}, "another part"),
        ((reply(206, b"ab", Content_Range="bytes 1-2/9"),), {"first": 1}, "another part"),
        ((reply(206, b"ab", Content_Range="bytes 2-1/9"),), {"first": 2, "last": 1}, "another part"),
        ((reply(206, b"abc", Content_Range="bytes 1-2/9"),), {"first": 1, "last": 2}, "another part"),
        (
            (
                reply(206, Content_Range="bytes 1-2/9", Transfer_Encoding="chunked"),
                b"1\r\na\r\n0\r\n\r\n",
            ),
            {"first": 1, "last": 2},
            "another length",
        ),
        (
            (
                reply(206, Content_Range="bytes 1-2/9", Transfer_Encoding="chunked"),
                b"3\r\nabc\r\n",
                Odd.HANG,
            ),
            {"first": 1, "last": 2},
            "another length",
        ),
        ((reply(416, Content_Range="bytes */2"),), {"first": 5}, "does not have the part"),
        ((reply(304),), {}, "not asked for"),
        ((reply(body=b"ab", Content_Encoding="gzip"),), {}, "has packed the file"),
        ((reply(body=b"ab", Content_Length="3"), Odd.CLOSE), {}, "ended its answer early"),
        ((reply(body=b"ab", Content_Length="3"), Odd.HANG), {}, "sent nothing for 0.2 s"),
        ((reply(503, Retry_After="7"),), {}, "is not available (503)"),
    ),
)
def test_a_file_that_is_wrong_is_a_failure(steps: tuple[bytes | Odd, ...], part: dict[str, int], said: str) -> None:
    """At the head where it can be known there, else among its bytes."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(FILE, *steps)
        assert said in (await fail_file(client, upstream_of(odd), odd.root + FILE, **part)).message

    run(scenario, Timeouts(idle=SHORT))


def test_a_file_that_nobody_reads_any_more_is_not_sent() -> None:
    """Its connection is closed, and what was raised inside is what comes out."""

    async def scenario(odd: OddUpstream, client: UpstreamClient) -> None:
        odd.say(FILE, reply(Content_Length=str(2**40)), _ZEROS, Odd.REPEAT)

        async def keep() -> None:
            async with client.open(upstream_of(odd), odd.root + FILE) as download:
                assert await anext(download.chunks)
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            await keep()
        await odd.quiet()

    run(scenario)
