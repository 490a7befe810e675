"""Trusted publishing: an issuer's identity token becomes a token of this index, once.

Holds the order of the steps and the refusals' codes, which are those of the public index. Must not know how a token
is verified, where used ones are kept, or HTTP.
"""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from pypiserver_ng.auth.throttle import network_of
from pypiserver_ng.errors import Invalid, TooMany
from pypiserver_ng.model import Publisher

_log = logging.getLogger(__name__)

#: For which a token is good that was made for a publisher.
LIFETIME = timedelta(minutes=15)
#: Refusals that one address may have within so many seconds.
MOST_REFUSALS = 30
WINDOW = 300.0
#: Addresses that are remembered; those that were refused longest ago go first.
_MOST_ADDRESSES = 4096


class Refused(Invalid):
    """No token for this one; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Verified:
    """What a sound identity token says."""

    #: Whom it speaks for, with the projects of all entries that it fits.
    publisher: Publisher
    #: The same for every copy of the token, and for no other token.
    key: str
    #: Until then it has to be known as used: longer than anybody takes it.
    expires: datetime

    @property
    def user(self) -> str:
        """Who acts with the token that it is changed for, as it is written down."""
        return f"publisher:{urlsplit(self.publisher.issuer).hostname}:{self.publisher.claims[0][1]}"


@dataclass(frozen=True, slots=True)
class Minted:
    text: str = field(repr=False)
    expires: datetime


Verify = Callable[[str], Awaitable[Verified]]
#: Notes the key of a token as used until then; false where it was used before, by any process.
Spend = Callable[[str, datetime], Awaitable[bool]]
#: Makes a token invalid that was made here; false where it is none such. And from where it was asked.
Burn = Callable[[str, str | None], Awaitable[bool]]
#: For the one that was verified; and from where it was asked.
Mint = Callable[[Verified, str | None], Awaitable[Minted]]


class Exchange:
    """Belongs to one event loop; `clock` gives monotonic seconds."""

    def __init__(
        self,
        publishers: Sequence[Publisher],
        verify: Verify,
        spend: Spend,
        mint: Mint,
        burn: Burn,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: Whom tokens have to be made out to. Clients can be told one only: that of the first entry.
        self.audience = publishers[0].audience
        self._verify = verify
        self._spend = spend
        self._mint = mint
        self._burn = burn
        self._refusals = _Refusals(clock)

    @contextmanager
    def counting(self, address: str | None) -> Iterator[None]:
        """What one caller is refused within the block is counted. Raises TooMany where that was too much already."""
        self._refusals.check(address)
        try:
            yield
        except Refused as refusal:
            self._refusals.count(address)
            # Only its code, since nobody vouches for what such a token says.
            _log.info("no token for a publisher from %s: %s", address, refusal.code)
            raise

    async def mint(self, text: str, address: str | None) -> Minted:
        """A token of this index for the issuer's. Raises Refused, and Failure where it cannot be told now."""
        verified = await self._verify(text)
        if not await self._spend(verified.key, verified.expires):
            raise Refused("invalid-reuse-token", "the token was used before: ask your issuer for a new one")
        minted = await self._mint(verified, address)
        _log.info("%s got a token for %s from %s", verified.user, ", ".join(verified.publisher.projects), address)
        return minted

    async def burn(self, text: str, address: str | None) -> None:
        """Make a token invalid that was got here, before its time. Raises Refused, and Failure."""
        if not await self._burn(text, address):
            raise Refused("invalid-token", "this is no valid token that was made for a publisher here")


class _Refusals:
    """Moments at which each address was refused something."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._moments: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str | None) -> None:
        """Raises TooMany."""
        moments = self._moments.get(network_of(address or ""))
        if moments is None or len(moments) < MOST_REFUSALS:
            return
        rest = moments[0] + WINDOW - self._clock()
        if rest > 0:
            raise TooMany("too many tokens were refused: mend what your issuer sends", retry_after=int(rest) + 1)

    def count(self, address: str | None) -> None:
        network = network_of(address or "")
        self._moments.setdefault(network, deque(maxlen=MOST_REFUSALS)).append(self._clock())
        self._moments.move_to_end(network)
        while len(self._moments) > _MOST_ADDRESSES:
            self._moments.popitem(last=False)
