"""`POST /RPC2` and `POST /pypi`: XML-RPC `search`, as `pip search` asks it.

pip dies on anything but a 200, so every mistake is a fault inside one. No DTD, no entities, a small body.
"""

import xmlrpc.client
from collections.abc import Iterable, Sequence
from typing import Any, cast

from defusedxml.xmlrpc import DefusedExpatParser
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng.auth import Gate
from pypiserver_ng.errors import Failure, Invalid
from pypiserver_ng.index import Index
from pypiserver_ng.model import Found, Identity, Right
from pypiserver_ng.web import http
from pypiserver_ng.web.form import ClientLeft, read_body
from pypiserver_ng.web.upload import refuse_cross_site

_MOST_BODY = 1024 * 1024
_MOST_TERMS = 100
#: Characters; the database refuses to look for much longer ones.
_LONGEST_TERM = 200
_MOST_DEPTH = 100

_PARSE_ERROR = -32700
_UNKNOWN_METHOD = -32601
_BAD_PARAMETERS = -32602


class XmlRpc:
    def __init__(self, index: Index, gate: Gate) -> None:
        self._index = index
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refuse_cross_site(scope)
        identity = await http.authorize(scope, self._gate, Right.LIST)
        try:
            answer = await self._answer(await read_body(receive, most=_MOST_BODY), identity)
        except ClientLeft:
            return
        except xmlrpc.client.Fault as fault:
            answer = xmlrpc.client.dumps(fault)
        except Failure as failure:
            answer = xmlrpc.client.dumps(xmlrpc.client.Fault(_BAD_PARAMETERS, failure.message))
        await http.send_bytes(send, 200, answer.encode(), b"text/xml; charset=utf-8")

    async def _answer(self, body: bytes, identity: Identity) -> str:
        parameters, method = await self._index.run(_parse, body)
        if method != "search":
            raise xmlrpc.client.Fault(_UNKNOWN_METHOD, f"the method {method[:50]!a} is not known here: use search")
        found, _ = await self._index.search(_terms(parameters), sight=self._gate.sight(identity))
        return await self._index.run(_encode, found)


def _encode(found: Sequence[Found]) -> str:
    rows = [_describe(project) for project in found]
    return xmlrpc.client.dumps((rows,), methodresponse=True, allow_none=True)


def _parse(body: bytes) -> tuple[tuple[Any, ...], str]:
    # Deep nesting would end in a RecursionError of the decoder; no client nests more than a few levels.
    if body.count(b"<value") > _MOST_DEPTH * _MOST_TERMS:
        raise xmlrpc.client.Fault(_PARSE_ERROR, "the call has too many values")
    target = xmlrpc.client.Unmarshaller()
    try:
        parser = DefusedExpatParser(target, forbid_dtd=True)
        parser.feed(body)
        parser.close()
        parameters = cast("tuple[Any, ...]", target.close())
    except Exception:  # whatever the parser thinks of hostile bytes, the caller gets a fault
        raise xmlrpc.client.Fault(_PARSE_ERROR, "the call is not valid XML-RPC") from None
    return parameters, target.getmethodname() or ""


def _terms(parameters: tuple[Any, ...]) -> list[str]:
    spec = parameters[0] if parameters else {}
    values = (
        [value for key in ("name", "summary") for value in _each(spec.get(key))]
        if isinstance(spec, dict)
        else _each(spec)
    )
    terms = list(dict.fromkeys(value.strip() for value in values if isinstance(value, str) and value.strip()))
    if len(terms) > _MOST_TERMS or any(len(term) > _LONGEST_TERM for term in terms):
        raise Invalid(f"search takes at most {_MOST_TERMS} terms of {_LONGEST_TERM} characters")
    return terms


def _each(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _describe(project: Found) -> dict[str, Any]:
    return {
        "name": project.display_name,
        "version": project.version,
        "summary": project.summary or "",
        "_pypi_ordering": 0,
    }


def routes(index: Index, gate: Gate) -> list[BaseRoute]:
    endpoint = XmlRpc(index, gate)
    return [Route(path, endpoint, methods=["POST"]) for path in ("/RPC2", "/RPC2/", "/pypi", "/pypi/")]
