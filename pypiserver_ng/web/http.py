"""What every surface shares of HTTP: headers, negotiation, conditionals and whole answers; `failures` has the others.

Specification: RFC 9110 (semantics), RFC 9111 (caching), and the simple repository API's version and format
selection.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import parse_qs, quote

from starlette.exceptions import HTTPException
from starlette.types import Scope, Send

from pypiserver_ng import pages
from pypiserver_ng.auth import Gate
from pypiserver_ng.errors import NotFound
from pypiserver_ng.model import Body, Identity, NormalizedName, Right, is_project_name, normalize_name

Headers = list[tuple[bytes, bytes]]

_CONTENT_SECURITY = (
    b"default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    b"frame-ancestors 'none'"
)
#: What every page for people carries: nothing runs, nothing is loaded from elsewhere, no other site may frame it.
SECURITY: Headers = [
    (b"content-security-policy", _CONTENT_SECURITY),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

_LATEST = {
    "application/vnd.pypi.simple.latest+json": pages.JSON_TYPE,
    "application/vnd.pypi.simple.latest+html": pages.HTML_TYPE,
}
_OFFERED = {media_type: media_type for media_type in pages.MEDIA_TYPES} | _LATEST
_MEDIA_RANGE = re.compile(r"\A\s*([A-Za-z0-9!#$&^_.+*-]+)/([A-Za-z0-9!#$&^_.+*-]+)\s*(?:;(.*))?\Z", re.DOTALL)
_QUALITY = re.compile(r"(?:\A|;)\s*[qQ]\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|\Z)")
_BAD_QUALITY = re.compile(r"(?:\A|;)\s*[qQ]\s*=")
_ENTITY_TAG = re.compile(rb'(?:W/)?("[^"]*")|(\*)')
#: Bytes of a header value whose meaning is remembered; a client must not fill memory with others.
LONGEST_REMEMBERED = 1024


def header(scope: Scope, name: bytes) -> bytes | None:
    """A request header's value, its name given in lower case; several lines are one list (RFC 9110, 5.2)."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values) if values else None


def client_address(scope: Scope) -> str | None:
    """Where a request comes from, as far as that is known."""
    client = scope.get("client")
    return client[0] if client else None


def authorize_now(scope: Scope, gate: Gate, right: Right, name: NormalizedName | None) -> Identity | None:
    """As `Gate.authorize_now`, for who sent this request."""
    identity = gate.authorize_now(right, name, header(scope, b"authorization"), client_address(scope))
    scope["identity"] = identity
    return identity


async def authorize(scope: Scope, gate: Gate, right: Right, name: NormalizedName | None = None) -> Identity:
    """As `Gate.authorize`, for who sent this request."""
    identity = await gate.authorize(right, name, header(scope, b"authorization"), client_address(scope))
    # Who writes down what it is refused later wants to know of whom.
    scope["identity"] = identity
    return identity


def query_value(scope: Scope, name: str) -> str:
    """The last value of a query parameter, or an empty text."""
    values = parse_qs(scope["query_string"].decode("latin-1")).get(name)
    return values[-1] if values else ""


def read_name(scope: Scope) -> NormalizedName:
    """The project that the path names, in normal form. Raises NotFound where that is no name."""
    asked: str = scope["path_params"]["project"]
    if not is_project_name(asked):
        raise NotFound(f"{asked[:100]!a} is not a project name")
    return normalize_name(asked)


def negotiate(accept: bytes | None, query: bytes) -> str | None:
    """The media type of a simple page, or None when nothing that is offered is acceptable.

    `?format=` beats `Accept`. Without a preference the answer is text/html, as clients that parse HTML send ``*/*``
    or nothing at all; among equals the richest explicit type wins.
    """
    is_usual = len(accept or b"") + len(query) <= LONGEST_REMEMBERED
    return _negotiate(accept, query) if is_usual else _negotiate.__wrapped__(accept, query)


