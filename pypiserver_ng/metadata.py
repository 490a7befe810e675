"""Core metadata (METADATA of a wheel, PKG-INFO of an sdist) becomes fields; all faults are reported at once.

Follows the core metadata specification, versions 1.0 to 2.6. Takes bytes and returns values; knows no archive, no
form and no catalog. The bytes are hostile: the standard library's mail parser follows MIME headers into nested parts
and is not used, and every count and length that costs more than linear time has a limit.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import ParsedFilename, is_project_name, normalize_name

#: Largest metadata file in bytes.
MAX_SIZE = 16 * 2**20
#: Most lines before the description; real files have hundreds.
MAX_LINES = 100_000
#: Longest requirement or specifier, and longest sum of all requirements, that `packaging` is given, in characters.
MAX_VALUE = 8_192
MAX_REQUIREMENTS = 2**20
#: Most faults that are looked for.
MAX_FAULTS = 20
#: Longest message of an Invalid in characters.
MAX_MESSAGE = 500

_SINGLE = frozenset(
    (
        "metadata-version",
        "name",
        "version",
        "summary",
        "requires-python",
        "description",
        "description-content-type",
        "author",
        "author-email",
        "maintainer",
        "maintainer-email",
        "license",
        "license-expression",
        "keywords",
        "home-page",
        "download-url",
    )
)
_MULTIPLE = frozenset(
    ("license-file", "project-url", "classifier", "requires-dist", "provides-extra", "platform", "dynamic")
)
#: Fields in which line breaks are part of the value.
_TEXT = frozenset(("description", "license"))
_FOLD = re.compile(r"\n(?: {7}\|| {8})")
_HEADER = re.compile(r"([!-9;-~]+):(.*)", re.DOTALL)
_VERSIONS = re.compile(r"\A(?:1\.[012]|2\.[0-9]{1,3})\Z")
#: What neither XML nor PostgreSQL can hold, and other control characters but tab and newline.
#: Characters of a summary that are shown in lists.
MAX_SUMMARY = 512
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class CoreMetadata:
    """The fields of one core metadata file as text, whitespace trimmed; absent, empty and UNKNOWN are None or ()."""

    name: str
    version: str
    metadata_version: str | None = None
    summary: str | None = None
    requires_python: str | None = None
    description: str | None = None
    description_content_type: str | None = None
    author: str | None = None
    author_email: str | None = None
    maintainer: str | None = None
    maintainer_email: str | None = None
    license: str | None = None
    license_expression: str | None = None
    license_files: tuple[str, ...] = ()
    keywords: str | None = None
    home_page: str | None = None
    download_url: str | None = None
    #: (label, URL) as they stand in the file: whoever makes links of them checks the scheme.
    project_urls: tuple[tuple[str, str], ...] = ()
    classifiers: tuple[str, ...] = ()
    requires_dist: tuple[str, ...] = ()
    provides_extra: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()


def parse_metadata(raw: bytes) -> CoreMetadata:
    """Read what can be read; text that is not UTF-8 is taken as latin-1.

    Raises Invalid only where there is no usable Name or Version, or where the file is beyond all measure.
    """
    return _build(_read_fields(raw, "utf-8" if _is_utf8(raw) else "latin-1"))


def validate_metadata(raw: bytes, expected: ParsedFilename) -> CoreMetadata:
    """Read the metadata of an upload whose filename said `expected`.

    Raises Invalid with all faults in one line.
    """
    if not _is_utf8(raw):
        raise Invalid("The metadata is not UTF-8")
    fields = _read_fields(raw, "utf-8")
    faults = list(islice(_find_faults(fields, expected), MAX_FAULTS))
    if faults:
        message = "Invalid metadata: " + "; ".join(faults)
        raise Invalid(message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…")
    return _build(fields)


def shorten_summary(summary: str | None) -> str | None:
    """What lists and searches show of a summary: at most as much as the public index takes."""
    return summary[:MAX_SUMMARY] if summary else None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_fields(raw: bytes, encoding: str) -> dict[str, list[str]]:
    """Known fields by lower-case name, empty values dropped; the description that follows the headers included."""
    if len(raw) > MAX_SIZE:
        raise Invalid(f"The metadata is larger than {MAX_SIZE // 2**20} MiB")
    fields: dict[str, list[str]] = {}
    headers = _Headers(raw, encoding)
    for name, value in headers:
        known = name in _SINGLE or name in _MULTIPLE
        if known and (cleaned := _clean(name, value)):
            fields.setdefault(name, []).append(cleaned)
    body = _CONTROLS.sub(" ", headers.read_rest())
    if body.strip() not in {"", "UNKNOWN"}:
        fields["description"] = [body]
    return fields


class _Headers:
    """Iterates (lower-case name, raw value); `read_rest` is what follows the headers.

    As for the mail parser, a line that is no header and continues none ends the headers and begins the rest.
    """

    def __init__(self, raw: bytes, encoding: str) -> None:
        self._stream = io.TextIOWrapper(io.BytesIO(raw), encoding)
        self._after = ""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        name, value = "", [""]
        for number, line in enumerate(self._stream):
            if number == MAX_LINES:
                raise Invalid(f"The metadata has more than {MAX_LINES} lines before its description")
            if line[0] in " \t":
                value.append(line)
                continue
            yield name, "".join(value)
            header = _HEADER.match(line)
            if header is None:
                self._after = line.removeprefix("\n")
                return
            name, value = header[1].lower(), [header[2]]
        yield name, "".join(value)

    def read_rest(self) -> str:
        return self._after + self._stream.read()


def _clean(name: str, value: str) -> str:
    value = _CONTROLS.sub(" ", value)
    # "any CRLF in the field must be suffixed by 7 spaces followed by a pipe"; older tools wrote 8 spaces.
    value = _FOLD.sub("\n", value).strip() if name in _TEXT else " ".join(value.split())
    return "" if value == "UNKNOWN" else value


def _build(fields: dict[str, list[str]]) -> CoreMetadata:
    def one(name: str) -> str | None:
        values = fields.get(name)
        return values[0] if values else None

    def many(name: str) -> tuple[str, ...]:
        return tuple(fields.get(name, ()))

    name, version = one("name"), one("version")
    if name is None or not is_project_name(name):
        raise Invalid("The metadata has no valid Name")
    if version is None:
        raise Invalid("The metadata has no Version")
    return CoreMetadata(
        name=name,
        version=version,
        metadata_version=one("metadata-version"),
        summary=one("summary"),
        requires_python=one("requires-python"),
        description=one("description"),
        description_content_type=one("description-content-type"),
        author=one("author"),
        author_email=one("author-email"),
        maintainer=one("maintainer"),
        maintainer_email=one("maintainer-email"),
        license=one("license"),
        license_expression=one("license-expression"),
        license_files=many("license-file"),
        keywords=one("keywords"),
        home_page=one("home-page"),
        download_url=one("download-url"),
        project_urls=tuple(_split_url(value) for value in many("project-url")),
        classifiers=many("classifier"),
        requires_dist=many("requires-dist"),
        provides_extra=many("provides-extra"),
        platforms=many("platform"),
        dynamic=many("dynamic"),
    )


def _split_url(value: str) -> tuple[str, str]:
    """``label, URL``; without a comma the whole is the URL."""
    label, comma, url = value.partition(",")
    return (label.strip(), url.strip()) if comma else ("", value)


def _find_faults(fields: dict[str, list[str]], expected: ParsedFilename) -> Iterator[str]:
    for name in sorted(_SINGLE):
        if len(fields.get(name, ())) > 1:
            yield f"{_title(name)} is given more than once"
    version = fields.get("metadata-version", [""])[0]
    if not _VERSIONS.match(version):
        yield f"Metadata-Version {_quote(version)} is not known" if version else "Metadata-Version is missing"
    yield from _find_name_faults(fields, expected)
    yield from _unparsable("Requires-Python", "version specifier", SpecifierSet, fields.get("requires-python", ()))
    requirements = fields.get("requires-dist", [])
    if sum(map(len, requirements)) > MAX_REQUIREMENTS:
        yield f"Requires-Dist is longer than {MAX_REQUIREMENTS} characters in all"
    else:
        yield from _unparsable("Requires-Dist", "requirement", Requirement, requirements)


def _find_name_faults(fields: dict[str, list[str]], expected: ParsedFilename) -> Iterator[str]:
    name = fields.get("name", [""])[0]
    if not is_project_name(name):
        yield f"Name {_quote(name)} is not a project name" if name else "Name is missing"
    elif normalize_name(name) != expected.name:
        yield f"Name {name} is not that of the filename, {expected.display_name}"
    version = fields.get("version", [""])[0]
    if not version:
        yield "Version is missing"
    elif not _parses(Version, version):
        yield f"Version {_quote(version)} is not a version by PEP 440"
    elif Version(version) != Version(expected.version):
        yield f"Version {version} is not that of the filename, {expected.version}"


def _unparsable(field: str, what: str, parse: Callable[[str], object], values: Iterable[str]) -> Iterator[str]:
    for value in values:
        if not _parses(parse, value):
            yield f"{field} {_quote(value)} is not a valid {what}"


def _parses(parse: Callable[[str], object], value: str) -> bool:
    """Beyond its own errors, packaging lets out ValueError (long numbers) and RecursionError (nested parentheses)."""
    if len(value) > MAX_VALUE:
        return False
    try:
        parse(value)
    except (ValueError, RecursionError):
        return False
    return True


def _title(name: str) -> str:
    return name.replace("url", "URL").title().replace("Url", "URL")


def _quote(value: str) -> str:
    """At most 60 characters, printable, in one line."""
    return repr(value[:57] + "..." if len(value) > 60 else value)
