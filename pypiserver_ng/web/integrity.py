"""`/integrity/<project>/<version>/<filename>/provenance`: who published a file, as its upload proved it.

Specification: PEP 740 and the public index's integrity API. The objects are stored as they are sent.
"""

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng import pages
from pypiserver_ng.auth import Gate
from pypiserver_ng.index import Index
from pypiserver_ng.model import Right
from pypiserver_ng.web import http

_TYPE = "application/vnd.pypi.integrity.v1+json"
_TYPES = (_TYPE, "application/json")


class Provenance:
    def __init__(self, index: Index, gate: Gate, *, private: bool) -> None:
        self._index = index
        self._gate = gate
        # It may change as long as the file may be replaced: asked for again each time.
        self._cache_control = pages.cache_control(private=private)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = http.read_name(scope)
        identity = await http.authorize(scope, self._gate, Right.LIST, name)
        media_type = http.choose_type(http.header(scope, b"accept"), _TYPES)
        if media_type is None:
            raise http.not_acceptable(_TYPES)
        wanted = scope["path_params"]
        sight = self._gate.sight(identity)
        content = await self._index.provenance(name, wanted["version"], wanted["filename"], sight)
        headers: http.Headers = [(b"cache-control", self._cache_control), (b"vary", b"Accept")]
        await http.send_validated(scope, send, content, media_type.encode(), headers)


def routes(index: Index, gate: Gate, *, private: bool) -> list[BaseRoute]:
    path = "/integrity/{project}/{version}/{filename}/provenance"
    return [Route(path, Provenance(index, gate, private=private), methods=["GET"])]
