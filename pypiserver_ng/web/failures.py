"""What every surface shares of refusals: the one table from failure to status, and how a failure is told."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pypiserver_ng.auth import Gate
from pypiserver_ng.errors import (
    Concealed,
    Conflict,
    Denied,
    Failure,
    Invalid,
    NoSpace,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    UpstreamFailed,
)
from pypiserver_ng.model import NormalizedName, Right
from pypiserver_ng.web import http

_LONGEST_MESSAGE = 1000

_STATUS: dict[type[Failure], tuple[int, str]] = {
    Invalid: (400, "Bad Request"),
    Unauthenticated: (401, "Unauthorized"),
    Denied: (403, "Forbidden"),
    TooMany: (429, "Too Many Requests"),
    NotFound: (404, "Not Found"),
    Conflict: (409, "Conflict"),
    TooLarge: (413, "Content Too Large"),
    UpstreamFailed: (502, "Bad Gateway"),
    Unavailable: (503, "Service Unavailable"),
    NoSpace: (507, "Insufficient Storage"),
}

_CHALLENGE = (b"www-authenticate", b'Basic realm="pypi"')
_UNSTORED = (b"cache-control", b"no-store")

#: Is told of a failure: (scope, status, message).
TellFailure = Callable[[Scope, int, str], None]
#: Renders (scope, status, title, message) as a page for people.
RenderFailure = Callable[[Scope, int, str, str], bytes]


def find_status(failure: Failure) -> tuple[int, str]:
    """By the one table from the domain's failures to HTTP."""
    return next(_STATUS[kind] for kind in type(failure).__mro__ if kind in _STATUS)


async def is_turned_away(scope: Scope, send: Send, gate: Gate, right: Right, name: NormalizedName | None) -> bool:
    """Whether the request was answered 401, because it has no credentials: the same answer as later on, for less.

    Many clients ask everything without credentials first.
    """
    accept = http.header(scope, b"accept")
    is_usual = len(accept or b"") <= http.LONGEST_REMEMBERED
    if http.header(scope, b"authorization") is not None or not is_usual or not _takes_text(accept):
        return False
    message = gate.turn_away(right, name)
    if message is None:
        return False
    await send({"type": "http.response.start", "status": 401, "headers": _challenge(message), "remember": _always})
    await send({"type": "http.response.body", "body": f"{message}\n".encode()})
    return True


@lru_cache(256)
def _challenge(message: str) -> http.Headers:
    return [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % (len(message.encode()) + 1)),
        (b"x-content-type-options", b"nosniff"),
        _CHALLENGE,
        _UNSTORED,
    ]


@lru_cache(256)
def _takes_text(accept: bytes | None) -> bool:
    """Whether a failure is one line of text for who sends this header."""
    return not http.prefers("application/json", accept) and not http.prefers("text/html", accept)


class FailureAnswer(Response):
    """A failure as an ASGI answer: one line of text, a page for a browser, or JSON for clients that ask for it."""

    def __init__(
        self,
        status: int,
        title: str,
        message: str,
        headers: http.Headers | None = None,
        render: RenderFailure | None = None,
    ) -> None:
        super().__init__(status_code=status)
        self._title = title
        # What a client sent may come back in it, and it may end on a terminal.
        line = "".join(char if char.isprintable() else "?" for char in " ".join(message.split()))
        self._message = line[:_LONGEST_MESSAGE]
        self._extra = headers or []
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: http.Headers = [*self._extra, _UNSTORED]
        # Upload tools show nothing else of an answer, nor do installers of a file that they may not have.
        says_more = scope["method"] == "POST" or self.status_code in {403, 502, 503}
        reason = f"{self._title}: {self._message}" if says_more and self._message != self._title else self._title
        content, content_type = self._represent(scope)
        if content_type.startswith(b"text/html"):
            headers += http.SECURITY
        # Who sends no credentials is refused by the configuration, whatever is here: clients ask everything so first.
        is_for_good = self.status_code == 401 and http.header(scope, b"authorization") is None
        remember = _always if is_for_good else None
        await http.send_bytes(send, self.status_code, content, content_type, headers, reason, remember)

    def _represent(self, scope: Scope) -> tuple[bytes, bytes]:
        accept = http.header(scope, b"accept")
        if http.prefers("application/json", accept):
            problem = {
                # The only key that uv shows.
                "code": self._message,
                "title": f"{self.status_code} {self._title}",
                "message": self._message,
            }
            return json.dumps(problem).encode(), b"application/json"
        if self._render and scope["method"] != "POST" and http.prefers("text/html", accept):
            page = self._render(scope, self.status_code, self._title, self._message)
            return page, b"text/html; charset=utf-8"
        return f"{self._message}\n".encode(), b"text/plain; charset=utf-8"


def _always() -> bool:
    return True


def failure_handlers(render: RenderFailure, tell: TellFailure | None = None) -> dict[Any, Any]:
    """Starlette's exception handlers; `render` makes the page that a browser gets, `tell` writes failures down."""

    def answer_failure(request: Request, failure: Failure) -> Response:
        status, title = find_status(failure)
        if tell is not None:
            # What is concealed from who asks is none to who reads it later.
            tell(request.scope, 403 if isinstance(failure, Concealed) else status, failure.message)
        headers: http.Headers = []
        if status == 401:
            headers.append(_CHALLENGE)
        retry_after = failure.retry_after
        if retry_after is None and isinstance(failure, UpstreamFailed):
            # Clients do not come back to a 503 without it.
            retry_after = failure.PAUSE
        if retry_after is not None:
            headers.append((b"retry-after", b"%d" % retry_after))
        return FailureAnswer(status, title, failure.message, headers, render)

    def answer_http_exception(_request: Request, fault: HTTPException) -> Response:
        """What the router refuses: 404, 405 with Allow, and our own 406."""
        headers = [(name.lower().encode(), value.encode()) for name, value in (fault.headers or {}).items()]
        title = {404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable"}.get(fault.status_code, "Error")
        return FailureAnswer(fault.status_code, title, fault.detail, headers, render)

    def answer_fault(_request: Request, _fault: Exception) -> Response:
        """A fault of ours: logged with its traceback by the server, one line for the client."""
        return FailureAnswer(500, "Internal Server Error", "the server made a mistake; its log says more")

    return {Failure: answer_failure, HTTPException: answer_http_exception, Exception: answer_fault}
