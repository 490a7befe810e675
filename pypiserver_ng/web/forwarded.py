"""Where this server is, as its reader sees it: the Host header, and what a trusted proxy says of it.

No forwarded header is believed from anyone who was not named as a trusted proxy.
"""

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from starlette.types import ASGIApp, Receive, Scope, Send

from pypiserver_ng.web.http import header

_HOST = re.compile(r"\A(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?\Z")
_LOOPBACK = re.compile(r"\Ahttp://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?/", re.IGNORECASE)
_PREFIX = re.compile(r"\A(?:/[A-Za-z0-9._~-]+)*/?\Z")


class Forwarded:
    """ASGI middleware: takes client, scheme, host and prefix from a trusted proxy's X-Forwarded-* headers."""

    def __init__(self, app: ASGIApp, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._trusted and scope["type"] == "http" and self._is_trusted(scope.get("client")):
            self._believe(scope)
        await self._app(scope, receive, send)

    def _is_trusted(self, client: tuple[str, int] | None) -> bool:
        try:
            address = ipaddress.ip_address(client[0]) if client else None
        except ValueError:
            return False
        # A dual-stack socket sees IPv4 peers as mapped addresses.
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return address is not None and any(address in network for network in self._trusted)

    def _believe(self, scope: Scope) -> None:
        if (scheme := _last(scope, b"x-forwarded-proto")) in {"http", "https"}:
            scope["scheme"] = scheme
        if (host := _last(scope, b"x-forwarded-host")) and _HOST.match(host):
            scope["forwarded_host"] = host
        if (prefix := _last(scope, b"x-forwarded-prefix")) and _PREFIX.match(prefix):
            scope["forwarded_prefix"] = prefix.rstrip("/")
        if client := _last(scope, b"x-forwarded-for"):
            try:
                scope["client"] = (str(ipaddress.ip_address(client)), 0)
            except ValueError:
                return
            # Programs on the proxy's own machine have its address, and say nothing of this.
            scope["is_proxied"] = True


def base_url(scope: Scope) -> str:
    """The absolute URL of the index's root as the reader sees it, with ``/`` at its end."""
    host: str | None = scope.get("forwarded_host")
    if host is None:
        sent = (header(scope, b"host") or b"").decode("latin-1")
        host = sent if _HOST.match(sent) else _listening(scope)
    return f"{scope['scheme']}://{host}{scope.get('forwarded_prefix', '')}{scope.get('root_path', '')}/"


def trustworthy_url(scope: Scope) -> str:
    """As `base_url`, or empty where it is plain http to another machine, which anyone on the way may change."""
    url = base_url(scope)
    return url if url.startswith("https://") or _LOOPBACK.match(url) else ""


def _listening(scope: Scope) -> str:
    address, port = scope.get("server") or ("localhost", None)
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port}" if port else shown


def _last(scope: Scope, name: bytes) -> str | None:
    # The trusted proxy is the nearest: it appends, so only the last entry is its own word.
    values = [value for key, value in scope["headers"] if key == name]
    return values[-1].decode("latin-1").rpartition(",")[2].strip() if values else None
