"""Facts become the bytes of the simple repository API: HTML and JSON, compressed forms, ETags, headers.

The only renderer of `/simple/`. Pages are a pure function of facts and never depend on who asks: the same
facts give the same bytes. File URLs are relative, so pages survive a path prefix, a proxy and https; only the
URL of provenance has to be absolute.
Specification: the simple repository API, versions 1.0 to 1.4 (PEP 503, 592, 629, 658, 691, 700, 714, 740, 792).
"""

import gzip
import hashlib
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

import msgspec

from pypiserver_ng.model import Body, File, Listed, NormalizedName, Project, Status

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

API_VERSION = "1.4"
#: "If size is missing" a page may not claim 1.1 (PEP 700) or what came later.
SIZELESS_API_VERSION = "1.0"

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "application/vnd.pypi.simple.v1+html"
PLAIN_HTML_TYPE = "text/html"
#: What a page is served as, the richest first.
MEDIA_TYPES = (JSON_TYPE, HTML_TYPE, PLAIN_HTML_TYPE)

IDENTITY = "identity"
GZIP = "gzip"
ZSTD = "zstd"
#: What a page may be compressed with, the smallest result first.
CODINGS = (ZSTD, GZIP)

#: Below this many bytes compression costs more than it saves.
_WORTH_COMPRESSING = 512
#: Names of the list of projects that are put together in one step.
_NAMES_AT_ONCE = 10_000
#: Higher levels gain nothing: most of a page is digests, which are random.
_ZSTD_LEVEL = 6

# Nothing on these pages runs, submits or loads anything but the one stylesheet.
_CONTENT_SECURITY = b"default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def render_project(project: Project, media_type: str, *, provenance_base: str = "") -> bytes:
    """One project's page: every file once, in the order of `project.files`.

    "The value MUST be a fully qualified URL" of provenance: `provenance_base` is the absolute URL of the root, or
    empty where clients could not trust what they fetch from there.
    """
    render = _project_json if media_type == JSON_TYPE else _project_html
    return render(project, provenance_base)


def render_root(names: Sequence[NormalizedName], media_type: str) -> bytes:
    """The list of all projects; `names` sorted and unique."""
    return _root_json(names) if media_type == JSON_TYPE else _root_html(names)


def make_body(content: bytes, media_type: str, coding: str, *, private: bool) -> Body:
    """Compress if asked, and prepare both header lists. A tiny page stays as it is in every coding."""
    compress = coding != IDENTITY and len(content) >= _WORTH_COMPRESSING
    sent = _compress(content, coding) if compress else content
    # A strong validator differs for each representation and content coding (RFC 9110, 8.8.1).
    etag = make_etag(media_type.encode(), coding.encode() if compress else b"", content)
    shared = [
        (b"etag", etag),
        (b"cache-control", cache_control(private=private)),
        (b"vary", b"Accept, Accept-Encoding"),
    ]
    charset = b"" if media_type == JSON_TYPE else b"; charset=utf-8"
    headers = [
        (b"content-type", media_type.encode() + charset),
        (b"content-length", b"%d" % len(sent)),
        *shared,
        (b"x-content-type-options", b"nosniff"),
    ]
    if compress:
        headers.append((b"content-encoding", coding.encode()))
    if media_type != JSON_TYPE:
        headers += [(b"content-security-policy", _CONTENT_SECURITY), (b"referrer-policy", b"same-origin")]
    return Body(sent, etag, headers, shared)


def make_etag(*parts: bytes) -> bytes:
    """A strong entity tag of everything that tells one representation from others."""
    return b'"%s"' % hashlib.sha256(b"\0".join(parts)).hexdigest()[:32].encode()


def cache_control(*, private: bool) -> bytes:
    """Of whatever may change at any time: kept, and asked for again each time; by nobody else where it was guarded."""
    return b"private, no-cache" if private else b"no-cache"


def _compress(content: bytes, coding: str) -> bytes:
    if coding == ZSTD:
        return zstd.compress(content, level=_ZSTD_LEVEL)
    return gzip.compress(content, compresslevel=6, mtime=0)


def api_version(files: Iterable[Listed]) -> str:
    """The highest version whose promises a page of these files can keep."""
    return SIZELESS_API_VERSION if any(file.size is None for file in files) else API_VERSION


def file_url(file: Listed, prefix: str) -> str:
    """The URL path of a file below `prefix`, percent-encoded (RFC 3986)."""
    return f"{prefix}packages/{quote(file.path)}"