@lru_cache(maxsize=512)
def _negotiate(accept: bytes | None, query: bytes) -> str | None:
    if query and (wanted := parse_qs(query.decode("latin-1")).get("format")):
        # A form decoder reads the "+" of "v1+json" as a space.
        return _OFFERED.get(wanted[-1].strip().lower().replace(" ", "+"))
    ranges = _parse_accept(accept.decode("latin-1")) if accept else []
    if not ranges:
        return pages.PLAIN_HTML_TYPE
    best: tuple[float, bool, int] = (0.0, False, 0)
    chosen = None
    for name, served in _OFFERED.items():
        quality, specificity = _weigh(name, ranges)
        if name in _LATEST and specificity < 3:
            continue  # "latest" is another name of a type, not a type of its own
        # For a bare */* plain HTML comes first, else the order of MEDIA_TYPES; what is named beats what is not.
        order = 0 if specificity == 1 and served == pages.PLAIN_HTML_TYPE else 1 + pages.MEDIA_TYPES.index(served)
        candidate = (quality, specificity > 1, -order)
        if quality > 0 and (chosen is None or candidate > best):
            best, chosen = candidate, served
    return chosen


def _parse_accept(accept: str) -> list[tuple[str, str, float]]:
    ranges = []
    for part in accept.split(","):
        match = _MEDIA_RANGE.match(part)
        if match is None or (match[1] == "*" and match[2] != "*"):
            continue  # a malformed range is skipped
        parameters = match[3] or ""
        quality = _QUALITY.search(parameters)
        if quality is None and _BAD_QUALITY.search(parameters):
            continue
        ranges.append((match[1].lower(), match[2].lower(), float(quality[1]) if quality else 1.0))
    return ranges


def _weigh(name: str, ranges: Sequence[tuple[str, str, float]]) -> tuple[float, int]:
    """Quality and specificity (3 exact, 2 type/*, 1 */*) of the most specific range that fits."""
    main, _, sub = name.partition("/")
    best = (0, 0.0)
    for range_main, range_sub, quality in ranges:
        if (range_main, range_sub) == (main, sub):
            specificity = 3
        elif (range_main, range_sub) == (main, "*"):
            specificity = 2
        elif (range_main, range_sub) == ("*", "*"):
            specificity = 1
        else:
            continue
        best = max(best, (specificity, quality))
    return best[1], best[0]


def choose_coding(accept_encoding: bytes | None) -> str:
    """The content coding that the client likes best; zstd, then gzip among equals, else identity."""
    is_usual = len(accept_encoding or b"") <= LONGEST_REMEMBERED
    return _choose_coding(accept_encoding) if is_usual else _choose_coding.__wrapped__(accept_encoding)


@lru_cache(maxsize=512)
def _choose_coding(accept_encoding: bytes | None) -> str:
    qualities: dict[str, float] = {}
    for part in (accept_encoding or b"").decode("latin-1").lower().split(","):
        name, _, parameters = part.partition(";")
        quality = _QUALITY.search(parameters)
        if parameters.strip() and quality is None and _BAD_QUALITY.search(parameters):
            continue
        qualities[name.strip()] = float(quality[1]) if quality else 1.0
    anything = qualities.get("*", 0.0)
    offered = {coding: qualities.get(coding, anything) for coding in pages.CODINGS}
    # As long as it is not refused, identity costs the most bytes: it has to be preferred by name.
    best = max(offered, key=offered.__getitem__)
    return best if offered[best] > 0 and offered[best] >= qualities.get("identity", 0.0) else pages.IDENTITY


def choose_type(accept: bytes | None, offered: Sequence[str]) -> str | None:
    """The offered media type that the client likes best, the first among equals; None when it takes none of them."""
    ranges = _parse_accept(accept.decode("latin-1")) if accept else []
    if not ranges:
        return offered[0]
    best = max(offered, key=lambda media_type: _weigh(media_type, ranges))
    return best if _weigh(best, ranges)[0] > 0 else None


