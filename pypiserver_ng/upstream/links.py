"""The HTML form of a project's page becomes entries in the shape of the JSON form. No I/O, no HTTP.

A page of links without a link is a project without files; a login page, a landing page or an error that was sent with
status 200 is a failure, because "no versions" would be a lie.
"""

import re
from html.parser import HTMLParser
from urllib.parse import unquote

from pypiserver_ng.errors import UpstreamFailed
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import NormalizedName, normalize_name
from pypiserver_ng.upstream.addresses import clean_url
from pypiserver_ng.upstream.entries import Entry

#: Characters that are parsed in one go, and how many an unfinished tag or comment may hold: the parser looks at what
#: is unfinished anew with every piece.
_PIECE = 2**15
_LONGEST_TAG = 2**17
#: What of a heading is kept.
_LONGEST_HEADING = 500

_HEADING = re.compile(r"\b(?:links for|index of|simple index|directory listing for)\b", re.IGNORECASE)
_SILENT = {"head", "title", "script", "style"}
Attributes = list[tuple[str, str | None]]


def read_links(text: str, name: NormalizedName, url: str, most: int) -> "LinkReader":
    """Raises UpstreamFailed where the text is no page of links."""
    reader = LinkReader(url, most)
    try:
        for start in range(0, len(text), _PIECE):
            reader.feed(text[start : start + _PIECE])
            if len(reader.rawdata) > _LONGEST_TAG:
                raise UpstreamFailed(f"a tag is longer than {_LONGEST_TAG} characters")
    # The parser raises AssertionError at declarations that it does not know, ValueError at endless numbers.
    except (AssertionError, ValueError) as error:
        raise UpstreamFailed("the HTML cannot be read") from error
    if not reader.has_files and (reason := reader.find_fault(name)):
        raise UpstreamFailed(reason)
    return reader


class LinkReader(HTMLParser):
    """What a page of links holds. `close` is never called: what is unfinished at the end is no link."""

    def __init__(self, url: str, most: int) -> None:
        super().__init__(convert_charrefs=True)
        #: Where relative links of the whole page start.
        self.base = url
        self.entries: list[Entry] = []
        self.status: str | None = None
        self.status_reason: str | None = None
        self.has_files = False
        self._most = most
        self._has_base = False
        self._is_index = False
        self._asks = False
        self._has_text = False
        self._heading = ""
        self._inside = ""

    def find_fault(self, name: NormalizedName) -> str | None:
        """Why a page without links to files is no project without files."""
        if self._asks:
            return "it asks for something, as login pages do"
        heading = self._heading.strip()
        if self._is_index or _HEADING.search(heading) or normalize_name(heading) == name:
            return None
        return "it holds other things than links to files" if self._has_text else None

    def updatepos(self, i: int, j: int) -> int:
        """Count no lines: nobody asks in which one a link stands."""
        return j

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        if tag == "a":
            self._take_anchor(attrs)
        elif tag == "meta":
            self._take_meta(attrs)
        elif tag == "base":
            self._take_base(attrs)
        elif tag in {"form", "input"}:
            self._asks = True
        elif tag in {"script", "iframe", "frame"}:
            # Such a page is made by a program in the browser: what it would show is not known.
            self._has_text = True
        if tag in _SILENT or tag == "h1":
            self._inside = tag
        elif tag == "body":
            self._inside = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"title", "h1"} and len(self._heading) < _LONGEST_HEADING:
            self._heading += data[:_LONGEST_HEADING]
        if self._inside not in _SILENT and not self._has_text:
            self._has_text = not data.isspace()

    def _take_base(self, attrs: Attributes) -> None:
        """HTML: only the first base element with a URL counts."""
        link = _first(attrs).get("href")
        if not self._has_base and link and (base := clean_url(link, self.base)):
            self.base = base
            self._has_base = True

    def _take_meta(self, attrs: Attributes) -> None:
        values = _first(attrs)
        match (values.get("name") or "").lower():
            case "pypi:repository-version":
                self._is_index = True
            case "pypi:project-status":
                self._is_index = True
                self.status = values.get("content")
            case "pypi:project-status-reason":
                self.status_reason = values.get("content")

    def _take_anchor(self, attrs: Attributes) -> None:
        values = _first(attrs)
        link, _, fragment = (values.get("href") or "").strip().partition("#")
        filename = _read_filename(link)
        if not filename:
            return
        if len(self.entries) >= self._most:
            raise UpstreamFailed(f"it lists more than {self._most} files")
        self.has_files = self.has_files or parse_found(filename) is not None
        self.entries.append(_make_entry(filename, link, fragment, values))


def _first(attrs: Attributes) -> dict[str, str | None]:
    """HTML: of several attributes with one name the first counts."""
    return dict(reversed(attrs))


def _read_filename(link: str) -> str:
    """The last component of the URL's path, decoded only after it was cut out."""
    try:
        return unquote(link.partition("?")[0].rpartition("/")[2], errors="strict")
    except ValueError:
        return ""


def _make_entry(filename: str, url: str, fragment: str, values: dict[str, str | None]) -> Entry:
    metadata = values.get("data-core-metadata", values.get("data-dist-info-metadata"))
    has_metadata = "data-core-metadata" in values or "data-dist-info-metadata" in values
    return Entry(
        filename=filename,
        url=url,
        hashes=_read_pairs(fragment),
        requires_python=values.get("data-requires-python"),
        # "the value of which, if present": a yank may have no reason.
        yanked=(values["data-yanked"] or True) if "data-yanked" in values else None,
        upload_time=values.get("data-upload-time"),
        core_metadata=_read_metadata(metadata or "") if has_metadata else None,
        gpg_sig=values.get("data-gpg-sig") == "true",
        provenance=values.get("data-provenance"),
    )


def _read_pairs(fragment: str) -> dict[str, str]:
    """``#<hashname>=<hashvalue>``, where other pairs may follow; the first of one name counts."""
    pairs = (pair.partition("=") for pair in reversed(fragment.split("&")[:20]))
    return {name.lower(): value for name, equals, value in pairs if equals}


def _read_metadata(value: str) -> object:
    algorithm, equals, digest = value.partition("=")
    if equals and algorithm.lower() == "sha256":
        return {"sha256": digest}
    return value.lower() != "false"
