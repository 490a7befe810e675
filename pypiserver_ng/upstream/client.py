"""Asks other indexes: for a project's page, for a file or a part of it, for a file's length.

Hosts, redirects and answers are taken for hostile; what comes back is bounded in time and size, but what a file's
bytes are worth only its hash can say, and that is not checked here.
"""

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from pypiserver_ng.errors import NotFound, UpstreamFailed
from pypiserver_ng.model import NormalizedName
from pypiserver_ng.upstream.addresses import Credentials, Origin, Upstream, clean_url
from pypiserver_ng.upstream.faults import Trail, blaming, check_status
from pypiserver_ng.upstream.parsing import RawPage
from pypiserver_ng.upstream.sessions import Deadline, Purpose, Sessions, Timeouts
from pypiserver_ng.upstream.surroundings import Netrc, Proxies, Proxy
from pypiserver_ng.upstream.unpacking import CODINGS, Unpacker

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5
#: Seconds that an upstream may ask us to wait.
_LONGEST_WAIT = 3600
#: Bytes of an answer nobody wants that are read, so that its connection can be used again.
_LONGEST_REST = 2**16
_LONGEST_TYPE = 200
_LONGEST_DATE = 64

_ETAG = re.compile(r"\A[!-~]{1,1024}\Z")
_DATE = re.compile(r"\A[ -~]{1,64}\Z")
_SECONDS = re.compile(r"\A[0-9]{1,9}\Z")
_CONTENT_RANGE = re.compile(r"\Abytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NotModified:
    """The page is what it was when its validators were given."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file's bytes while they come, or those of the part that was asked for."""

    #: 206 where it is a part, else 200: not every upstream knows ranges.
    status: int
    #: Of what comes; None where the upstream does not say.
    length: int | None
    #: Where in the file it begins.
    first: int
    #: Of the whole file.
    total: int | None
    #: Raises UpstreamFailed where the upstream breaks off.
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Range:
    first: int | None
    last: int | None

    @property
    def header(self) -> str | None:
        if self.first is None and self.last is None:
            return None
        return f"bytes={self.first or 0}-{'' if self.last is None else self.last}"

    def fits(self, first: int, last: int, total: int | None) -> bool:
        """Whether a part is the one that was asked for."""
        end = last if total is None else total - 1
        return first == (self.first or 0) and first <= last == (end if self.last is None else min(self.last, end))


class UpstreamClient:
    """One for all upstreams, on one event loop. Connections are made when they are needed."""

    def __init__(self, *, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._sessions = Sessions(self._timeouts)
        self._netrc = Netrc()
        self._proxies = Proxies()

    async def close(self) -> None:
        await self._sessions.close()

    async def fetch_page(
        self,
        upstream: Upstream,
        name: NormalizedName,
        etag: str | None = None,
        last_modified: str | None = None,
    ) -> RawPage | NotModified | None:
        """The project's page, unpacked; None where the upstream does not have the project. Raises UpstreamFailed."""
        trail = Trail(upstream, upstream.project_url(name))
        headers = {"Accept": _ACCEPT, "Accept-Encoding": CODINGS}
        if etag and _ETAG.match(etag):
            headers["If-None-Match"] = etag
        if last_modified and _DATE.match(last_modified):
            headers["If-Modified-Since"] = last_modified
        with blaming(trail):
            try:
                async with asyncio.timeout(self._timeouts.page) as whole:
                    return await self._fetch_page(trail, headers)
            except TimeoutError:
                if whole.expired():
                    trail.waiting = f"needs more than {self._timeouts.page:g} s for a page"
                raise
            except NotFound:
                if not trail.is_home:
                    # The login page of somebody else, say, knows nothing of the project.
                    raise UpstreamFailed("does not have what we were sent to it for") from None
                return None

    @asynccontextmanager
    async def open(
        self,
        upstream: Upstream,
        url: str,
        *,
        first: int | None = None,
        last: int | None = None,
    ) -> AsyncIterator[Download]:
        """The file at a URL that the upstream gave: from `first` to `last`, both included.

        Raises NotFound and UpstreamFailed.
        """
        trail = Trail(upstream, url)
        part = _Range(first, last)
        headers = {"Accept-Encoding": "identity"} | ({"Range": part.header} if part.header else {})
        with blaming(trail):
            response = await self._ask("GET", trail, headers, Purpose.FILES)
        try:
            with blaming(trail):
                status, length, start, total = _read_head(response, part)
            trail.waiting = f"sent nothing for {self._timeouts.idle:g} s"
            yield Download(status, length, start, total, _read_chunks(response, length, trail))
        finally:
            # Given back already where everything was read.
            response.close()

    async def head(self, upstream: Upstream, url: str) -> int | None:
        """The file's length, where the upstream says it. Raises NotFound and UpstreamFailed."""
        trail = Trail(upstream, url)
        with blaming(trail):
            response = await self._ask("HEAD", trail, {"Accept-Encoding": "identity"}, Purpose.FILES, {405, 501})
        response.close()
        return response.content_length if response.status == 200 and not _read_coding(response) else None

    async def _fetch_page(self, trail: Trail, headers: dict[str, str]) -> RawPage | NotModified:
        response = await self._ask("GET", trail, headers, Purpose.PAGES)
        try:
            if response.status == 304:
                if "If-None-Match" not in headers and "If-Modified-Since" not in headers:
                    raise UpstreamFailed("says that nothing changed, but was not asked")
                return NotModified()
            if response.status != 200:
                raise UpstreamFailed("sent a part of a page")
            return RawPage(
                content=await _read_page(response),
                content_type=response.headers.get("Content-Type", "")[:_LONGEST_TYPE],
                url=trail.url,
                etag=_read_opaque(response, "ETag", _ETAG),
                last_modified=_read_opaque(response, "Last-Modified", _DATE),
                coding=_read_coding(response),
            )
        finally:
            response.close()

    async def _ask(
        self,
        method: str,
        trail: Trail,
        headers: dict[str, str],
        purpose: Purpose,
        unjudged: set[int] | None = None,
    ) -> aiohttp.ClientResponse:
        """The answer at the end of all redirects, its body not read yet."""
        link = trail.url
        for _ in range(_MOST_REDIRECTS + 1):
            url = clean_url(link, trail.url)
            if url is None:
                raise UpstreamFailed("leads to a URL that cannot be asked")
            if trail.url.startswith("https:") and not url.startswith("https:"):
                raise UpstreamFailed("leads from https to http")
            trail.url = url
            response = await self._send(method, trail, headers, purpose)
            if response.status not in _REDIRECTS:
                break
            link = response.headers.get("Location", "")
            await self._discard(response)
            if not link:
                raise UpstreamFailed("leads away, but does not say where to")
        else:
            raise UpstreamFailed(f"leads on more than {_MOST_REDIRECTS} times")
        try:
            if response.status not in (unjudged or ()):
                check_status(response.status, _read_wait(response), trail)
        except BaseException:
            await self._discard(response)
            raise
        return response

    async def _send(
        self,
        method: str,
        trail: Trail,
        headers: dict[str, str],
        purpose: Purpose,
    ) -> aiohttp.ClientResponse:
        """One request and the head of its answer."""
        home = _find_home(trail.upstream)
        origin = Origin.of(trail.url)
        proxy = self._choose_proxy(origin)
        await self._sessions.guard(home.host).check_literal(origin.host)
        credentials = await self._find_credentials(trail.upstream, home) if origin == home else None
        trail.authorized = credentials is not None
        session = await self._sessions.get(home.host, purpose, proxied=proxy is not None)
        async with asyncio.timeout(self._timeouts.queue) as timer:
            return await session.request(
                method,
                URL(trail.url, encoded=True),
                headers=headers | _authorize("Authorization", credentials) | _greet(proxy, origin, tunnel=False),
                allow_redirects=False,
                proxy=proxy.url if proxy else None,
                proxy_headers=_greet(proxy, origin, tunnel=True) or None,
                trace_request_ctx=Deadline(timer, self._timeouts, trail),
            )

    def _choose_proxy(self, origin: Origin) -> Proxy | None:
        proxy = self._proxies.choose(origin.scheme, origin.host, origin.port)
        if proxy and not proxy.url.startswith(("http://", "https://")):
            raise UpstreamFailed("cannot be reached: only http and https proxies are spoken to")
        return proxy

    async def _find_credentials(self, upstream: Upstream, home: Origin) -> Credentials | None:
        return upstream.credentials or await asyncio.to_thread(self._netrc.find, home.host)

    async def _discard(self, response: aiohttp.ClientResponse) -> None:
        """Give the connection back where that is cheap."""
        length = response.content_length
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(self._timeouts.head):
                if length is not None and length <= _LONGEST_REST:
                    await response.read()
        response.close()


def _find_home(upstream: Upstream) -> Origin:
    url = clean_url(upstream.public_url, upstream.public_url)
    if url is None:
        raise UpstreamFailed("has a URL that cannot be asked; give it one with http or https and an ASCII host")
    return Origin.of(url)


def _authorize(header: str, credentials: Credentials | None) -> dict[str, str]:
    if credentials is None:
        return {}
    text = f"{credentials.user}:{credentials.password}".encode()
    return {header: f"Basic {b64encode(text).decode()}"}


def _greet(proxy: Proxy | None, origin: Origin, *, tunnel: bool) -> dict[str, str]:
    """The proxy's credentials: in the request for a tunnel where TLS goes through it, else in the request itself."""
    if proxy is None or (origin.scheme == "https") is not tunnel:
        return {}
    return _authorize("Proxy-Authorization", proxy.credentials)


async def _read_page(response: aiohttp.ClientResponse) -> bytes:
    unpacker = Unpacker(_read_coding(response))
    pieces: list[bytes] = []
    while data := await response.content.readany():
        for piece in unpacker.unpack(data):
            pieces.append(piece)
            # What is packed well is much to do, and was read at once.
            await asyncio.sleep(0)
    unpacker.finish()
    return b"".join(pieces)


async def _read_chunks(
    response: aiohttp.ClientResponse,
    length: int | None,
    trail: Trail,
) -> AsyncIterator[bytes]:
    received = 0
    while True:
        with blaming(trail):
            chunk = await response.content.readany()
            received += len(chunk)
            if length is not None and (received > length or (not chunk and received < length)):
                raise UpstreamFailed("sent another length than it said")
        if not chunk:
            return
        yield chunk


def _read_head(response: aiohttp.ClientResponse, part: _Range) -> tuple[int, int | None, int, int | None]:
    """Status, length of what comes, where it begins, and the file's length. Raises UpstreamFailed."""
    if _read_coding(response):
        raise UpstreamFailed("has packed the file, although it was asked not to")
    length = response.content_length
    if response.status == 200:
        return 200, length, 0, length
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if response.status != 206 or part.header is None or found is None:
        raise UpstreamFailed("sent a part of a file in a way that was not asked for")
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if not part.fits(first, last, total) or length not in {None, last - first + 1}:
        raise UpstreamFailed("sent another part of the file than was asked for")
    return 206, last - first + 1, first, total


def _read_coding(response: aiohttp.ClientResponse) -> str:
    """Empty where the body is as it is."""
    coding = ", ".join(response.headers.getall("Content-Encoding", [])).strip().lower()
    return "" if coding == "identity" else coding


def _read_opaque(response: aiohttp.ClientResponse, header: str, form: re.Pattern[str]) -> str | None:
    value = response.headers.get(header, "")
    return value if form.match(value) else None


def _read_wait(response: aiohttp.ClientResponse) -> int | None:
    """Retry-After in whole seconds, whichever of its two forms it has."""
    value = response.headers.get("Retry-After", "").strip()[:_LONGEST_DATE]
    if _SECONDS.match(value):
        seconds = float(value)
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return max(1, min(_LONGEST_WAIT, round(seconds)))
