"""Tokens: bearers of rights that are no persons, by the text that their owners send.

Holds the form of that text and the tokens that are valid now. Must not know where they are kept, nor what they may do.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pypiserver_ng.errors import Failure
from pypiserver_ng.model import Action, Token

#: The user name that stands for a token, as on the public index.
USER = "__token__"

_PREFIX = "pypi-ng-"
_TEXT = re.compile(rf"{_PREFIX}([0-9a-f]{{16}})-([A-Za-z0-9_-]{{43}})")
#: How exact the last use of a token is known.
_USE_INTERVAL = timedelta(minutes=1)
#: How long uses are gathered before they are written down, in seconds.
_GATHER_SECONDS = 0.1


class TokenStore(Protocol):
    """Where tokens are kept. What blocks is called in a thread."""

    def is_still(self, serial: int) -> bool:
        """Whether nothing changed since `serial`; costs a microsecond."""

    def load(self, version: int) -> tuple[int, int, Sequence[Token] | None]:
        """The serial, the number of the last change of tokens, and all tokens; None if that number is `version`.

        Blocks. Raises Unavailable.
        """

    def note_uses(self, uses: Mapping[str, datetime]) -> None:
        """Write down when tokens were used last, by id. Blocks. Raises Failure."""


def make_token(
    name: str,
    projects: tuple[str, ...],
    actions: frozenset[Action],
    now: datetime,
    lifetime: timedelta | None = None,
    until_version: str | None = None,
) -> tuple[Token, str]:
    """A new token, and the text that only its owner is told."""
    number, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    expires = now + lifetime if lifetime is not None else None
    token = Token(number, name, _hash(secret), projects, actions, now, expires, until_version)
    return token, f"{_PREFIX}{number}-{secret}"


@dataclass(frozen=True, slots=True)
class _Known:
    serial: int
    version: int
    tokens: Mapping[str, Token] = field(repr=False)


class TokenBook:
    """The tokens that are valid now. Belongs to one event loop.

    What was made or revoked before a question counts in its answer: the store's serial tells of every change.
    """

    def __init__(
        self,
        store: TokenStore,
        tell: Callable[[Token, str | None], None] = lambda _token, _address: None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`tell` hears of uses: by which token, and from where; once a minute of each token."""
        self._store = store
        self._tell = tell
        self._clock = clock
        self._known = _Known(-1, -1, {})
        self._loading: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        #: When each was used last, as it was written down.
        self._used: dict[str, datetime] = {}
        self._uses: dict[str, datetime] = {}
        self._writing: asyncio.Task[None] | None = None

    def is_current(self) -> bool:
        """Whether what `find` says holds at this moment."""
        return self._store.is_still(self._known.serial)

    async def refresh(self) -> None:
        """Learn of every change that was committed before the call. Raises Unavailable."""
        if self._loading is not None:
            # It began before the call, and what it read may be older.
            await asyncio.wait({self._loading})
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(self._forget_loading)
        # Shielded, since others wait for it too when this request's client goes away.
        await asyncio.shield(self._loading)

    async def look_up(self, text: str) -> Token | None:
        """As `find`, as of now. Raises Unavailable."""
        if not self.is_current():
            await self.refresh()
        return self.find(text)

    def find(self, text: str) -> Token | None:
        """The valid token that this text is; None where it is none."""
        now = self._clock()
        match = _TEXT.fullmatch(text)
        token = self._known.tokens.get(match[1]) if match else None
        if match is None or token is None or not hmac.compare_digest(_hash(match[2]), token.hash):
            return None
        return token if token.expires is None or now < token.expires else None

    def note_use(self, token: Token, address: str | None) -> None:
        """Somebody did something with it from this address; soon it is written down, once a minute."""
        now = self._clock()
        if (last := self._used.get(token.id)) is not None and now - last < _USE_INTERVAL:
            return
        self._tell(token, address)
        self._used[token.id] = self._uses[token.id] = now
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    def remember(self, token: Token) -> Callable[[], bool]:
        """Tells later whether the token still is valid, for less than finding it costs.

        That it is used has to be noted now and then: until then only.
        """
        known, end = self._known, self._used.get(token.id, token.created) + _USE_INTERVAL
        if token.expires is not None:
            end = min(end, token.expires)

        def is_valid() -> bool:
            return known is self._known and self._clock() < end and self._store.is_still(known.serial)

        return is_valid

    def close(self) -> None:
        """Write down what was used last, and end."""
        self._thread.submit(self._write_uses)
        self._thread.shutdown()

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        serial, version, tokens = await loop.run_in_executor(self._thread, self._store.load, self._known.version)
        if tokens is None:
            self._known = replace(self._known, serial=serial)
        else:
            self._known = _Known(serial, version, {token.id: token for token in tokens})
            self._used = {number: used for number, used in self._used.items() if number in self._known.tokens}

    def _forget_loading(self, _task: "asyncio.Task[None]") -> None:
        self._loading = None

    async def _write_soon(self) -> None:
        # What is used while others are written must not wait for the next use.
        while self._uses:
            await asyncio.sleep(_GATHER_SECONDS)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write_uses)

    def _write_uses(self) -> None:
        uses, self._uses = self._uses, {}
        if uses:
            try:
                self._store.note_uses(uses)
            except Failure:
                # The catalog has said so in the log; the next use is written.
                for number in uses:
                    self._used.pop(number, None)


def _hash(secret: str) -> bytes:
    # The secret is random and long: nobody finds it by trying, so that one round is enough.
    return hashlib.sha256(secret.encode()).digest()
