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
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pypiserver_ng.auth.htpasswd import PasswordFile
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

_NOT_BASIC = "Only HTTP Basic authentication is understood here; send a user name and a password."
_MALFORMED = 'The Authorization header cannot be read; send "Basic" and the base64 form of user:password.'
_WRONG = "Wrong user name or password; check the credentials that your client keeps for this index."
_BUSY = "Too many passwords are being checked at this moment; try again in a second."


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: str = field(repr=False)


def read_basic(header: bytes) -> Credentials:
    """Read the value of an Authorization header by RFC 7617. Raises Unauthenticated.

    "the user-id and password MUST NOT contain any control characters" is left to the password file: what is
    not in it does not match. Text that is not UTF-8 is taken as latin-1, which some clients send.
    """
    scheme, _, token = header.strip(b" \t").partition(b" ")
    if scheme.lower() != b"basic":
        raise Unauthenticated(_NOT_BASIC)
    try:
        pair = base64.b64decode(token.strip(b" "), validate=True)
    except binascii.Error:
        raise Unauthenticated(_MALFORMED) from None
    try:
        text = pair.decode()
    except UnicodeDecodeError:
        text = pair.decode("latin-1")
    user, colon, password = text.partition(":")
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
    """Answers who sends a header, by one password file. Belongs to one event loop.

    Verified credentials are remembered under an HMAC of the header with a key of this process, together with
    the stored hash: a changed password or a removed user is refused as soon as the new content of the file is
    loaded. Refused credentials are not remembered, since a user may be added at any moment. `clock` gives
    monotonic seconds.
    """

    def __init__(self, passwords: PasswordFile, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._passwords = passwords
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._flights: dict[bytes, asyncio.Task[_Verified | None]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")

    def peek(self, header: bytes | None) -> Identity | None:
        """Answer from memory alone, in microseconds; None means that the header must be verified."""
        if header is None:
            return ANONYMOUS
        key = self._digest(header)
        verified = self._verified.get(key)
        if verified is None:
            return None
        if self._clock() >= verified.expires or not self._is_current(verified):
            del self._verified[key]
            return None
        self._verified.move_to_end(key)
        return verified.identity

    def remember(self, header: bytes) -> Callable[[], bool]:
        """Tells later whether `peek` would still know the header, for less than reading it again costs."""
        verified = self._verified.get(self._digest(header))
        if verified is None:
            return lambda: False
        return lambda: self._clock() < verified.expires and self._is_current(verified)

    async def identify(self, header: bytes | None) -> Identity:
        """Answer who sends this header; ANONYMOUS without one.

        Raises Unauthenticated for a header that cannot be read and for wrong credentials, Unavailable when too
        many verifications wait already. Requests that bring the same header at once share one verification.
        """
        if header is None:
            return ANONYMOUS
        identity = self.peek(header)
        if identity is not None:
            return identity
        key = self._digest(header)
        flight = self._flights.get(key) or self._start(key, read_basic(header))
        # Shielded, since the others still wait for it when this request's client goes away.
        verified = await asyncio.shield(flight)
        if verified is None:
            raise Unauthenticated(_WRONG)
        return verified.identity

    async def watch(self, interval: float = 0.5) -> None:
        """Follow changes of the password file until cancelled; `interval` in seconds."""
        while True:
            await asyncio.sleep(interval)
            await asyncio.to_thread(self._passwords.refresh)

    def close(self) -> None:
        """End the threads; verifications that still wait are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _digest(self, header: bytes) -> bytes:
        return hmac.digest(self._key, header, "sha256")

    def _is_current(self, verified: _Verified) -> bool:
        user = verified.identity.user
        return user is not None and self._passwords.current.get_hash(user) == verified.hash

    def _start(self, key: bytes, credentials: Credentials) -> "asyncio.Task[_Verified | None]":
        if len(self._flights) >= THREADS + WAITING:
            raise Unavailable(_BUSY, retry_after=1)
        flight = asyncio.create_task(self._verify(key, credentials))
        self._flights[key] = flight
        flight.add_done_callback(lambda _: self._flights.pop(key))
        return flight

    async def _verify(self, key: bytes, credentials: Credentials) -> _Verified | None:
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(self._threads, self._match, credentials)
        if stored is None:
            return None
        verified = _Verified(Identity(credentials.user), stored, self._clock() + LIFETIME)
        if not self._is_current(verified):
            return None  # the file changed while the password was hashed
        self._verified[key] = verified
        while len(self._verified) > CAPACITY:
            self._verified.popitem(last=False)
        return verified

    def _match(self, credentials: Credentials) -> str | None:
        """The stored hash that the password matches, else None. Runs in a thread.

        Before a refusal the file is looked at once more: its user may have been added a moment ago.
        """
        passwords = self._passwords.current
        while not passwords.verify(credentials.user, credentials.password):
            fresh = self._passwords.refresh()
            if fresh is passwords:
                return None
            passwords = fresh
        return passwords.get_hash(credentials.user)
