"""The ordered checks of an upload, and its publication. Blocking code, called in threads.

Bytes first, then one catalog transaction: the catalog never names a file that is not there.
"""

import contextlib
import hmac
import logging
from dataclasses import dataclass

from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.attestations import AttestationVerifier
from pypiserver_ng.catalog import Contents, Presence, buried_conflict, closed_denial
from pypiserver_ng.errors import Conflict, Failure, Invalid
from pypiserver_ng.filenames import is_same_version, parse_upload
from pypiserver_ng.index.store import Store
from pypiserver_ng.metadata import CoreMetadata, shorten_summary, validate_metadata
from pypiserver_ng.model import Digests, Identity, Kind, NormalizedName, ParsedFilename, Upload, normalize_name
from pypiserver_ng.storage import (
    Exists,
    Scratch,
    Seen,
    hash_stream,
    translate_os_error,
)

_log = logging.getLogger(__name__)

_DIGEST_FIELDS = {"sha256_digest": "sha256", "md5_digest": "md5", "blake2_256_digest": "blake2b_256"}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One upload that passed every check and has no name yet."""

    parsed: ParsedFilename
    contents: Contents
    identity: Identity
    provenance: bytes | None


class Intake:
    def __init__(
        self, store: Store, attestations: AttestationVerifier, inspector: Inspector, *, overwrite: bool
    ) -> None:
        self._catalog = store.catalog
        self._directory = store.directory
        self._metadata = store.metadata
        #: Nobody forgets or finds a file while it is held.
        self._lock = store.tree.lock
        self._attestations = attestations
        self._inspector = inspector
        self._overwrite = overwrite

    def add(self, upload: Upload, scratch: Scratch, identity: Identity) -> None:
        """Publish one finished scratch file. The same bytes again are a success.

        Raises Invalid, Denied, Conflict, NoSpace or Unavailable; then nothing was stored.
        """
        digests = scratch.digests()
        _check_digests(upload, digests)
        parsed = parse_upload(upload.filename)
        _check_form(upload, parsed)
        self._check_status(parsed.name)
        provenance = None
        if upload.attestations is not None:
            provenance = self._attestations.check(upload.attestations, parsed, digests.sha256)
        if self._is_here(parsed.filename, digests):
            if provenance is not None:
                self._catalog.add_provenance(parsed, digests.sha256, provenance, identity.user)
            return
        raw = self._inspect(scratch, parsed)
        metadata = validate_metadata(raw, parsed)
        arrival = Arrival(parsed, self._describe(digests, parsed, metadata, raw), identity, provenance)
        try:
            self._publish(arrival, scratch)
        except OSError as fault:
            raise translate_os_error(fault) from fault

    def _inspect(self, scratch: Scratch, parsed: ParsedFilename) -> bytes:
        try:
            return self._inspector.inspect_upload(scratch.path, parsed)
        except OSError as fault:
            raise translate_os_error(fault) from fault

    def _check_status(self, name: NormalizedName) -> None:
        status, reason = self._catalog.status(name)
        if not status.takes_uploads:
            raise closed_denial(name, status, reason)

    def _is_here(self, filename: str, digests: Digests) -> bool:
        """True when the same bytes already have this name. Raises Conflict when other bytes have or had it."""
        if self._overwrite:
            return False
        for known in self._catalog.files_named(filename):
            here = self._hash(known.presence)
            if here is not None:
                _expect_same(filename, here, digests.sha256)
                return True
        buried = self._catalog.tombstone(filename)
        if buried is not None and buried != digests.sha256:
            raise buried_conflict(filename)
        return False

    def _hash(self, presence: Presence) -> str | None:
        try:
            fd = self._directory.open(presence.root, presence.path)
        except OSError:
            return None
        with open(fd, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor, not a path
            return hash_stream(stream).sha256

    def _describe(self, digests: Digests, parsed: ParsedFilename, metadata: CoreMetadata, raw: bytes) -> Contents:
        return Contents(
            digests,
            display_name=metadata.name,
            requires_python=metadata.requires_python,
            summary=shorten_summary(metadata.summary),
            metadata_sha256=self._metadata.put(raw) if parsed.kind is Kind.WHEEL else None,
        )

    def _publish(self, arrival: Arrival, scratch: Scratch) -> None:
        self._directory.flush(scratch)
        # From its name to its row: a scan in between would take it for a file that somebody copied in.
        with self._lock:
            if self._overwrite:
                self._replace(arrival, scratch)
                return
            while not self._add(arrival, scratch):
                pass

    def _replace(self, arrival: Arrival, scratch: Scratch) -> None:
        filename = arrival.parsed.filename
        with self._directory.keep_aside(filename) as kept:
            try:
                self._record(self._directory.publish(scratch, filename, overwrite=True), arrival)
            except (Failure, OSError):
                self._directory.put_back(kept, filename)
                raise

    def _add(self, arrival: Arrival, scratch: Scratch) -> bool:
        """False where the name was taken and is free again: try once more."""
        try:
            seen = self._directory.publish(scratch, arrival.parsed.filename, overwrite=False)
        except Exists:
            return self._join(arrival)
        try:
            self._record(seen, arrival)
        except Failure:
            # Refused means refused: without its row the file would turn up at the next scan.
            with contextlib.suppress(OSError):
                self._directory.delete(seen.root, seen.path)
            raise
        return True

    def _join(self, arrival: Arrival) -> bool:
        """Take the file that another upload of this name published first, if it has the same bytes.

        Returns False when it was deleted meanwhile. Raises Conflict when it has other bytes.
        """
        filename = arrival.parsed.filename
        presence = Presence(self._directory.roots[0], filename, arrival.parsed, 0, 0)
        seen = self._directory.look(presence.root, presence.path)
        if seen is None:
            if self._directory.is_taken(filename):
                raise Conflict(f"File already exists: {filename} is here, no file; its owner has to move it away")
            return False
        _expect_same(filename, self._hash(presence), arrival.contents.digests.sha256)
        self._record(seen, arrival)
        return True

    def _record(self, seen: Seen, arrival: Arrival) -> None:
        presence = Presence(seen.root, seen.path, arrival.parsed, seen.size, seen.mtime_ns)
        user = arrival.identity.user
        self._catalog.add_upload(
            presence, arrival.contents, user, overwrite=self._overwrite, provenance=arrival.provenance
        )
        _log.info("stored %s from %s", seen.path, user or "anyone")


def _expect_same(filename: str, here: str | None, sha256: str) -> None:
    if here != sha256:
        raise Conflict(
            f"File already exists: {filename} is here with other bytes; upload a new version, "
            "or start the server with --overwrite"
        )


def _check_digests(upload: Upload, found: Digests) -> None:
    for field, attribute in _DIGEST_FIELDS.items():
        declared = upload.digests.get(field)
        actual: str = getattr(found, attribute)
        if declared and not hmac.compare_digest(declared.strip().lower().encode(), actual.encode()):
            raise Invalid(f"{field} does not match the file: the form says {declared[:64]!a}, the bytes say {actual}")


def _check_form(upload: Upload, parsed: ParsedFilename) -> None:
    if upload.name and normalize_name(upload.name) != parsed.name:
        raise Invalid(f"the form says project {upload.name[:100]!a}, the filename says {parsed.name!r}")
    if upload.version and not is_same_version(upload.version, parsed.version):
        raise Invalid(f"the form says version {upload.version[:100]!a}, the filename says {parsed.version!r}")
    if upload.filetype and upload.filetype != parsed.kind:
        raise Invalid(f"the form says filetype {upload.filetype[:50]!a}, but {parsed.filename} is a {parsed.kind}")
