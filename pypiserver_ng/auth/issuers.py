"""The public keys of those who issue identities, as their discovery documents lead to them.

Holds what was fetched, and for how long that counts. Must not know what is signed with the keys. Specification: OpenID
Connect Discovery 1.0 and RFC 7517 (JSON Web Key).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec

from pypiserver_ng import __version__
from pypiserver_ng.config.publishers import is_loopback
from pypiserver_ng.errors import Unavailable

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Seconds. After these the keys are asked for again, so that one that was withdrawn stops working.
FRESH = 300.0
#: For which keys count whose issuer does not answer any more.
STALE = 3600.0
#: Between two questions to one issuer, whatever tokens come; and after one that failed.
PAUSE = 30.0
PAUSE_AFTER_FAILURE = 5.0
#: For discovery document and keys together.
SECONDS = 5.0
#: Bytes of either.
LONGEST = 2**20

#: Algorithms by the keys that can verify them: type and curve. None of them takes a secret that both sides know.
_ALGORITHMS: dict[str, tuple[str, frozenset[str | None]]] = {
    **{f"{family}{bits}": ("RSA", frozenset({None})) for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", frozenset({"P-256"})),
    "ES384": ("EC", frozenset({"P-384"})),
    "ES512": ("EC", frozenset({"P-521"})),
    "EdDSA": ("OKP", frozenset({"Ed25519", "Ed448"})),
}
ALGORITHMS = frozenset(_ALGORITHMS)


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct, frozen=True):
    keys: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=100)]


@dataclass(frozen=True, slots=True)
class Key:
    """One public key, as its JWK says it."""

    id: str | None
    jwk: dict[str, Any] = field(repr=False)

    def fits(self, algorithm: str) -> bool:
        """Whether it is of the algorithm's kind, and meant for no other."""
        kind, curves = _ALGORITHMS[algorithm]
        jwk = self.jwk
        return jwk.get("kty") == kind and jwk.get("crv") in curves and jwk.get("alg", algorithm) == algorithm


Fetch = Callable[[str], Awaitable[Sequence[Key]]]


class Issuer:
    """One issuer's keys. Belongs to one event loop; `clock` gives monotonic seconds."""

    def __init__(self, issuer: str, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._asking = asyncio.Lock()
        self._keys: Sequence[Key] = ()
        #: When the keys came, and from when on the issuer may be asked again.
        self._fetched = -STALE
        self._next = clock()
        self._reason = ""

    async def find(self, number: str | None, algorithm: str) -> Key | None:
        """The key of this id; without an id, the only one that there is for the algorithm. Raises Unavailable."""
        if self._clock() - self._fetched >= FRESH:
            await self._refresh()
        key = self._choose(number, algorithm)
        if key is None:
            await self._refresh()
            key = self._choose(number, algorithm)
        return key

    def _choose(self, number: str | None, algorithm: str) -> Key | None:
        found = [key for key in self._keys if key.fits(algorithm) and number in {None, key.id}]
        return found[0] if len(found) == 1 else None

    async def _refresh(self) -> None:
        """Ask for the keys, unless that was done a moment ago."""
        async with self._asking:
            if self._clock() >= self._next:
                await self._ask()
        if self._clock() - self._fetched >= STALE:
            raise Unavailable(
                f"the keys of the issuer {self._issuer} cannot be had now: {self._reason}",
                retry_after=int(PAUSE_AFTER_FAILURE),
            )

    async def _ask(self) -> None:
        try:
            self._keys = await self._fetch(self._issuer)
        except Unavailable as fault:
            _log.warning("the issuer %s %s", self._issuer, fault.message)
            self._reason = f"it {fault.message}"
            self._next = self._clock() + PAUSE_AFTER_FAILURE
        else:
            self._fetched = self._clock()
            self._next = self._fetched + PAUSE


async def fetch_keys(issuer: str) -> Sequence[Key]:
    """Every key of the issuer that may sign. Raises Unavailable, whose message goes on after the issuer's name."""
    try:
        async with asyncio.timeout(SECONDS), _open_session() as session:
            # "any terminating / MUST be removed before appending"
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            discovery = _decode(await _get(session, url), _Discovery)
            if discovery.issuer != issuer:
                raise Unavailable("has a discovery document of another issuer")
            if not _may_lead_to(issuer, discovery.jwks_uri):
                raise Unavailable("leads to keys that do not come by https")
            return _list_keys(_decode(await _get(session, discovery.jwks_uri), _KeySet))
    except TimeoutError:
        raise Unavailable(f"did not answer within {SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as fault:
        raise Unavailable(f"cannot be reached ({type(fault).__name__})") from None


def _open_session() -> aiohttp.ClientSession:
    """For a few requests in an hour; nothing of one remains for the next."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"pypiserver-ng/{__version__}",
        },
        auto_decompress=False,
    )


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False, proxy=_choose_proxy(url)) as response:
        if response.status != 200:
            # A redirect is none either: nobody but the issuer may say which keys are its own.
            raise Unavailable(f"answered {response.status}")
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > LONGEST:
                raise Unavailable(f"sent more than {LONGEST // 2**20} MiB")
        return bytes(body)


def _choose_proxy(url: str) -> str | None:
    """The client would find it by itself, but send the issuer credentials from the netrc file as well."""
    parts = urlsplit(url)
    # Plain http goes to this machine.
    if parts.scheme == "http" or proxy_bypass(parts.netloc):
        return None
    found = getproxies()
    return found.get("https", found.get("all"))


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("sent something else than its specification says") from None


def _may_lead_to(issuer: str, url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    return parts.scheme == "http" and issuer.startswith("http:") and is_loopback(parts.hostname or "")


def _list_keys(found: _KeySet) -> list[Key]:
    """Those for signatures. Of a private key that somebody published nothing is believed."""
    usable = [jwk for jwk in found.keys if jwk.get("use", "sig") == "sig" and "d" not in jwk]
    return [Key(jwk["kid"] if isinstance(jwk.get("kid"), str) else None, jwk) for jwk in usable]
