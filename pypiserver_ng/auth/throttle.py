"""Who guesses has to wait: failed passwords are counted for each pair of an address and a user.

Holds the count, in memory that all processes of a server share. Must not know passwords, headers, or who was right.

One address may fail with many users, and one user from many addresses, without harm to anybody else: a lock that
strangers can turn is worse than none. The table is of fixed size and no process waits for another, so that a flood or a
race may cost a count, but never adds one to somebody else's.
"""

import ipaddress
import math
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from pypiserver_ng.errors import TooMany

#: So many failures are answered as such, and the next is too many.
MOST = 10
#: Seconds for which a failure counts.
WINDOW = 300

#: At the start of the memory: a key of 16 random bytes, and until when somebody may be locked out.
_KEY_WORDS, _LOCKED = 2, 2
_HEAD = 3
#: A slot is a fingerprint, 0 where it is free, and the times of the last failures in milliseconds, 0 for none.
_TIMES = MOST + 1
_WIDTH = 1 + _TIMES
#: Slots in which one pair may lie.
_WAYS = 8
_WINDOW_MS = WINDOW * 1000


class Throttle:
    """`memory` is that of `counters.Board`; `clock` gives seconds, the same in every process."""

    def __init__(self, memory: memoryview, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory = memory
        self._clock = clock
        self._key = memory[:_KEY_WORDS].tobytes()
        self._buckets = (len(memory) - _HEAD) // (_WIDTH * _WAYS)

    def is_calm(self) -> bool:
        """Whether nobody at all is locked out, so that `check` need not be asked; costs half a microsecond."""
        return self._memory[_LOCKED] <= self._now()

    def check(self, address: str | None, user: str) -> None:
        """Raises TooMany while nothing that this address sends for the user may be looked at, right or wrong."""
        slot = self._find(*self._mark(address, user))
        if slot is not None:
            self._judge(slot, self._now())

    def fail(self, address: str | None, user: str) -> None:
        """Count a wrong password. Raises TooMany where it was one too many."""
        bucket, fingerprint = self._mark(address, user)
        now = self._now()
        slot = self._find(bucket, fingerprint)
        if slot is None:
            slot = self._claim(bucket, fingerprint, now)
        times = self._times(slot)
        # The oldest makes room: with eleven in the window, they are too many.
        self._memory[slot + 1 + times.index(min(times))] = now
        self._judge(slot, now)

    def forget(self, address: str | None, user: str) -> None:
        """A right password: what failed before it was a slip."""
        slot = self._find(*self._mark(address, user))
        if slot is not None:
            self._empty(slot)

    def _now(self) -> int:
        # 0 stands for none.
        return int(self._clock() * 1000) + 1

    def _mark(self, address: str | None, user: str) -> tuple[int, int]:
        """Where a pair's slots begin, and its fingerprint. Without the key nobody can choose whom to collide with."""
        text = f"{network_of(address or '')}\0{user}".encode("utf-8", "surrogatepass")
        digest = blake2b(text, digest_size=16, key=self._key).digest()
        bucket = int.from_bytes(digest[8:], "little") % self._buckets
        return _HEAD + bucket * _WAYS * _WIDTH, int.from_bytes(digest[:8], "little") or 1

    def _find(self, bucket: int, fingerprint: int) -> int | None:
        for slot in range(bucket, bucket + _WAYS * _WIDTH, _WIDTH):
            if self._memory[slot] == fingerprint:
                return slot
        return None

    def _claim(self, bucket: int, fingerprint: int, now: int) -> int:
        """A free slot, else that of the pair with the fewest failures, then the one whose last is longest ago."""

        def weigh(slot: int) -> tuple[int, int]:
            times = self._times(slot)
            return sum(now - time < _WINDOW_MS for time in times if time), max(times)

        slot = min(range(bucket, bucket + _WAYS * _WIDTH, _WIDTH), key=weigh)
        self._empty(slot)
        self._memory[slot] = fingerprint
        return slot

    def _empty(self, slot: int) -> None:
        self._memory[slot] = 0
        for cell in range(slot + 1, slot + _WIDTH):
            self._memory[cell] = 0

    def _times(self, slot: int) -> list[int]:
        return self._memory[slot + 1 : slot + _WIDTH].tolist()

    def _judge(self, slot: int, now: int) -> None:
        oldest = min(self._times(slot))
        wait = oldest + _WINDOW_MS - now
        if not oldest or wait <= 0:
            return
        # Longer than it may be: of two processes that write at once, one counts.
        self._memory[_LOCKED] = now + _WINDOW_MS
        # In minutes, so that the same refusal is the same text for a while.
        minutes = math.ceil(wait / 60_000)
        raise TooMany(
            "Too many wrong passwords for this user from this address; try again in "
            f"{'a minute' if minutes == 1 else f'{minutes} minutes'}.",
            retry_after=math.ceil(wait / 1000),
        )


@lru_cache(1024)
def network_of(address: str) -> str:
    """Whoever has an IPv6 address has its whole /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    # A dual-stack socket sees IPv4 peers as mapped addresses.
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed), 64), strict=False))
