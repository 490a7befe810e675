"""Who did what: the catalog's events and the audit log as one story. Blocking code, for a command beside a server."""

import heapq
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pypiserver_ng.catalog import Catalog, Event
from pypiserver_ng.policy.patterns import Patterns
from pypiserver_ng.storage.audit import Entry
from pypiserver_ng.storage.trail import Trail

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Selection:
    """What of it is wanted; None = whatever."""

    #: Pattern of normalized names.
    projects: str | None = None
    #: As it is written down, or without what follows in parentheses.
    user: str | None = None
    since: datetime | None = None

    def choose(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        patterns = None if self.projects is None else Patterns([(self.projects, True)])
        for entry in entries:
            if self.since is not None and entry.time < self.since:
                continue
            if self.user is not None and self.user not in {entry.user, (entry.user or "").partition(" (")[0]}:
                continue
            if patterns is None or (entry.project and patterns.find(entry.project)):
                yield entry


class History:
    """Of one state directory. The catalog is open only while it is read: a server may start meanwhile."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._trail = Trail(state_dir)
        self._last = 0
        #: Of the journal, which changes with every event.
        self._seen: tuple[int, int, int] | None = None

    def close(self) -> None:
        self._trail.close()

    def read(self) -> Iterator[Entry]:
        """What was not read yet, in the order of time. Raises OSError, and Invalid when the catalog cannot be used."""
        return heapq.merge(map(to_entry, self._read_events()), self._trail.read(), key=lambda entry: entry.time)

    def _read_events(self) -> Iterator[Event]:
        seen = _stamp(self._state_dir / "journal.jsonl")
        if seen is not None and seen == self._seen:
            return
        with closing(Catalog(self._state_dir)) as catalog:
            for event in catalog.history(self._last):
                self._last = event.id
                yield event
        self._seen = seen


def to_entry(event: Event) -> Entry:
    """An event is something that was done."""
    return Entry(
        _EPOCH + timedelta(microseconds=event.time),
        event.action,
        "done",
        user=event.user,
        address=event.address,
        project=event.project or None,
        version=event.version,
        filename=event.filename,
        sha256=event.sha256,
        reason=event.reason,
        status=event.status,
        token=event.token.name if event.token else None,
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    with suppress(FileNotFoundError):
        status = os.stat(path)  # noqa: PTH116
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None
