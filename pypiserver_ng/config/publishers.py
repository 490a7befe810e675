"""The `[[publisher]]` tables of the configuration file become publishers, or Invalid with what to change."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from pypiserver_ng.config.entries import Entry, parse_entries, parse_line, parse_projects, take
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Publisher

DEFAULT_AUDIENCE = "pypiserver-ng"

_KEYS = ("issuer", "audience", "claims", "projects")


def parse_publishers(value: Any) -> tuple[Publisher, ...]:
    """All entries in their order; `value` is what the file says under `publisher`. Raises Invalid."""
    return parse_entries("publisher", value, _KEYS, _parse_publisher)


def _parse_publisher(_number: int, entry: Entry) -> Publisher:
    return Publisher(
        issuer=_parse_issuer(take(entry, "issuer")),
        audience=parse_line("audience", entry.get("audience", DEFAULT_AUDIENCE)),
        claims=_parse_claims(take(entry, "claims")),
        projects=parse_projects("projects", take(entry, "projects")),
    )


def _parse_issuer(value: Any) -> str:
    """An issuer as OpenID Connect Discovery 1.0 defines it, letter by letter as its tokens name it.

    "URL using the https scheme with no query or fragment components"; plain http can be read by nobody on loopback.
    """
    issuer = parse_line("issuer", value)
    try:
        parts = urlsplit(issuer)
        host = parts.hostname or ""
        usable = parts.port != 0 and "@" not in parts.netloc and not set("?# ") & set(issuer)
    except ValueError:
        host, usable = "", False
    if not host or not usable or parts.scheme not in {"https", "http"}:
        raise Invalid(f"'issuer' must be an https:// URL without '?' and '#', not {issuer!r}")
    if parts.scheme == "http" and not is_loopback(host):
        raise Invalid(f"'issuer' must begin with https:// (http:// on loopback only), not {issuer!r}")
    return issuer


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse_claims(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not value:
        raise Invalid("'claims' must be a table such as { repository = \"acme/core\" }")
    return tuple((parse_line("claims", name), parse_line(f"claims.{name}", text)) for name, text in value.items())
