"""Where this server is, as its reader sees it: the Host header, and what a trusted proxy says of it.

No forwarded header is believed from anyone who was not named as a trusted proxy. X-Forwarded-* are looked at first, and
Forwarded (RFC 7239) only where there are none: a proxy writes one kind, and may let pass what clients say in the other.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from starlette.types import ASGIApp, Receive, Scope, Send

from pypiserver_ng.web.http import header

_HOST = re.compile(r"\A(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?\Z")
_LOOPBACK = re.compile(r"\Ahttp://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?/", re.IGNORECASE)
_PREFIX = re.compile(r"\A(?:/[A-Za-z0-9._~-]+)*/?\Z")
_PORT = re.compile(r"\A[1-9]\d{0,4}\Z")
_HAS_PORT = re.compile(r":\d+\Z")
#: The ports that a URL of a scheme need not name.
_PORTS = {"http": "80", "https": "443"}

#: What proxies are in the habit of saying.
_HABITS = {b"x-forwarded-" + name for name in (b"for", b"proto", b"host", b"prefix", b"port")}
#: RFC 7239, 4: pairs of a name and a token or quoted string.
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PAIR = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*)")')
_ELEMENT = re.compile(rf"[ \t]*{_PAIR.pattern}(?:;{_PAIR.pattern})*[ \t]*")
_ESCAPED = re.compile(r"\\(.)")
_NODE = re.compile(r"\A(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[A-Za-z0-9._-]+)?\Z")


class Forwarded:
    """ASGI middleware: takes client, scheme, host and prefix from what a trusted proxy says."""

    def __init__(self, app: ASGIApp, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._trusted and scope["type"] == "http" and self._is_trusted(scope.get("client")):
            _believe(scope, _read_habits(scope) or _read_standard(scope))
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


def _believe(scope: Scope, said: Mapping[str, str]) -> None:
    """What cannot be a scheme, a host, a prefix or an address is passed over."""
    if (scheme := said.get("proto", "").lower()) in _PORTS:
        scope["scheme"] = scheme
    if _HOST.match(host := said.get("host", "")):
        scope["forwarded_host"] = host
    if _PREFIX.match(prefix := said.get("prefix", "")):
        scope["forwarded_prefix"] = prefix.rstrip("/")
    if _PORT.match(port := said.get("port", "")):
        scope["forwarded_port"] = port
    if client := _read_address(said.get("for", "")):
        scope["client"] = (client, 0)
        # Programs on the proxy's own machine have its address, and say nothing of this.
        scope["is_proxied"] = True


def _read_habits(scope: Scope) -> dict[str, str]:
    # The trusted proxy is the nearest: it appends, so only the last entry is its own word.
    said = {name.removeprefix(b"x-forwarded-"): value for name, value in scope["headers"] if name in _HABITS}
    return {name.decode(): value.decode("latin-1").rpartition(",")[2].strip() for name, value in said.items()}


def _read_standard(scope: Scope) -> dict[str, str]:
    """The nearest proxy's element: the last one, whatever somebody wrote before it."""
    lines = [value for name, value in scope["headers"] if name == b"forwarded"]
    text = lines[-1].decode("latin-1") if lines else ""
    start = len(text)
    while start >= 0:
        comma = text.rfind(",", 0, start)
        if element := _ELEMENT.fullmatch(text, comma + 1):
            return _read_pairs(element[0])
        start = comma
    return {}


def _read_pairs(element: str) -> dict[str, str]:
    pairs = [(name.lower(), word or _ESCAPED.sub(r"\1", quoted)) for name, word, quoted in _PAIR.findall(element)]
    # "Each parameter MUST NOT occur more than once per field-value."
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def _read_address(node: str) -> str | None:
    """An address, perhaps with a port: as it is, or in brackets where it has colons of its own."""
    match = _NODE.match(node)
    try:
        address = ipaddress.ip_address((match[1] or match[2]) if match else node)
    except ValueError:
        return None
    # What stands behind a "%" may be any text.
    return None if "%" in node else str(address)


def base_url(scope: Scope) -> str:
    """The absolute URL of the index's root as the reader sees it, with ``/`` at its end."""
    scheme: str = scope["scheme"]
    host: str | None = scope.get("forwarded_host")
    if host is None:
        sent = (header(scope, b"host") or b"").decode("latin-1").strip()
        host = sent if _HOST.match(sent) else _listening(scope)
    port: str | None = scope.get("forwarded_port")
    if port and port != _PORTS[scheme] and not _HAS_PORT.search(host):
        host = f"{host}:{port}"
    return f"{scheme}://{host}{scope.get('forwarded_prefix', '')}{scope.get('root_path', '')}/"


def trustworthy_url(scope: Scope) -> str:
    """As `base_url`, or empty where it is plain http to another machine, which anyone on the way may change."""
    url = base_url(scope)
    return url if url.startswith("https://") or _LOOPBACK.match(url) else ""


def _listening(scope: Scope) -> str:
    address, port = scope.get("server") or ("localhost", None)
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port}" if port else shown
