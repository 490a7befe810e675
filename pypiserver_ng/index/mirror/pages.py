"""Pages of other indexes: kept, asked for again when they are old, answered from memory meanwhile.

An old page is answered at once where the upstream is slow or fails, and fetched behind. One request at a time goes
to an upstream for a project, from whatever process. What is on the disk is the truth; memory follows it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pypiserver_ng.errors import Unavailable, UpstreamFailed
from pypiserver_ng.index.following import Flights
from pypiserver_ng.index.mirror.faults import Faults
from pypiserver_ng.index.mirror.record import (
    Record,
    absent_record,
    decode_record,
    digest_body,
    encode_record,
    merge_record,
)
from pypiserver_ng.index.pagecache import MOST_UPSTREAM_FILES, Recent
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.model import NormalizedName, UpstreamPage
from pypiserver_ng.storage import Cache, Partial, Stamp
from pypiserver_ng.upstream.addresses import Upstream
from pypiserver_ng.upstream.client import NotModified, UpstreamClient
from pypiserver_ng.upstream.parsing import RawPage, parse_page

_log = logging.getLogger(__name__)

#: How long a page that is old is held back for a newer one, in seconds since that was asked for.
_PATIENCE_SECONDS = 0.5
#: The same for who asked for the newest by name.
_REFRESH_PATIENCE_SECONDS = 2.0
#: Nobody gets a page asked for again that was asked for less than so many seconds ago.
_REFRESH_SECONDS = 10.0
#: How long an upstream is believed that it has no such project.
_ABSENT_SECONDS = 10.0
#: How often a process looks whether another is done with what it fetches.
_POLL_SECONDS = 0.02
#: How long another process is waited for that asks for the same; longer than an upstream may take for a page.
_HUNG_SECONDS = 75.0
#: In place of an inode.
_IN_MEMORY = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """One upstream's word as it is kept, and when that was last confirmed (seconds since 1970)."""

    record: Record
    stamp: Stamp
    #: The cache's generation when the disk was last looked at.
    generation: int

    @property
    def is_on_disk(self) -> bool:
        return self.stamp[0] != _IN_MEMORY

    @property
    def checked(self) -> float:
        return self.stamp[1] / 10**9

    def fresh_until(self, max_age: float) -> float:
        return self.checked + (max_age if self.record.page is not None else min(max_age, _ABSENT_SECONDS))

    def is_fresh(self, max_age: float, now: float) -> bool:
        # A time in the future is from another clock, and says nothing.
        return self.checked <= now < self.fresh_until(max_age)

    @property
    def weight(self) -> int:
        listed = len(self.record.page.files) if self.record.page else 0
        return 1 + listed + len(self.record.gone)


