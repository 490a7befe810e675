"""What was refused, and what changed nothing, as lines that are only ever appended; `trail` reads them.

Written from a thread of its own, by every process that uses the state directory. Must never cost an answer: where it
cannot be written, entries are lost and the log says so. What changed something the catalog knows.
"""

import errno
import fcntl
import itertools
import logging
import os
import queue
import re
import stat
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

_log = logging.getLogger(__name__)

#: Bytes after which a new file is begun, and how many old ones are kept.
MOST_BYTES = 16 << 20
KEPT = 4
#: Seconds within which the same thing again is only counted.
SAME_SECONDS = 10.0

#: Entries that may wait for the disk, and kinds of entries whose repetitions are counted.
_MOST_WAITING = 10_000
_MOST_HELD = 4096
#: Entries that are written in one go.
_BATCH = 500
_LONGEST = 500
_END_SECONDS = 5.0

#: What may be in a text that somebody sent, and is nobody's business: tokens, signed identities, credentials of a URL.
_SECRETS = (
    (re.compile(r"(pypi-ng-[0-9a-f]{16})-[A-Za-z0-9_-]+"), r"\1-***"),
    (re.compile(r"pypi-Ag[A-Za-z0-9_-]{16,}"), "pypi-***"),
    (re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"), "***"),
    (re.compile(r"://[^/@\s]{1,400}@"), "://***@"),
)


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that somebody did or was refused."""

    #: UTC.
    time: datetime
    action: str
    #: ``done`` or ``refused``.
    outcome: str
    user: str | None = None
    address: str | None = None
    project: str | None = None
    version: str | None = None
    filename: str | None = None
    sha256: str | None = None
    reason: str | None = None
    #: Of a change of a project's status: which it has now.
    status: str | None = None
    #: Of a token that was made or revoked: its name.
    token: str | None = None
    #: How often it happened since the last entry that is the same.
    count: int = 1


def list_names() -> list[str]:
    """The names of the files, the newest first."""
    return ["audit.jsonl", *(f"audit.{number}.jsonl" for number in range(1, KEPT + 1))]


@dataclass(slots=True)
class _Held:
    """Something that was written a moment ago."""

    #: Monotonic seconds.
    until: float
    again: int = 0


class AuditLog:
    """One process's way into the files of a state directory. `note` from one thread, an event loop's or a command's."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._waiting: queue.Queue[Entry | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._held: dict[Entry, _Held] = {}
        self._lost = 0
        self._is_failing = False

    def note(
        self,
        action: str,
        *,
        outcome: str,
        user: str | None = None,
        address: str | None = None,
        project: str | None = None,
        version: str | None = None,
        filename: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Have it written soon; never waits, never raises.

        What is the same in everything but time is written once, and then at most once in ten seconds with a count.
        """
        now = datetime.now(UTC)
        entry = Entry(now, action, outcome, user, address, project, version, filename, reason=reason)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what waits, for some seconds at most."""
        if self._thread is None:
            return
        try:
            self._waiting.put(None, timeout=_END_SECONDS)
        except queue.Full:
            return
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        is_open = True
        while is_open:
            entries = self._take()
            is_open = None not in entries
            try:
                self._keep([_clean(entry) for entry in entries if entry is not None], is_open=is_open)
            except Exception:
                # One batch is lost, not all that follow.
                _log.exception("the audit log broke off")

    def _keep(self, entries: list[Entry], *, is_open: bool) -> None:
        due = [entry for entry in entries if self._is_new(entry)]
        due += self._release(time.monotonic() if is_open else None)
        if due:
            self._write(due)

    def _take(self) -> list[Entry | None]:
        """What waits by now; waits for the first, as long as nothing that is held is due."""
        next_due = next(iter(self._held.values()), None)
        patience = None if next_due is None else max(next_due.until - time.monotonic(), 0)
        taken: list[Entry | None] = []
        try:
            taken.append(self._waiting.get(timeout=patience))
            while len(taken) < _BATCH:
                taken.append(self._waiting.get_nowait())
        except queue.Empty:
            pass
        return taken

    def _is_new(self, entry: Entry) -> bool:
        """Whether it is to be written at once; else it is counted."""
        kind = msgspec.structs.replace(entry, time=_NO_TIME)
        if held := self._held.get(kind):
            held.again += 1
            return False
        self._held[kind] = _Held(time.monotonic() + SAME_SECONDS)
        return True

    def _release(self, now: float | None) -> list[Entry]:
        """What was held for long enough, in the order in which it came; everything without a time."""
        released = []
        for kind, held in list(self._held.items()):
            if now is not None and held.until > now and len(self._held) <= _MOST_HELD:
                break
            del self._held[kind]
            if held.again:
                released.append(msgspec.structs.replace(kind, time=datetime.now(UTC), count=held.again))
                if now is not None and len(self._held) < _MOST_HELD:
                    self._held[kind] = _Held(now + SAME_SECONDS)
        return released

    def _write(self, entries: list[Entry]) -> None:
        try:
            self._append(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
        except OSError as fault:
            self._lost += len(entries)
            if not self._is_failing:
                _log.warning("the audit log in %s cannot be written, refusals are lost: %s", self._state_dir, fault)
            self._is_failing = True
            return
        self._is_failing = False
        lost, self._lost = self._lost, 0
        if lost:
            _log.warning("%d entries of the audit log were lost", lost)

    def _append(self, lines: bytes) -> None:
        """One write for all. Raises OSError; then nothing of it is there."""
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            # After a power cut the last line may have no end.
            if size and os.pread(fd, 1, size - 1) != b"\n":
                lines = b"\n" + lines
            if os.write(fd, lines) < len(lines):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)

    def _open(self) -> int:
        """The newest file, locked until it is closed, and with room in it."""
        path = self._state_dir / list_names()[0]
        while True:
            fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
            )
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file", str(path))
                fcntl.flock(fd, fcntl.LOCK_EX)
                # Another process may have begun a new file meanwhile.
                if _is_still(path, fd):
                    if os.fstat(fd).st_size < MOST_BYTES:
                        return fd
                    self._begin_new()
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _begin_new(self) -> None:
        names = list_names()
        for newer, older in reversed(list(itertools.pairwise(names))):
            try:
                (self._state_dir / newer).replace(self._state_dir / older)
            except FileNotFoundError:
                continue


#: Stands for any time where entries are compared.
_NO_TIME = datetime.fromtimestamp(0, UTC)


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _clean(entry: Entry) -> Entry:
    """Without secrets, of limited length, and as UTF-8 can write it."""
    texts = {name: value for name in entry.__struct_fields__ if isinstance(value := getattr(entry, name), str)}
    return msgspec.structs.replace(entry, **{name: clean_text(value) for name, value in texts.items()})


def clean_text(text: str) -> str:
    """What may be kept of a text that somebody sent."""
    text = text[: 4 * _LONGEST]
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text[:_LONGEST].encode("utf-8", "backslashreplace").decode()
