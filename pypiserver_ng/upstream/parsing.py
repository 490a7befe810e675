"""What another index answered becomes an `UpstreamPage`. Pure and meant for a thread; no I/O, no HTTP.

Lenient where real indexes are: what is missing is missing. Strict where a hostile one could gain: see `entries`.
"""

import re
from dataclasses import dataclass

import msgspec

from pypiserver_ng.errors import UpstreamFailed
from pypiserver_ng.model import NormalizedName, UpstreamPage, normalize_name
from pypiserver_ng.upstream.addresses import public_host
from pypiserver_ng.upstream.entries import Collector, Entry
from pypiserver_ng.upstream.links import read_links

#: Files of one page; the largest project of the public index has a tenth of it.
MOST_FILES = 200_000
#: Every item of a list costs memory before it is looked at, and some are two bytes long. Files have 12 commas each.
_MOST_COMMAS = 2_500_000
#: Bytes of a page's own facts.
_LONGEST_FACT = 2**16

_BOM = b"\xef\xbb\xbf"
_OBJECT = re.compile(rb"\s*\{")
_HTML_TYPES = {"text/html", "application/vnd.pypi.simple.v1+html", "application/xhtml+xml", ""}


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page as it was answered, unpacked."""

    content: bytes
    content_type: str
    #: Where it was found in the end, without credentials: relative links start here.
    url: str
    etag: str | None = None
    last_modified: str | None = None
    #: The content coding that it came in; empty for none.
    coding: str = ""


class _Page(msgspec.Struct, rename="kebab"):
    # Raw, so that each file is decoded by itself: a bad one costs itself, and other threads get their turn.
    files: list[msgspec.Raw]
    meta: msgspec.Raw = msgspec.Raw(b"null")
    name: msgspec.Raw = msgspec.Raw(b"null")
    project_status: msgspec.Raw = msgspec.Raw(b"null")


_PAGE = msgspec.json.Decoder(_Page)
_ENTRY = msgspec.json.Decoder(Entry)


def parse_page(raw: RawPage, name: NormalizedName) -> UpstreamPage:
    """The files of the project that the page lists, in its order.

    Raises UpstreamFailed with one line where the answer is no project's page.
    """
    content = raw.content.removeprefix(_BOM)
    media_type = raw.content_type.partition(";")[0].strip().lower()
    try:
        if not content.strip():
            raise UpstreamFailed("it is empty")
        # Some send JSON as text, so the body decides.
        if _OBJECT.match(content):
            return _parse_json(content, name, raw.url)
        if media_type in _HTML_TYPES:
            return _parse_html(content, name, raw.url)
        raise UpstreamFailed("it is neither HTML nor JSON")
    except UpstreamFailed as failure:
        raise UpstreamFailed(f"{public_host(raw.url)} answered with no project's page: {failure}") from failure


def _parse_json(content: bytes, name: NormalizedName, url: str) -> UpstreamPage:
    if content.count(b",") > _MOST_COMMAS:
        raise UpstreamFailed("it holds too much")
    try:
        page = _PAGE.decode(content)
    except msgspec.ValidationError as error:
        raise UpstreamFailed("the JSON lists no files") from error
    except (ValueError, RecursionError) as error:
        raise UpstreamFailed("the JSON cannot be read") from error
    if len(page.files) > MOST_FILES:
        raise UpstreamFailed(f"it lists more than {MOST_FILES} files")
    _check_version(_decode_fact(page.meta))
    named = _decode_fact(page.name)
    if isinstance(named, str) and normalize_name(named) != name:
        raise UpstreamFailed("it is the page of another project")
    collector = Collector(name, url)
    for item in page.files:
        try:
            entry = _ENTRY.decode(item)
        except (ValueError, RecursionError):
            continue
        collector.take(entry)
    status = _decode_fact(page.project_status)
    if isinstance(status, dict):
        return collector.finish(status.get("status"), status.get("reason"))
    return collector.finish(status, None)


def _check_version(meta: object) -> None:
    """Of another major version nothing is known; a page without a version is as old as the format."""
    version = meta.get("api-version") if isinstance(meta, dict) else None
    is_first = version.partition(".")[0] == "1" if isinstance(version, str) else version is None or version == 1
    if not is_first:
        raise UpstreamFailed("it speaks another version of the simple API than 1")


def _decode_fact(fact: msgspec.Raw) -> object:
    if memoryview(fact).nbytes > _LONGEST_FACT:
        return None
    try:
        decoded: object = msgspec.json.decode(fact)
    except (ValueError, RecursionError):
        return None
    return decoded


def _parse_html(content: bytes, name: NormalizedName, url: str) -> UpstreamPage:
    # Whatever the charset is said to be: all that matters is ASCII, and Python's codecs have odd ones.
    links = read_links(content.decode(errors="replace"), name, url, MOST_FILES)
    collector = Collector(name, links.base)
    for entry in links.entries:
        collector.take(entry)
    return collector.finish(links.status, links.status_reason)
