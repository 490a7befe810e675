"""`/_/oidc/…`: trusted publishing as uv and pdm ask for it.

Every failure is JSON with `errors`, which clients go through. Without an exchange it is not enabled.
"""

import json
from collections.abc import Coroutine
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng.auth.exchange import Exchange, Refused
from pypiserver_ng.errors import Failure, TooLarge, TooMany
from pypiserver_ng.web import http
from pypiserver_ng.web.failures import TellFailure, find_status
from pypiserver_ng.web.form import ClientLeft, read_body

_MOST_BODY = 32 * 1024
#: The codes of failures that are none of the token.
_CODES: dict[type[Failure], str] = {TooMany: "too-many-requests"}


class _Request(msgspec.Struct):
    token: str


class Audience:
    """GET: whom an identity token has to be made out to."""

    def __init__(self, exchange: Exchange | None) -> None:
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._exchange is None:
            await _send(send, 404, _describe(_not_enabled()))
        else:
            await _send(send, 200, {"audience": self._exchange.audience})


class MintToken:
    """POST: an issuer's identity token for a token of this index."""

    def __init__(self, exchange: Exchange | None, tell: TellFailure | None) -> None:
        self._exchange = exchange
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(scope, send, self._tell, self._mint(receive, http.client_address(scope)))

    async def _mint(self, receive: Receive, address: str | None) -> dict[str, Any]:
        if self._exchange is None:
            raise _not_enabled()
        with self._exchange.counting(address):
            minted = await self._exchange.mint(await _read_token(receive), address)
        return {"success": True, "token": minted.text, "expires": int(minted.expires.timestamp())}


class BurnToken:
    """POST: make a token of this index invalid that was got here, as uv does at its end."""

    def __init__(self, exchange: Exchange | None, tell: TellFailure | None) -> None:
        self._exchange = exchange
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(scope, send, self._tell, self._burn(receive, http.client_address(scope)))

    async def _burn(self, receive: Receive, address: str | None) -> dict[str, Any]:
        if self._exchange is None:
            raise _not_enabled()
        with self._exchange.counting(address):
            await self._exchange.burn(await _read_token(receive), address)
        return {"success": True}


async def _answer(
    scope: Scope, send: Send, tell: TellFailure | None, answering: Coroutine[Any, Any, dict[str, Any]]
) -> None:
    try:
        answer = await answering
    except ClientLeft:
        return
    except Failure as failure:
        status = 422 if isinstance(failure, Refused) else find_status(failure)[0]
        if tell is not None:
            tell(scope, status, failure.message)
        wait: http.Headers = [] if failure.retry_after is None else [(b"retry-after", b"%d" % failure.retry_after)]
        await _send(send, status, _describe(failure), wait)
    else:
        await _send(send, 200, answer)


async def _read_token(receive: Receive) -> str:
    try:
        return msgspec.json.decode(await read_body(receive, most=_MOST_BODY), type=_Request).token
    except TooLarge as fault:
        raise Refused("invalid-payload", fault.message) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("invalid-payload", 'the request must be JSON such as {"token": "<identity token>"}') from None


def _not_enabled() -> Refused:
    return Refused("not-enabled", "trusted publishing is off here: the configuration has no [[publisher]] entry")


def _describe(failure: Failure) -> dict[str, Any]:
    """In the public index's shape."""
    code = failure.code if isinstance(failure, Refused) else _CODES.get(type(failure), "unavailable")
    return {"message": "Token request failed", "errors": [{"code": code, "description": failure.message}]}


async def _send(send: Send, status: int, answer: dict[str, Any], headers: http.Headers | None = None) -> None:
    more: http.Headers = [*(headers or []), (b"cache-control", b"no-store")]
    await http.send_bytes(send, status, json.dumps(answer).encode(), b"application/json", more)


def routes(exchange: Exchange | None, tell: TellFailure | None = None) -> list[BaseRoute]:
    """`tell` writes failures down."""
    return [
        Route("/_/oidc/audience", Audience(exchange), methods=["GET"]),
        Route("/_/oidc/mint-token", MintToken(exchange, tell), methods=["POST"]),
        Route("/_/oidc/burn-token", BurnToken(exchange, tell), methods=["POST"]),
    ]