def not_acceptable(offered: Sequence[str] = pages.MEDIA_TYPES) -> HTTPException:
    return HTTPException(
        406, f"this page is offered as {', '.join(offered)}", headers={"vary": "Accept, Accept-Encoding"}
    )


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Weak comparison of a list of entity tags, or ``*`` (RFC 9110, 13.1.2)."""
    return any(tag == etag or star for tag, star in _ENTITY_TAG.findall(if_none_match))


async def send_page(scope: Scope, send: Send, body: Body, remember: Callable[[], bool] | None = None) -> None:
    """A ready page: 304 when the client has it already.

    With `remember` the server may give the same answer to the same request again, as long as that returns true.
    """
    if_none_match = header(scope, b"if-none-match")
    is_known = if_none_match is not None and matches(if_none_match, body.etag)
    status, headers = (304, body.not_modified) if is_known else (200, body.headers)
    await send({"type": "http.response.start", "status": status, "headers": headers, "remember": remember})
    await send({"type": "http.response.body", "body": b"" if is_known else body.content})


async def send_validated(
    scope: Scope, send: Send, content: bytes, content_type: bytes, headers: Headers | None = None
) -> None:
    """A whole answer with a strong ETag made of its type and bytes: 304 when the client has it already."""
    etag = pages.make_etag(content_type, content)
    shared: Headers = [(b"etag", etag), *(headers or [])]
    if_none_match = header(scope, b"if-none-match")
    if if_none_match is not None and matches(if_none_match, etag):
        await send({"type": "http.response.start", "status": 304, "headers": shared})
        await send({"type": "http.response.body"})
        return
    await send_bytes(send, 200, content, content_type, shared)


async def send_text(send: Send, status: int, text: str, headers: Headers | None = None) -> None:
    await send_bytes(send, status, text.encode(), b"text/plain; charset=utf-8", headers)


async def send_bytes(
    send: Send,
    status: int,
    content: bytes,
    content_type: bytes,
    headers: Headers | None = None,
    reason: str = "",
    remember: Callable[[], bool] | None = None,
) -> None:
    """A whole answer. `reason` becomes the HTTP reason phrase, the only text some upload tools show.

    For `remember` see `send_page`.
    """
    start: Headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(content)),
        (b"x-content-type-options", b"nosniff"),
        *(headers or []),
    ]
    message = {"type": "http.response.start", "status": status, "headers": start, "reason": reason}
    await send({**message, "remember": remember})
    await send({"type": "http.response.body", "body": content})


async def redirect(scope: Scope, send: Send, target: str) -> None:
    """302 to `target`, a path below the index's own root, as a relative reference; the query is kept."""
    location = (way_to_root(scope) + quote(target, safe="/+!")).encode() or b"./"
    await send_redirect(scope, send, location)


def way_to_root(scope: Scope) -> str:
    """From the requested path back to the index's root: "", "../", "../../" and so on.

    Counted on the path as it was sent, as clients do: a "%2F" in it is no step.
    """
    sent: bytes = scope["raw_path"]
    prefix: str = scope.get("root_path", "")
    return "../" * (sent.count(b"/") - prefix.count("/") - 1)


async def send_redirect(scope: Scope, send: Send, location: bytes) -> None:
    if scope["query_string"]:
        location += b"?" + scope["query_string"]
    # Never 301 or 308: pip keeps those for ever, and what is not here now may be here later.
    headers: Headers = [(b"location", location), (b"cache-control", b"no-cache"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 302, "headers": headers})
    await send({"type": "http.response.body"})


def prefers(media_type: str, accept: bytes | None) -> bool:
    """Whether the client names the type, and nothing that it would rather have."""
    ranges = _parse_accept(accept.decode("latin-1")) if accept else []
    quality, specificity = _weigh(media_type, ranges)
    return specificity == 3 and quality > 0 and quality >= max(other for _, _, other in ranges)
