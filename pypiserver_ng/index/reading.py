"""Reads files that lie in the package directories: digests, core metadata, and whether they are whole.

Blocking code, called in threads.
"""

import logging
import os
import time
from collections.abc import Iterable

from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.catalog import Catalog, Contents, Known, Presence, Rows
from pypiserver_ng.errors import Failure, Invalid
from pypiserver_ng.metadata import parse_metadata, shorten_summary
from pypiserver_ng.model import Kind, NormalizedName, normalize_name
from pypiserver_ng.storage import Directory, MetadataStore, hash_stream, is_being_written, mtime_of

_log = logging.getLogger(__name__)

#: A file whose end is missing and that nobody seems to write is taken for broken, not for a copy in progress,
#: once it has been left alone this long.
_ABANDONED_SECONDS = 5.0
#: The same for an empty file: whoever creates one writes into it at once.
_ABANDONED_EMPTY_SECONDS = 1.0
#: How long a file that was not whole is left alone before it is looked at again.
_RETRY_SECONDS = 0.25


class Reader:
    def __init__(self, directory: Directory, metadata: MetadataStore, inspector: Inspector, *, started: float) -> None:
        #: Whoever wrote before that (seconds since 1970) is gone; a command knows of nobody.
        self._directory = directory
        self._metadata = metadata
        self._inspector = inspector
        self._started = started
        #: Set once: nothing more is read, so that the threads that read can end.
        self.stopped = False
        # Files that were not whole, by id: when to look at them again (monotonic).
        self._pending: dict[int, float] = {}

    @property
    def pending(self) -> int:
        """How many files were not whole when they were last looked at."""
        return len(self._pending)

    def is_due(self, known: Known) -> bool:
        """False for a file that was found incomplete a moment ago."""
        return time.monotonic() >= self._pending.get(known.id, 0.0)

    def forget_all_but(self, unread: Iterable[Known]) -> None:
        """Drop what was remembered of files that are read or gone; `unread` is every file that is neither."""
        ids = {known.id for known in unread}
        self._pending = {number: due for number, due in list(self._pending.items()) if number in ids}

    def read(self, known: Known) -> Contents | None:
        """What the bytes tell, or None while the file is not whole, changes under our eyes, or is gone."""
        if self.stopped:
            return None
        try:
            contents = self._read(known)
        except FileNotFoundError:
            self._pending.pop(known.id, None)
            return None
        except InterruptedError:
            return None
        except OSError as fault:
            # It may be readable in a moment; a scan forgets it when it is gone.
            if known.id not in self._pending:
                _log.warning("cannot read %s: %s", known.presence.path, fault.strerror)
            contents = None
        if contents is None:
            self._pending[known.id] = time.monotonic() + _RETRY_SECONDS
        else:
            self._pending.pop(known.id, None)
        return contents

    def read_each(self, rows: Iterable[Known]) -> list[tuple[Known, Contents]]:
        """Those that could be read, with what they tell."""
        return [(known, contents) for known in rows if (contents := self.read(known))]

    def _read(self, known: Known) -> Contents | None:
        presence = known.presence
        fd = self._directory.open(presence.root, presence.path)
        with open(fd, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor, not a path
            before = os.fstat(fd)
            if (before.st_size, mtime_of(before)) != (presence.size, presence.mtime_ns):
                return None
            # First, because it is cheap, and because bytes may still change behind a file's right end.
            if is_being_written(fd):
                return None
            found = self._inspector.inspect_found(fd, presence.parsed)
            if not found.complete and not self._is_abandoned(before):
                return None
            digests = hash_stream(stream, lambda: self.stopped, presence.size)
            after = os.fstat(fd)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            return None
        problem = found.problem if found.complete else "the end of the file is missing"
        if problem:
            _log.warning("%s cannot be opened, it is listed without metadata: %s", presence.path, problem)
        return self._describe(Contents(digests, problem=problem), presence, found.metadata)

    def _is_abandoned(self, status: os.stat_result) -> bool:
        # Not its mtime: copying may set that, to the future too. A ctime in the future is from another clock.
        patience = _ABANDONED_SECONDS if status.st_size else _ABANDONED_EMPTY_SECONDS
        return status.st_ctime < self._started or abs(time.time() - status.st_ctime) > patience

    def _describe(self, contents: Contents, presence: Presence, raw: bytes | None) -> Contents:
        if raw is None:
            return contents
        try:
            metadata = parse_metadata(raw)
        except Invalid as fault:
            _log.warning("%s is listed without metadata: %s", presence.path, fault.message)
            return Contents(contents.digests, problem=contents.problem or fault.message)
        return Contents(
            contents.digests,
            display_name=metadata.name if normalize_name(metadata.name) == presence.parsed.name else None,
            requires_python=metadata.requires_python,
            summary=shorten_summary(metadata.summary),
            # Only a wheel's metadata is final; an sdist's may change when it is built.
            metadata_sha256=self._metadata.put(raw) if presence.parsed.kind is Kind.WHEEL else None,
            problem=contents.problem,
        )


def read_now(catalog: Catalog, reader: Reader, name: NormalizedName) -> Rows:
    """A project's rows after whatever of it was not read yet was read."""
    rows = catalog.project_rows(name)
    unread = [known for known in rows.known if known.file is None and reader.is_due(known)]
    results = reader.read_each(unread)
    if not results:
        return rows
    try:
        catalog.record(results)
    except Failure:
        # A full disk must not keep what is known from being answered.
        _log.warning("what was read of %s could not be recorded", name)
    return catalog.project_rows(name)
