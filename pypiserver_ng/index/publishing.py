"""Uploads that passed every check get their names and rows, all that wait at once. Blocking code, called in threads.

The disk takes as long for one as for many: whoever has the turn publishes for all who wait by then, with one flush of
the directory and one transaction. Each is taken or refused for itself.
"""

import contextlib
import errno
import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pypiserver_ng import catalog
from pypiserver_ng.catalog import Contents, Presence
from pypiserver_ng.errors import Conflict, Failure
from pypiserver_ng.index.store import Store
from pypiserver_ng.model import ParsedFilename
from pypiserver_ng.storage import Exists, Scratch, Seen

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0
_ENDED = OSError(errno.EINTR, "it was ended")


@dataclass(slots=True, eq=False)
class Arrival:
    """One upload whose bytes are flushed and have no name yet, and then what became of it."""

    parsed: ParsedFilename
    contents: Contents
    user: str | None
    provenance: bytes | None
    scratch: Scratch
    is_settled: bool = False
    fault: Exception | None = None
    seen: Seen | None = field(default=None, init=False)
    #: Whether the name is this upload's doing, so that it has to go when the upload is refused.
    is_named: bool = field(default=False, init=False)
    #: With `--overwrite`: another name of what was replaced.
    kept: Path | None = field(default=None, init=False)


class Publisher:
    def __init__(self, store: Store, *, overwrite: bool) -> None:
        self._catalog = store.catalog
        self._directory = store.directory
        #: Nobody forgets or finds a file while it is held.
        self._lock = store.tree.lock
        self._overwrite = overwrite
        self._turn = threading.Lock()
        self._waiting: list[Arrival] = []
        self._queue = threading.Lock()

    def publish(self, arrival: Arrival) -> None:
        """Returns when the name and the row are on the disk.

        Raises Conflict, Denied, NoSpace, Unavailable or OSError; then nothing was stored.
        """
        with self._queue:
            self._waiting.append(arrival)
        if not self._turn.acquire(timeout=_PATIENCE_SECONDS):
            if self._withdraw(arrival):
                raise TimeoutError(errno.ETIMEDOUT, "another change takes too long")
            # It is being published: what becomes of it will be known.
            self._turn.acquire()
        try:
            while not arrival.is_settled:
                self._publish_waiting(arrival)
        finally:
            self._turn.release()
        if arrival.fault is not None:
            raise arrival.fault

    def _withdraw(self, arrival: Arrival) -> bool:
        with self._queue:
            if arrival in self._waiting:
                self._waiting.remove(arrival)
                return True
            return False

    def _take(self) -> list[Arrival]:
        """All that wait, but for later ones of the same name: one of them wins, and the others compare with it."""
        with self._queue:
            group = list({arrival.parsed.filename: arrival for arrival in reversed(self._waiting)}.values())[::-1]
            self._waiting = [arrival for arrival in self._waiting if arrival not in group]
        return group

    def _publish_waiting(self, leader: Arrival) -> None:
        """Settles at least the first that waits. Raises OSError where the tree cannot be locked."""
        with ExitStack() as stack:
            try:
                # From its name to its row: a scan in between would take a file for one that somebody copied in.
                stack.enter_context(self._lock)
            except OSError:
                self._withdraw(leader)
                raise
            group = self._take()
            try:
                self._settle(group, stack)
            except BaseException as fault:
                for arrival in group:
                    if not arrival.is_settled and arrival.fault is None:
                        self._refuse(arrival, fault if isinstance(fault, Exception) else _ENDED)
                raise
            finally:
                for arrival in group:
                    arrival.is_settled = True

    def _settle(self, group: Sequence[Arrival], stack: ExitStack) -> None:
        named = [arrival for arrival in group if self._name(arrival, stack)]
        if any(arrival.is_named for arrival in named):
            try:
                self._directory.flush_names()
            except OSError as fault:
                for arrival in named:
                    self._refuse(arrival, fault)
                return
        if named:
            self._record(named)

    def _name(self, arrival: Arrival, stack: ExitStack) -> bool:
        """Whether the file has its name, or had it already with the same bytes."""
        try:
            if self._overwrite:
                arrival.kept = stack.enter_context(self._directory.keep_aside(arrival.parsed.filename))
            while arrival.seen is None:
                try:
                    arrival.seen = self._directory.give_name(
                        arrival.scratch, arrival.parsed.filename, overwrite=self._overwrite
                    )
                    arrival.is_named = True
                except Exists:
                    arrival.seen = self._find_same(arrival)
        except (Failure, OSError) as fault:
            arrival.fault = fault
            return False
        return True

    def _find_same(self, arrival: Arrival) -> Seen | None:
        """The file that has this name, if it has the same bytes; None when it was deleted meanwhile.

        Raises Conflict when it has other bytes.
        """
        root, filename = self._directory.roots[0], arrival.parsed.filename
        seen = self._directory.look(root, filename)
        if seen is None:
            if self._directory.is_taken(filename):
                raise Conflict(f"File already exists: {filename} is here, no file; its owner has to move it away")
            return None
        expect_same(filename, self._directory.hash(root, filename), arrival.contents.digests.sha256)
        return seen

    def _record(self, named: Sequence[Arrival]) -> None:
        rows = [_to_row(arrival) for arrival in named]
        try:
            refusals: Sequence[Exception | None] = self._catalog.add_uploads(rows, overwrite=self._overwrite)
        except Failure as fault:
            refusals = [fault] * len(named)
        except Exception as fault:
            # Whatever it is, it is one's own and must not cost the others.
            if len(named) > 1:
                for arrival in named:
                    self._record([arrival])
                return
            refusals = [fault]
        for arrival, refusal in zip(named, refusals, strict=True):
            if refusal is None:
                arrival.is_settled = True
                _log.info("stored %s from %s", arrival.parsed.filename, arrival.user or "anyone")
            else:
                self._refuse(arrival, refusal)

    def _refuse(self, arrival: Arrival, fault: Exception) -> None:
        """Refused means refused: without its row the file would turn up at the next scan."""
        arrival.fault = fault
        if not arrival.is_named:
            return
        filename = arrival.parsed.filename
        with contextlib.suppress(OSError):
            if self._overwrite:
                self._directory.put_back(arrival.kept, filename)
            else:
                self._directory.delete(self._directory.roots[0], filename)


def _to_row(arrival: Arrival) -> catalog.Arrival:
    assert arrival.seen is not None
    seen = arrival.seen
    presence = Presence(seen.root, seen.path, arrival.parsed, seen.size, seen.mtime_ns)
    return catalog.Arrival(presence, arrival.contents, arrival.user, arrival.provenance)


def expect_same(filename: str, here: str | None, sha256: str) -> None:
    """Raises Conflict."""
    if here != sha256:
        raise Conflict(
            f"File already exists: {filename} is here with other bytes; upload a new version, "
            "or start the server with --overwrite"
        )
