"""Uploads that passed every check get their names and rows, all that wait at once. Blocking code, called in threads.

The disk takes as long for one as for many: whoever has the turn publishes for all who wait by then, with one flush of
the directory and one transaction. Each is taken or refused for itself.
"""

import errno
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
class Waiting:
    """One upload whose bytes are flushed and have no name yet, and then what became of it."""

    parsed: ParsedFilename
    contents: Contents
    user: str | None
    provenance: bytes | None
    scratch: Scratch
    address: str | None = None
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
        self._waiting: list[Waiting] = []
        self._queue = threading.Lock()

    def publish(self, waiting: Waiting) -> None:
        """Returns when the name and the row are on the disk.

        Raises Conflict, Denied, NoSpace, Unavailable or OSError; then nothing was stored, nor will be.
        """
        # For the turn and for the lock together.
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with self._queue:
            self._waiting.append(waiting)
        if not self._turn.acquire(timeout=_PATIENCE_SECONDS):
            if self._withdraw(waiting):
                raise TimeoutError(errno.ETIMEDOUT, "another change takes too long")
            # It is being published: what becomes of it will be known.
            self._turn.acquire()
        try:
            while not waiting.is_settled:
                self._publish_waiting(deadline)
        except BaseException:
            self._withdraw(waiting)
            raise
        finally:
            self._turn.release()
        if waiting.fault is not None:
            raise waiting.fault

    def _withdraw(self, waiting: Waiting) -> bool:
        with self._queue:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                return True
            return False

    def _take(self) -> list[Waiting]:
        """All that wait, but for later ones of the same name: one of them wins, and the others compare with it."""
        with self._queue:
            group = list({one.parsed.filename: one for one in reversed(self._waiting)}.values())[::-1]
            self._waiting = [one for one in self._waiting if one not in group]
        return group

    def _publish_waiting(self, deadline: float) -> None:
        """Settles at least the first that waits. Raises OSError where the tree cannot be locked."""
        # From its name to its row: a scan in between would take a file for one that somebody copied in.
        with self._lock.by(deadline), ExitStack() as kept:
            group = self._take()
            try:
                self._settle(group, kept)
            except BaseException as fault:
                for one in group:
                    if not one.is_settled and one.fault is None:
                        self._refuse(one, fault if isinstance(fault, Exception) else _ENDED)
                if not isinstance(fault, Exception):
                    raise
                _log.error("publishing broke off: %s", fault)
            finally:
                for one in group:
                    one.is_settled = True

    def _settle(self, group: Sequence[Waiting], kept: ExitStack) -> None:
        named = [one for one in group if self._name(one, kept)]
        if any(one.is_named for one in named):
            try:
                self._directory.flush_names()
            except OSError as fault:
                for one in named:
                    self._refuse(one, fault)
                return
        if named:
            self._record(named)

    def _name(self, waiting: Waiting, kept: ExitStack) -> bool:
        """Whether the file has its name, or had it already with the same bytes."""
        try:
            if self._overwrite:
                waiting.kept = kept.enter_context(self._kept_aside(waiting.parsed.filename))
            while waiting.seen is None:
                try:
                    waiting.seen = self._directory.give_name(
                        waiting.scratch, waiting.parsed.filename, overwrite=self._overwrite
                    )
                    waiting.is_named = True
                except Exists:
                    waiting.seen = self._find_same(waiting)
        except (Failure, OSError) as fault:
            waiting.fault = fault
            return False
        return True

    @contextmanager
    def _kept_aside(self, filename: str) -> Iterator[Path | None]:
        """As the directory's, but that it ends well: by then it is decided what becomes of the upload."""
        with ExitStack() as stack:
            kept = stack.enter_context(self._directory.keep_aside(filename))
            yield kept
            try:
                stack.close()
            except OSError as fault:
                _log.warning("%s cannot be cleared away, the next start sweeps it: %s", kept, fault.strerror)

    def _find_same(self, waiting: Waiting) -> Seen | None:
        """The file that has this name, if it has the same bytes; None when it was deleted meanwhile.

        Raises Conflict when it has other bytes.
        """
        root, filename = self._directory.roots[0], waiting.parsed.filename
        seen = self._directory.look(root, filename)
        if seen is None:
            if self._directory.is_taken(filename):
                raise Conflict(f"File already exists: {filename} is here, no file; its owner has to move it away")
            return None
        expect_same(filename, self._directory.hash(root, filename), waiting.contents.digests.sha256)
        return seen

    def _record(self, named: Sequence[Waiting]) -> None:
        rows = [_to_row(one) for one in named]
        try:
            refusals: Sequence[Exception | None] = self._catalog.add_uploads(rows, overwrite=self._overwrite)
        except Failure as fault:
            refusals = [fault] * len(named)
        except Exception as fault:
            # Whatever it is, it is one's own and must not cost the others.
            if len(named) > 1:
                for one in named:
                    self._record([one])
                return
            refusals = [fault]
        for one, refusal in zip(named, refusals, strict=True):
            if refusal is None:
                one.is_settled = True
                _log.info("stored %s from %s", one.parsed.filename, one.user or "anyone")
            else:
                self._refuse(one, refusal)

    def _refuse(self, waiting: Waiting, fault: Exception) -> None:
        """Refused means refused: without its row the file would turn up at the next scan."""
        waiting.fault = fault
        if not waiting.is_named:
            return
        filename = waiting.parsed.filename
        with suppress(OSError):
            if self._overwrite:
                self._directory.put_back(waiting.kept, filename)
            else:
                self._directory.delete(self._directory.roots[0], filename)


def _to_row(waiting: Waiting) -> catalog.Arrival:
    assert waiting.seen is not None
    seen = waiting.seen
    presence = Presence(seen.root, seen.path, waiting.parsed, seen.size, seen.mtime_ns)
    return catalog.Arrival(presence, waiting.contents, waiting.user, waiting.provenance, waiting.address)


def expect_same(filename: str, here: str | None, sha256: str) -> None:
    """Raises Conflict."""
    if here != sha256:
        raise Conflict(
            f"File already exists: {filename} is here with other bytes; upload a new version, "
            "or start the server with --overwrite"
        )