def format_time(moment: datetime) -> str:
    """``yyyy-mm-ddThh:mm:ss.ffffffZ`` (PEP 700)."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def provenance_url(file: Listed, base: str) -> str | None:
    """Where the provenance object of a file is: at its upstream, or below the absolute URL of the root."""
    if not isinstance(file, File):
        return file.provenance_url
    if not file.has_provenance or not base:
        return None
    return f"{base}integrity/{file.project}/{quote(file.version, safe='')}/{quote(file.filename, safe='')}/provenance"


def describe_status(project: Project) -> dict[str, str]:
    """The ``project-status`` object (PEP 792); empty for an active project without a reason."""
    marker = {"status": project.status.value}
    if project.status_reason:
        marker["reason"] = project.status_reason
    return marker if marker != {"status": Status.ACTIVE} else {}


def _project_json(project: Project, provenance_base: str) -> bytes:
    status = describe_status(project)
    return msgspec.json.encode(
        {
            "meta": {"api-version": api_version(project.files)},
            "name": project.name,
            **({"project-status": status} if status else {}),
            "versions": _versions(project.files),
            "files": [_file_json(file, provenance_base) for file in project.files],
        }
    )


def _versions(files: Iterable[Listed]) -> list[str]:
    return list(dict.fromkeys(file.version for file in files if file.version))


class _FileEntry(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    rename={
        "requires_python": "requires-python",
        "upload_time": "upload-time",
        "core_metadata": "core-metadata",
        "gpg_sig": "gpg-sig",
    },
):
    """One of `files`. A struct, because a page may have ten thousand of them."""

    filename: str
    url: str
    hashes: dict[str, str]
    core_metadata: dict[str, str] | bool
    yanked: bool | str
    size: int | None = None
    upload_time: str | None = None
    requires_python: str | None = None
    gpg_sig: bool = False
    provenance: str | None = None


def _file_json(file: Listed, provenance_base: str) -> _FileEntry:
    return _FileEntry(
        filename=file.filename,
        url=file_url(file, "../../"),
        hashes=hashes(file),
        core_metadata=core_metadata(file),
        yanked=(file.yanked_reason or True) if file.yanked else False,
        size=file.size,
        upload_time=format_time(file.upload_time) if file.upload_time is not None else None,
        requires_python=file.requires_python or None,
        gpg_sig=file.has_signature,
        provenance=provenance_url(file, provenance_base),
    )


def hashes(file: Listed) -> dict[str, str]:
    """The ``hashes`` object: the sha256, or the only other digest that the upstream gives."""
    if file.sha256 is not None:
        return {"sha256": file.sha256}
    algorithm, _, digest = _other_digest(file).partition("=")
    return {algorithm: digest} if digest else {}


def _other_digest(file: Listed) -> str:
    return "" if isinstance(file, File) else file.other_digest or ""


def core_metadata(file: Listed) -> dict[str, str] | bool:
    """The ``core-metadata`` value (PEP 714)."""
    return {"sha256": file.metadata_sha256} if file.metadata_sha256 else file.metadata_sha256 is not None


def _root_json(names: Sequence[NormalizedName]) -> bytes:
    # Names need no escaping; and nothing here keeps other threads from running for long, whatever the number of names.
    projects = ",".join(
        '{"name":"' + '"},{"name":"'.join(names[start : start + _NAMES_AT_ONCE]) + '"}'
        for start in range(0, len(names), _NAMES_AT_ONCE)
    )
    return f'{{"meta":{{"api-version":"{API_VERSION}"}},"projects":[{projects}]}}'.encode()


def _html(title: str, base: str, lines: Iterable[str], metas: Iterable[str] = (), version: str = API_VERSION) -> bytes:
    heading = escape(title)
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta name="pypi:repository-version" content="{version}">',
            *metas,
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<link rel="stylesheet" href="{base}-/style.css">',
            f"<title>{heading}</title>",
            "</head>",
            '<body class="simple">',
            f"<h1>{heading}</h1>",
            *lines,
            "</body>",
            "</html>\n",
        )
    ).encode()


def _project_html(project: Project, provenance_base: str) -> bytes:
    status = describe_status(project)
    metas = [
        f'<meta name="pypi:project-status{suffix}" content="{escape(status[key])}">'
        for key, suffix in (("status", ""), ("reason", "-reason"))
        if key in status
    ]
    lines = [_anchor(file, provenance_base) for file in project.files]
    if status:
        lines.insert(0, f"<p>This project is {escape(': '.join(status.values()))}</p>")
    return _html(f"Links for {project.name}", "../../", lines, metas, api_version(project.files))


def _anchor(file: Listed, provenance_base: str) -> str:
    attributes = ""
    if file.requires_python:
        attributes += f' data-requires-python="{escape(file.requires_python)}"'
    if file.metadata_sha256 is not None:
        value = f"sha256={file.metadata_sha256}" if file.metadata_sha256 else "true"
        attributes += f' data-core-metadata="{value}"'
    if file.has_signature:
        attributes += ' data-gpg-sig="true"'
    if file.yanked:
        attributes += f' data-yanked="{escape(file.yanked_reason or "")}"'
    if provenance := provenance_url(file, provenance_base):
        attributes += f' data-provenance="{escape(provenance)}"'
    digest = f"sha256={file.sha256}" if file.sha256 else _other_digest(file)
    href = escape(file_url(file, "../../")) + (f"#{digest}" if digest else "")
    return f'<a href="{href}"{attributes}>{escape(file.filename)}</a><br>'


def _root_html(names: Sequence[NormalizedName]) -> bytes:
    return _html("Simple index", "../", (f'<a href="{name}/">{name}</a><br>' for name in names))
