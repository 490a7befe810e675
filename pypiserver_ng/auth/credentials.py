"""From an Authorization header to an Identity, and what is remembered on the way.

Holds the reading of the header, the threads that verify passwords and the memory of verified credentials.
Must not know which action asks, or what happens with a refusal.
"""

import asyncio
import base64
import binascii
import hmac
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pypiserver_ng.auth.htpasswd import PasswordFile
from pypiserver_ng.auth.throttle import Throttle, network_of
from pypiserver_ng.auth.tokens import USER, TokenBook
from pypiserver_ng.errors import Unauthenticated, Unavailable
from pypiserver_ng.model import ANONYMOUS, Identity

#: Seconds for which verified credentials are believed without hashing the password again.
LIFETIME = 60.0
#: How many verified credentials are remembered; the least recently used go first.
CAPACITY = 1024
#: Verifying is slow on purpose (bcrypt 12: a quarter of a second of one core); two leave room for the rest.
THREADS = 2
#: How many verifications may wait for a thread before newcomers are asked to come back.
WAITING = 64
#: How many of them one network may have: whoever guesses leaves room for others.
SHARE = 16

_UNKNOWN_SCHEME = "Only HTTP Basic authentication and Bearer are understood here; send a user name and a password."
_MALFORMED = 'The Authorization header cannot be read; send "Basic" and the base64 form of user:password.'
_NO_PASSWORDS = (
    "This server has no password file, so that no password is right: send a token, or have its operator give it a file "
    "with --passwords."
)
_NOT_VALID = "This token is not valid: it is unknown, expired or revoked; ask the operator of this index for another."
_WRONG = "Wrong user name or password; check the credentials that your client keeps for this index."
_BUSY = "Too many passwords are being checked at this moment; try again in a second."


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: str = field(repr=False)


def read_authorization(header: bytes) -> Credentials:
    """Read the value of an Authorization header; a token is the password of `tokens.USER`. Raises Unauthenticated.

    Bearer is RFC 6750. Basic is RFC 7617, where "the user-id and password MUST NOT contain any control characters"
    is left to the password file: what is not in it does not match. Text that is not UTF-8 is taken as latin-1, which
    some clients send.
    """
    scheme, _, text = header.strip(b" \t").partition(b" ")
    match scheme.lower():
        case b"basic":
            return _read_basic(text.strip(b" "))
        case b"bearer" | b"token":
            return Credentials(USER, text.strip(b" ").decode("latin-1"))
    raise Unauthenticated(_UNKNOWN_SCHEME)


def _read_basic(text: bytes) -> Credentials:
    try:
        pair = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Unauthenticated(_MALFORMED) from None
    try:
        line = pair.decode()
    except UnicodeDecodeError:
        line = pair.decode("latin-1")
    user, colon, password = line.partition(":")
    if not colon:
        raise Unauthenticated(_MALFORMED)
    return Credentials(user, password)


@dataclass(frozen=True, slots=True)
class _Verified:
    identity: Identity
    #: The hash that the password matched; another one in the file ends the belief.
    hash: str = field(repr=False)
    #: On the authenticator's clock.
    expires: float


