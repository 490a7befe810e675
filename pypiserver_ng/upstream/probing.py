"""What one index is worth as an upstream: how fast it is, and what it says of its files. Asks about one project."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from pypiserver_ng.errors import NotFound, UpstreamFailed
from pypiserver_ng.model import Kind, NormalizedName, UpstreamFile
from pypiserver_ng.upstream.addresses import Upstream, public_host
from pypiserver_ng.upstream.client import NotModified, UpstreamClient
from pypiserver_ng.upstream.parsing import RawPage, parse_page

_TRIES = 3
_VERSION = re.compile(
    rb"""<meta[^>]*name=["']pypi:repository-version["'][^>]*content=["']([0-9.]{1,16})["']""", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What asking told; None where it does not apply, or was not reached."""

    name: str
    host: str
    #: One line that says why it cannot be used.
    problem: str | None = None
    #: Seconds: the whole page, best of three; a byte of a file.
    page_seconds: float | None = None
    file_seconds: float | None = None
    #: ``JSON`` or ``HTML``, and the version of the API that the page names.
    form: str | None = None
    api_version: str | None = None
    files: int = 0
    #: Shares of the files that it is said of, from 0 to 1: sha256, size, upload-time, core-metadata, yanked.
    shares: Mapping[str, float] = field(default_factory=dict)
    #: Whether an unchanged page is not sent again.
    revalidates: bool | None = None
    #: Content coding of the page; empty where it comes as it is.
    compression: str | None = None
    ranges: bool | None = None
    #: Upload time of the newest file.
    newest: datetime | None = None


async def probe(client: UpstreamClient, upstream: Upstream, project: NormalizedName) -> Probe:
    host = public_host(upstream.public_url)
    try:
        return await _probe(client, upstream, project, host)
    except (UpstreamFailed, NotFound) as fault:
        return Probe(upstream.name, host, problem=fault.message)


async def _probe(client: UpstreamClient, upstream: Upstream, project: NormalizedName, host: str) -> Probe:
    raw, seconds = await _time_page(client, upstream, project)
    page = parse_page(raw, project)
    if not page.files:
        raise UpstreamFailed(f"The upstream {upstream.name!r} ({host}) lists no files of {project}: probe another")
    is_json = raw.content.lstrip(b"\xef\xbb\xbf\t\r\n ").startswith(b"{")
    smallest = min(page.files, key=lambda file: file.size or 0)
    file_seconds, ranges = await _time_file(client, upstream, smallest)
    again = None
    if raw.etag or raw.last_modified:
        again = await client.fetch_page(upstream, project, raw.etag, raw.last_modified)
    times = [file.upload_time for file in page.files if file.upload_time]
    return Probe(
        upstream.name,
        host,
        page_seconds=seconds,
        file_seconds=file_seconds,
        form="JSON" if is_json else "HTML",
        api_version=_read_json_version(raw.content) if is_json else _read_html_version(raw.content),
        files=len(page.files),
        shares=_count_shares(page.files, _count_yanked_keys(raw.content) if is_json else None),
        revalidates=isinstance(again, NotModified),
        compression=raw.coding,
        ranges=ranges,
        newest=max(times, default=None),
    )


async def _time_page(client: UpstreamClient, upstream: Upstream, project: NormalizedName) -> tuple[RawPage, float]:
    best: tuple[RawPage, float] | None = None
    for _ in range(_TRIES):
        began = time.perf_counter()
        raw = await client.fetch_page(upstream, project)
        seconds = time.perf_counter() - began
        if raw is None:
            host = public_host(upstream.public_url)
            raise NotFound(f"The upstream {upstream.name!r} ({host}) does not have {project}: probe another project")
        assert isinstance(raw, RawPage)
        if best is None or seconds < best[1]:
            best = raw, seconds
    assert best is not None
    return best


async def _time_file(client: UpstreamClient, upstream: Upstream, file: UpstreamFile) -> tuple[float, bool]:
    """Seconds to the first byte of a part, and whether it was sent as a part."""
    began = time.perf_counter()
    async with client.open(upstream, file.url, first=0, last=0) as answer:
        await anext(answer.chunks, b"")
        return time.perf_counter() - began, answer.status == 206


def _count_shares(files: Sequence[UpstreamFile], yanked_keys: int | None) -> dict[str, float]:
    wheels = [file for file in files if file.kind is Kind.WHEEL]
    # A page of HTML says nothing of a file that is not yanked.
    yanked = sum(file.yanked for file in files) if yanked_keys is None else min(yanked_keys, len(files))
    return {
        "sha256": _share(sum(file.sha256 is not None for file in files), len(files)),
        "size": _share(sum(file.size is not None for file in files), len(files)),
        "upload-time": _share(sum(file.upload_time is not None for file in files), len(files)),
        "core-metadata": _share(sum(file.metadata_sha256 is not None for file in wheels), len(wheels)),
        "yanked": _share(yanked, len(files)),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


class _Keys(msgspec.Struct):
    yanked: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Files(msgspec.Struct):
    files: list[_Keys]


class _Meta(msgspec.Struct, rename="kebab"):
    api_version: str | None = None


class _Head(msgspec.Struct):
    meta: _Meta | None = None


def _count_yanked_keys(content: bytes) -> int:
    try:
        decoded = msgspec.json.decode(content.removeprefix(b"\xef\xbb\xbf"), type=_Files)
    except (ValueError, RecursionError):
        return 0
    return sum(file.yanked is not msgspec.UNSET for file in decoded.files)


def _read_json_version(content: bytes) -> str | None:
    try:
        head = msgspec.json.decode(content.removeprefix(b"\xef\xbb\xbf"), type=_Head)
    except (ValueError, RecursionError):
        return None
    return head.meta.api_version[:16] if head.meta and head.meta.api_version else None


def _read_html_version(content: bytes) -> str | None:
    found = _VERSION.search(content[: 2**16])
    return found[1].decode() if found else None
