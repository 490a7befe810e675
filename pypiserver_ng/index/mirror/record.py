"""What is kept of one upstream's word on one project, and how its next word changes it. Pure.

A record also remembers what an upstream does not say any more: under a filename no other bytes are taken than those
that were first seen there.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from pypiserver_ng.filenames import sort_key
from pypiserver_ng.model import Kind, UpstreamFile, UpstreamPage

#: Rises when the fields below change: an older record is asked for again.
_FORMAT = 1
#: Files that an upstream listed once; nightly indexes drop some each day.
_MOST_GONE = 20_000


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One upstream's word on one project. `page` is None where it has no such project."""

    format: int
    #: Without credentials.
    upstream: str
    page: UpstreamPage | None
    #: Validators of the page, to ask again with.
    etag: str | None = None
    last_modified: str | None = None
    #: Of the bytes that the page was made of, so that the same bytes need not be read twice.
    body_digest: str = ""
    #: What it listed before and does not now.
    gone: tuple[UpstreamFile, ...] = ()
    #: Filenames under which it now has other bytes than were first seen, with the hash it gives.
    refused: Mapping[str, str] = {}
    #: sha256 of the bytes first fetched under filenames of which it gives none.
    first_seen: Mapping[str, str] = {}
    #: Wheels of which it gives no core metadata, and that turned out to have none that can be read.
    bare: frozenset[str] = frozenset()

    @property
    def files(self) -> tuple[UpstreamFile, ...]:
        """Everything it lists or listed."""
        return (*(self.page.files if self.page else ()), *self.gone)

    def find(self, filename: str, sha256: str | None) -> UpstreamFile | None:
        """The file with these bytes, listed or not; `sha256` is None for one whose hash the upstream does not give."""
        # Such a file keeps its address when the upstream begins to give hashes.
        wanted = {sha256} if sha256 else {None, self.first_seen.get(filename)}
        for file in self.files:
            if file.filename == filename and file.sha256 in wanted:
                return file
        return None

    def has_other_bytes(self, filename: str) -> bool:
        """Whether the name is known, with whatever bytes."""
        return any(file.filename == filename for file in self.files)

    def digest_of(self, file: UpstreamFile) -> str | None:
        """The sha256 that the file's bytes must have, as far as it is known."""
        return file.sha256 or self.first_seen.get(file.filename)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)


def encode_record(record: Record) -> bytes:
    return _ENCODER.encode(record)


def decode_record(content: bytes) -> Record | None:
    """None for what another version wrote, or a disk spoilt."""
    try:
        record = _DECODER.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return record if record.format == _FORMAT else None


def absent_record(old: Record | None, upstream: str) -> Record:
    """The upstream has no such project, or no more; what it had stays remembered."""
    if old is None:
        return Record(_FORMAT, upstream, None)
    return msgspec.structs.replace(old, page=None, etag=None, last_modified=None, body_digest="", gone=old.files)


def merge_record(
    old: Record | None,
    upstream: str,
    page: UpstreamPage,
    *,
    etag: str | None,
    last_modified: str | None,
    body_digest: str,
) -> Record:
    """The record after the upstream answered with `page`; files sorted by version, then filename."""
    known = {file.filename: file for file in (old.gone if old else ())}
    known |= {file.filename: file for file in (old.page.files if old and old.page else ())}
    first_seen = old.first_seen if old else {}
    refused: dict[str, str] = {}
    files = []
    for file in page.files:
        pinned = known.get(file.filename)
        if pinned is not None and (other := _find_other(file, pinned, first_seen.get(file.filename))):
            refused[file.filename] = other
            files.append(pinned)
        else:
            files.append(_keep_facts(file, pinned, is_seen=file.filename in first_seen))
    files.sort(key=lambda file: (sort_key(file.version), file.filename))
    named = {file.filename for file in files}
    gone = [file for file in known.values() if file.filename not in named]
    return Record(
        _FORMAT,
        upstream,
        msgspec.structs.replace(page, files=tuple(files)),
        etag,
        last_modified,
        body_digest,
        # What was known first counts most: a flood of new names must not wash it away.
        tuple(gone[:_MOST_GONE]),
        refused,
        first_seen,
        frozenset(old.bare & named) if old else frozenset(),
    )


def _find_other(file: UpstreamFile, pinned: UpstreamFile, first_seen: str | None) -> str | None:
    """The digest that shows that the file has other bytes than were first seen or promised under its name."""
    digest = pinned.sha256 or first_seen
    if file.sha256 is not None:
        return file.sha256 if digest not in {None, file.sha256} else None
    theirs, ours = file.other_digest or "", pinned.other_digest or ""
    if digest is None and theirs != ours and theirs.partition("=")[0] == ours.partition("=")[0]:
        return theirs
    return None


def _keep_facts(file: UpstreamFile, pinned: UpstreamFile | None, *, is_seen: bool) -> UpstreamFile:
    """What goes with bytes stays with them: an upstream that says less, or something else, changes no check.

    `is_seen` says that bytes were fetched of which it gives no sha256.
    """
    if pinned is None:
        return file
    if file.sha256 is None:
        is_same = pinned.sha256 is not None or is_seen
        kept = {"sha256": pinned.sha256, "other_digest": pinned.other_digest or file.other_digest}
    else:
        is_same = file.sha256 == pinned.sha256
        kept = {}
    if is_same:
        kept["size"] = file.size if pinned.size is None else pinned.size  # type: ignore[assignment]
        kept["metadata_sha256"] = pinned.metadata_sha256 or file.metadata_sha256
    return msgspec.structs.replace(file, **kept) if kept else file


def see_first(record: Record, filename: str, sha256: str) -> Record:
    """The record after bytes were fetched of which its page gives no hash; those that were first hold."""
    return msgspec.structs.replace(record, first_seen={filename: sha256, **record.first_seen})


def call_bare(record: Record, filename: str) -> Record:
    """The record after no core metadata could be read from a wheel."""
    return msgspec.structs.replace(record, bare=record.bare | {filename})


def describe(record: Record, file: UpstreamFile) -> UpstreamFile:
    """The file as a page lists it: every wheel has core metadata here, but those that turned out to be bare.

    Where the upstream does not give them, they are read from the wheel when somebody asks. Nothing else that is
    learnt here gets onto the page: it has to stay the same as long as the upstream's does. Signatures are not fetched.
    """
    if file.has_signature:
        file = msgspec.structs.replace(file, has_signature=False)
    if file.kind is Kind.WHEEL and file.metadata_sha256 is None and file.filename not in record.bare:
        return msgspec.structs.replace(file, metadata_sha256="")
    return file


def digest_body(content: bytes, content_type: str, url: str) -> str:
    """What a page is made of: the same bytes at another place may mean other links."""
    return hashlib.sha256(b"\0".join((content_type.encode(), url.encode(), content))).hexdigest()