class Authenticator:
    """Answers who sends a header, by one password file and the tokens. Belongs to one event loop.

    Verified credentials are remembered under an HMAC of the header with a key of this process, together with
    the stored hash: a changed password or a removed user is refused as soon as the new content of the file is
    loaded. Refused credentials are not remembered, since a user may be added at any moment. Tokens are looked up each
    time. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        passwords: PasswordFile | None,
        tokens: TokenBook | None = None,
        throttle: Throttle | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `tokens`, none is valid; without `throttle`, anybody may guess."""
        self._passwords = passwords
        self._tokens = tokens
        self._throttle = throttle
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._flights: dict[bytes, asyncio.Task[_Verified | None]] = {}
        #: How many of them each network has started; those of nobody in particular are not counted.
        self._flying: Counter[str | None] = Counter()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")

    @property
    def has_passwords(self) -> bool:
        return self._passwords is not None

    def peek(self, header: bytes | None) -> Identity | None:
        """Answer from memory alone, in microseconds; None means that the header must be verified."""
        if header is None:
            return ANONYMOUS
        identity = self._peek_verified(header) if self._is_calm() else None
        return identity or self._peek_token(header)

    def _is_calm(self) -> bool:
        """Whether nobody is locked out. Otherwise it counts from where a header comes."""
        return self._throttle is None or self._throttle.is_calm()

    def _peek_verified(self, header: bytes) -> Identity | None:
        key = self._digest(header)
        verified = self._verified.get(key)
        if verified is None:
            return None
        if self._clock() >= verified.expires or not self._is_current(verified):
            del self._verified[key]
            return None
        self._verified.move_to_end(key)
        return verified.identity

    def recognize(self, header: bytes) -> Identity | None:
        """Who sends a header that was verified, for the record of what they were refused; also while somebody waits."""
        return self._peek_verified(header) or self._peek_token(header)

    def note_use(self, identity: Identity, address: str | None) -> None:
        """Who was identified did something, from there."""
        if identity.token is not None and self._tokens is not None:
            self._tokens.note_use(identity.token, address)

    def remember(self, header: bytes) -> Callable[[], bool]:
        """Tells later whether `peek` would still know the header, for less than reading it again costs."""
        verified = self._verified.get(self._digest(header))
        if verified is None:
            identity = self._peek_token(header)
            if identity is None or identity.token is None or self._tokens is None:
                return lambda: False
            return self._tokens.remember(identity.token)
        return lambda: self._clock() < verified.expires and self._is_current(verified) and self._is_calm()

    async def identify(self, header: bytes | None, address: str | None = None) -> Identity:
        """Answer who sends this header, from that address; ANONYMOUS without one.

        Raises Unauthenticated for a header that cannot be read and for wrong credentials, TooMany after many of these,
        Unavailable when too many verifications wait already. Requests that bring the same header at once share one
        verification.
        """
        if header is None:
            return ANONYMOUS
        identity = self.peek(header)
        if identity is not None:
            return identity
        credentials = read_authorization(header)
        if credentials.user == USER:
            return await self._find_token(credentials.password)
        if self._passwords is None:
            raise Unauthenticated(_NO_PASSWORDS)
        if self._throttle is not None:
            self._throttle.check(address, credentials.user)
            if (known := self._peek_verified(header)) is not None:
                return known
        key = self._digest(header)
        flight, is_joined = self._flights.get(key), True
        if flight is None:
            flight, is_joined = self._start(key, credentials, self._passwords, address), False
        # Shielded, since the others still wait for it when this request's client goes away.
        verified = await asyncio.shield(flight)
        if verified is None:
            # A client that asks for much at once guessed once.
            if self._throttle is not None and not is_joined:
                self._throttle.fail(address, credentials.user)
            raise Unauthenticated(_WRONG)
        if self._throttle is not None:
            # Of many guesses at once, none may be right after too many were wrong.
            self._throttle.check(address, credentials.user)
            self._throttle.forget(address, credentials.user)
        return verified.identity

    async def watch(self, interval: float = 0.5) -> None:
        """Follow changes of the password file until cancelled; `interval` in seconds."""
        while self._passwords is not None:
            await asyncio.sleep(interval)
            await asyncio.to_thread(self._passwords.refresh)

    def close(self) -> None:
        """End the threads; verifications that still wait are cancelled. Blocks until uses of tokens are written."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._tokens is not None:
            self._tokens.close()

    def _peek_token(self, header: bytes) -> Identity | None:
        if self._tokens is None or not self._tokens.is_current():
            return None
        try:
            credentials = read_authorization(header)
        except Unauthenticated:
            return None
        token = self._tokens.find(credentials.password) if credentials.user == USER else None
        return Identity(token.user, token) if token else None

    async def _find_token(self, text: str) -> Identity:
        """Raises Unauthenticated and Unavailable."""
        token = await self._tokens.look_up(text) if self._tokens is not None else None
        if token is None:
            raise Unauthenticated(_NOT_VALID)
        return Identity(token.user, token)

    def _digest(self, header: bytes) -> bytes:
        return hmac.digest(self._key, header, "sha256")

    def _is_current(self, verified: _Verified) -> bool:
        user = verified.identity.user
        passwords = self._passwords
        return user is not None and passwords is not None and passwords.current.get_hash(user) == verified.hash

    def _start(
        self, key: bytes, credentials: Credentials, file: PasswordFile, address: str | None
    ) -> "asyncio.Task[_Verified | None]":
        network = None if address is None else network_of(address)
        if len(self._flights) >= THREADS + WAITING or self._flying[network] >= SHARE:
            raise Unavailable(_BUSY, retry_after=1)
        flight = asyncio.create_task(self._verify(key, credentials, file))
        self._flights[key] = flight
        if network is not None:
            self._flying[network] += 1
        flight.add_done_callback(lambda _: self._land(key, network))
        return flight

    def _land(self, key: bytes, network: str | None) -> None:
        del self._flights[key]
        if network is not None:
            self._flying[network] -= 1
            if not self._flying[network]:
                del self._flying[network]

    async def _verify(self, key: bytes, credentials: Credentials, file: PasswordFile) -> _Verified | None:
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(self._threads, _match, credentials, file)
        if stored is None:
            return None
        verified = _Verified(Identity(credentials.user), stored, self._clock() + LIFETIME)
        if not self._is_current(verified):
            return None  # the file changed while the password was hashed
        self._verified[key] = verified
        while len(self._verified) > CAPACITY:
            self._verified.popitem(last=False)
        return verified


def _match(credentials: Credentials, file: PasswordFile) -> str | None:
    """The stored hash that the password matches, else None. Runs in a thread.

    Before a refusal the file is looked at once more: its user may have been added a moment ago.
    """
    passwords = file.current
    while not passwords.verify(credentials.user, credentials.password):
        fresh = file.refresh()
        if fresh is passwords:
            return None
        passwords = fresh
    return passwords.get_hash(credentials.user)
