"""What the owner of a cache does to it: look, remove, purge. Blocking; commands use it beside a running server."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from pypiserver_ng.filenames import is_same_version, parse_found
from pypiserver_ng.index.mirror.downloads import name_key
from pypiserver_ng.index.mirror.record import Record, decode_record, encode_record
from pypiserver_ng.model import NormalizedName, UpstreamFile
from pypiserver_ng.storage import Cache, Kept, Usage


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One distribution file in the cache, core metadata left out."""

    project: NormalizedName
    version: str
    kept: Kept


class Keeper:
    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def usage(self) -> Usage:
        return self._cache.usage()

    def files(self) -> list[KeptFile]:
        """Every file, by project; within it what was not used for longest comes first."""
        found = [
            KeptFile(parsed.name, parsed.version, kept)
            for kept in self._cache.files()
            if not kept.is_metadata and (parsed := parse_found(kept.filename))
        ]
        return sorted(found, key=lambda file: file.project)

    def remove(self, name: NormalizedName, version: str | None) -> tuple[int, int, bool]:
        """Forget a project or one of its releases, and what was first seen under their filenames.

        Returns how many files went, how many stay because they are being sent, and whether anything was known.
        """
        is_meant = _Meant(name, version)
        keys: set[str] = set()
        is_known = False
        with self._cache.lock:
            for upstream, content in list(self._cache.pages(name)):
                record = decode_record(content)
                if record is None:
                    continue
                files = [file for file in record.files if is_meant(file)]
                keys.update(name_key(upstream, file) for file in files)
                is_known = is_known or version is None or bool(files)
                if version is not None:
                    self._cache.write_page(upstream, name, encode_record(_forget(record, is_meant)), checked=0)
            if version is None:
                self._cache.remove_page(name)
        gone = stay = 0
        for kept in self._cache.files():
            parsed = parse_found(kept.filename)
            is_file = parsed is not None and is_meant.covers(parsed.name, parsed.version)
            if not is_file and not (kept.is_metadata and kept.sha256 in keys):
                continue
            is_gone = self._cache.remove(kept)
            gone += is_gone and is_file
            stay += not is_gone
        self._cache.notice()
        return gone, stay, is_known or bool(gone or stay)

    def purge(self) -> None:
        """Remove every file, and have pages asked for again. What was first seen is still known."""
        self._cache.purge()


@dataclass(frozen=True, slots=True)
class _Meant:
    name: NormalizedName
    version: str | None

    def __call__(self, file: UpstreamFile) -> bool:
        return self.covers(file.project, file.version)

    def covers(self, name: NormalizedName, version: str) -> bool:
        return name == self.name and (self.version is None or is_same_version(version, self.version))


def _forget(record: Record, is_meant: _Meant) -> Record:
    """The record without some files, so that its upstream's next word about them is the first."""
    forgotten = {file.filename for file in record.files if is_meant(file)}
    page = record.page
    if page is not None:
        page = msgspec.structs.replace(page, files=_without(page.files, forgotten))
    return msgspec.structs.replace(
        record,
        page=page,
        # Without them the whole page comes again.
        etag=None,
        last_modified=None,
        body_digest="",
        gone=_without(record.gone, forgotten),
        refused={name: digest for name, digest in record.refused.items() if name not in forgotten},
        first_seen={name: digest for name, digest in record.first_seen.items() if name not in forgotten},
        bare=record.bare - forgotten,
    )


def _without(files: Sequence[UpstreamFile], names: set[str]) -> tuple[UpstreamFile, ...]:
    return tuple(file for file in files if file.filename not in names)