class Pages:
    """Used on the event loop; what blocks runs in `threads`."""

    def __init__(
        self,
        cache: Cache,
        client: UpstreamClient,
        threads: Threads,
        flights: Flights,
        *,
        offline: bool,
    ) -> None:
        self._cache = cache
        self._client = client
        self.threads = threads
        self._flights = flights
        self._offline = offline
        self._faults = Faults()
        self._kept: Recent[tuple[str, NormalizedName], Kept] = Recent(MOST_UPSTREAM_FILES)
        #: When each page that is being asked for was (monotonic).
        self._began: dict[tuple[str, NormalizedName], float] = {}
        #: As last seen; whoever remembers something compares.
        self.generation = cache.generation()

    async def get(self, upstream: Upstream, name: NormalizedName, max_age: float, *, refresh: bool = False) -> Kept:
        """The upstream's word, not older than `max_age` seconds if it can be had in time. Raises UpstreamFailed.

        With `refresh` it is asked in any case, though not more often than every ten seconds.
        """
        kept = await self.peek(upstream, name)
        now = time.time()
        if kept and kept.is_fresh(min(max_age, _REFRESH_SECONDS) if refresh else max_age, now):
            return kept
        if self._offline:
            return kept or Kept(absent_record(None, upstream.public_url), (_IN_MEMORY, 0), self.generation)
        usable = kept if kept and kept.record.page is not None else None
        if fault := self._faults.find(upstream.key, name):
            if usable is None:
                raise fault
            return usable
        flight = self._launch(upstream, name)
        if usable is None:
            return await asyncio.shield(flight)
        patience = _REFRESH_PATIENCE_SECONDS if refresh else _PATIENCE_SECONDS
        remaining = self._began.get((upstream.key, name), 0.0) + patience - time.monotonic()
        await asyncio.wait({flight}, timeout=max(remaining, 0))
        if flight.done() and not flight.cancelled() and flight.exception() is None:
            return flight.result()
        return usable

    async def peek(self, upstream: Upstream, name: NormalizedName) -> Kept | None:
        """What is kept, however old. Nothing is asked."""
        kept = self._kept.get((upstream.key, name))
        if kept is not None and kept.generation == self.generation:
            return kept
        return await self._load(upstream, name)

    async def _load(self, upstream: Upstream, name: NormalizedName) -> Kept | None:
        known = self._kept.get((upstream.key, name))
        read = partial(self.threads.run, self._read, upstream, name, known)
        kept = await self._flights.join(("read", upstream.key, name), read)
        if kept is None:
            self._kept.drop((upstream.key, name))
            return None
        return self._remember(upstream, name, kept)

    def _read(self, upstream: Upstream, name: NormalizedName, known: Kept | None = None) -> Kept | None:
        """What is on the disk; in a thread."""
        generation = self.generation
        if known is not None and self._cache.page_stamp(upstream.key, name) == (
            known.stamp if known.is_on_disk else None
        ):
            return Kept(known.record, known.stamp, generation)
        found = self._cache.read_page(upstream.key, name)
        record = decode_record(found[0]) if found else None
        return Kept(record, found[1], generation) if found and record else None

    def _remember(self, upstream: Upstream, name: NormalizedName, kept: Kept) -> Kept:
        self._kept.put((upstream.key, name), kept, kept.weight)
        return kept

    def follow(self) -> None:
        """Notice what other processes and commands did. Blocking, but short."""
        self.generation = self._cache.generation()

    async def learn(
        self, upstream: Upstream, name: NormalizedName, change: Callable[[Record], Record]
    ) -> Record | None:
        """Add to a record what fetching a file told; None where nothing is kept of the project."""

        def add() -> Kept | None:
            with self._cache.lock:
                kept = self._read(upstream, name)
                if kept is None:
                    return None
                record = change(kept.record)
                return kept if record == kept.record else self._write(upstream, name, record, checked=kept.stamp[1])

        try:
            kept = await self.threads.run(add)
        except TimeoutError as fault:
            raise Unavailable("the cache cannot be written just now", retry_after=10) from fault
        return self._remember(upstream, name, kept).record if kept else None

    # Asking

    def _launch(self, upstream: Upstream, name: NormalizedName) -> asyncio.Task[Kept]:
        key = (upstream.key, name)
        began = time.time()
        self._began.setdefault(key, time.monotonic())
        flight = self._flights.launch(("upstream page", *key), lambda: self._ask(upstream, name, began))
        flight.add_done_callback(lambda _: self._began.pop(key, None))
        return flight

    async def _ask(self, upstream: Upstream, name: NormalizedName, began: float) -> Kept:
        turn = await self._take_turn(f"page-{digest_body(b'', upstream.key, name)}")
        try:
            kept = await self._load(upstream, name)
            if kept and began <= kept.checked <= time.time():
                return kept  # another process was quicker
            if fault := self._faults.find(upstream.key, name):
                # Somebody met it while we waited for our turn.
                raise fault
            record = kept.record if kept else None
            has_page = record is not None and record.page is not None
            answer = await self._client.fetch_page(
                upstream,
                name,
                record.etag if record and has_page else None,
                record.last_modified if record and has_page else None,
            )
            self._faults.forget(upstream.key, name)
            _log.info("%s was asked for %s: %s, %.0f ms", upstream.name, name, _name_answer(answer), _elapsed(began))
            return self._remember(upstream, name, await self.threads.run(self._keep, upstream, name, answer, record))
        except UpstreamFailed as fault:
            self._faults.remember(upstream.key, name, fault)
            _log.warning("%s of %s: %s", name, upstream.name, fault.message)
            raise
        except Exception:
            # Perhaps nobody waits for this flight.
            _log.exception("asking %s for %s failed", upstream.name, name)
            raise UpstreamFailed(f"what {upstream.name} has of {name} could not be read") from None
        finally:
            if turn is not None:
                await self.threads.run(_give_back, turn)

    async def _take_turn(self, key: str) -> Partial | None:
        """Keep other processes from asking for the same; None where locks cannot be had, or one hangs with it."""
        deadline = time.monotonic() + _HUNG_SECONDS
        while time.monotonic() < deadline:
            try:
                turn = await self.threads.run(self._cache.begin, key)
            except OSError as fault:
                _log.warning("the cache cannot be written: %s", fault.strerror)
                return None
            if turn.is_ours:
                return turn
            try:
                while time.monotonic() < deadline and not await self.threads.run(turn.is_over):  # noqa: ASYNC110
                    # Another process tells nobody.
                    await asyncio.sleep(_POLL_SECONDS)
            finally:
                turn.close()
        return None

    def _keep(
        self, upstream: Upstream, name: NormalizedName, answer: RawPage | NotModified | None, known: Record | None
    ) -> Kept:
        """What the answer makes of the record; in a thread."""
        page = None
        if isinstance(answer, RawPage):
            digest = digest_body(answer.content, answer.content_type, answer.url)
            if known is None or known.page is None or known.body_digest != digest:
                page = parse_page(answer, name)
        try:
            with self._cache.lock:
                kept = self._read(upstream, name)
                old = kept.record if kept else None
                record = self._change(upstream, name, answer, page, old)
                if record == old:
                    return self._confirm(upstream, name, record)
                if record.page is None and old is None:
                    # Anybody can make up names: those leave nothing on the disk.
                    return Kept(record, (_IN_MEMORY, time.time_ns()), self.generation)
                return self._write(upstream, name, record)
        except TimeoutError as fault:
            # Somebody holds the lock for too long. The page can be answered all the same.
            _log.warning("what %s says of %s cannot be kept: %s", upstream.name, name, fault.strerror)
            record = self._change(upstream, name, answer, page, known)
            return Kept(record, (_IN_MEMORY, time.time_ns()), self.generation)

    def _change(
        self,
        upstream: Upstream,
        name: NormalizedName,
        answer: RawPage | NotModified | None,
        page: UpstreamPage | None,
        old: Record | None,
    ) -> Record:
        """The record after the answer; `page` is what was read of it, where it seemed to be new."""
        if answer is None:
            return absent_record(old, upstream.public_url)
        if isinstance(answer, NotModified):
            if old is None or old.page is None:
                raise UpstreamFailed(f"{upstream.name} says that a page did not change which is not here any more")
            return old
        digest = digest_body(answer.content, answer.content_type, answer.url)
        if page is None and old is not None and old.page is not None and old.body_digest == digest:
            return old
        record = merge_record(
            old,
            upstream.public_url,
            page or parse_page(answer, name),
            etag=answer.etag,
            last_modified=answer.last_modified,
            body_digest=digest,
        )
        self._tell_refused(upstream, name, record, old)
        return record

    def _confirm(self, upstream: Upstream, name: NormalizedName, record: Record) -> Kept:
        stamp = None
        try:
            stamp = self._cache.confirm_page(upstream.key, name)
        except OSError as fault:
            _log.warning("what %s says of %s cannot be kept: %s", upstream.name, name, fault.strerror)
        return Kept(record, stamp or (_IN_MEMORY, time.time_ns()), self.generation)

    def _write(self, upstream: Upstream, name: NormalizedName, record: Record, checked: int | None = None) -> Kept:
        stamp = (_IN_MEMORY, time.time_ns())
        try:
            stamp = self._cache.write_page(upstream.key, name, encode_record(record), checked)
            # What is remembered here has to be looked at again at once; other processes follow.
            self.follow()
        except OSError as fault:
            # It can be answered all the same.
            _log.warning("what %s says of %s cannot be kept: %s", upstream.name, name, fault.strerror)
        return Kept(record, stamp, self.generation)

    @staticmethod
    def _tell_refused(upstream: Upstream, name: NormalizedName, record: Record, old: Record | None) -> None:
        """One line for each page, however many its files are."""
        before = old.refused if old else {}
        new = [filename for filename, digest in record.refused.items() if before.get(filename) != digest]
        if new:
            more = f" and {len(new) - 1} more files" if len(new) > 1 else ""
            _log.warning(
                "%s of %s: %s%s: other bytes than were first seen (now %s) are refused",
                name,
                upstream.name,
                new[0],
                more,
                record.refused[new[0]],
            )


def _name_answer(answer: RawPage | NotModified | None) -> str:
    if isinstance(answer, RawPage):
        return f"{len(answer.content)} bytes"
    return "not there" if answer is None else "nothing new"


def _elapsed(began: float) -> float:
    """Milliseconds."""
    return (time.time() - began) * 1000


def _give_back(turn: Partial) -> None:
    turn.give_up()
    turn.close()
