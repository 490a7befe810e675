"""The ordered checks of an upload before it is published. Blocking code, called in threads.

Bytes first, then one catalog transaction: the catalog never names a file that is not there.
"""

import hmac
from collections.abc import Callable

from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.attestations import AttestationVerifier
from pypiserver_ng.catalog import Contents, Outlook, buried_conflict, closed_denial
from pypiserver_ng.errors import Invalid
from pypiserver_ng.filenames import is_same_version, parse_upload
from pypiserver_ng.index.publishing import Publisher, Waiting, expect_same
from pypiserver_ng.index.store import Store
from pypiserver_ng.metadata import CoreMetadata, shorten_summary, validate_metadata
from pypiserver_ng.model import (
    Digests,
    Identity,
    Kind,
    ParsedFilename,
    Right,
    Upload,
    normalize_name,
)
from pypiserver_ng.storage import Scratch, translate_os_error

_DIGEST_FIELDS = {"sha256_digest": "sha256", "md5_digest": "md5", "blake2_256_digest": "blake2b_256"}


#: Raises Denied where who uploads has not the right.
Permit = Callable[[Right, ParsedFilename], None]


def permit_all(_right: Right, _parsed: ParsedFilename) -> None:
    """For who needs no permission."""


class Intake:
    def __init__(
        self, store: Store, attestations: AttestationVerifier, inspector: Inspector, *, overwrite: bool
    ) -> None:
        self._catalog = store.catalog
        self._directory = store.directory
        self._metadata = store.metadata
        self._attestations = attestations
        self._inspector = inspector
        self._publisher = Publisher(store, overwrite=overwrite)
        self._overwrite = overwrite

    def add(self, upload: Upload, scratch: Scratch, identity: Identity, permit: Permit = permit_all) -> None:
        """Publish one finished scratch file, which is discarded then. The same bytes again are a success.

        Raises what `permit` does, Invalid, Denied, Conflict, NoSpace or Unavailable; then nothing was stored.
        """
        try:
            self._add(upload, scratch, identity, permit)
        except OSError as fault:
            raise translate_os_error(fault) from fault
        finally:
            scratch.discard()

    def _add(self, upload: Upload, scratch: Scratch, identity: Identity, permit: Permit) -> None:
        parsed = parse_upload(upload.filename)
        outlook = self._catalog.outlook(parsed.name, parsed.filename)
        permit(Right.CREATE if outlook.is_new else Right.UPLOAD, parsed)
        digests = scratch.digests()
        _check_digests(upload, digests)
        _check_form(upload, parsed)
        if not outlook.status.takes_uploads:
            raise closed_denial(parsed.name, outlook.status, outlook.status_reason)
        provenance = None
        if upload.attestations is not None:
            provenance = self._attestations.check(upload.attestations, parsed, digests.sha256)
        if self._is_here(parsed.filename, digests.sha256, outlook):
            if provenance is not None:
                self._catalog.add_provenance(parsed, digests.sha256, provenance, identity.user, identity.address)
            return
        raw = self._inspector.inspect_upload(scratch.path, parsed)
        contents = self._describe(digests, parsed, validate_metadata(raw, parsed), raw)
        self._directory.flush(scratch)
        self._publisher.publish(Waiting(parsed, contents, identity.user, provenance, scratch, address=identity.address))

    def _is_here(self, filename: str, sha256: str, outlook: Outlook) -> bool:
        """True when the same bytes already have this name. Raises Conflict when other bytes have or had it."""
        if self._overwrite:
            return False
        for known in outlook.known:
            here = self._directory.hash(known.presence.root, known.presence.path)
            if here is not None:
                expect_same(filename, here, sha256)
                return True
        if outlook.buried not in {None, sha256}:
            raise buried_conflict(filename)
        return False

    def _describe(self, digests: Digests, parsed: ParsedFilename, metadata: CoreMetadata, raw: bytes) -> Contents:
        return Contents(
            digests,
            display_name=metadata.name,
            requires_python=metadata.requires_python,
            summary=shorten_summary(metadata.summary),
            metadata_sha256=self._metadata.put(raw) if parsed.kind is Kind.WHEEL else None,
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
