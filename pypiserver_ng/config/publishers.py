"""The `[[publisher]]` tables of the configuration file become publishers, or Invalid with what to change."""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pypiserver_ng.config.values import nearest, parse_glob
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Publisher

DEFAULT_AUDIENCE = "pypiserver-ng"

_KEYS = ("issuer", "audience", "claims", "projects")


def parse_publishers(value: Any) -> tuple[Publisher, ...]:
    """All entries in their order; `value` is what the file says under `publisher`. Raises Invalid."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Invalid("'publisher' in the configuration file must be tables that begin with [[publisher]]")
    return tuple(_parse_publisher(number, entry) for number, entry in enumerate(value, 1))


def _parse_publisher(number: int, entry: Mapping[str, Any]) -> Publisher:
    try:
        for key in entry:
            if key not in _KEYS:
                raise Invalid(f"unknown key {key!r}{nearest(key, _KEYS)}")
        return Publisher(
            issuer=_parse_issuer(_take(entry, "issuer")),
            audience=_parse_text("audience", entry.get("audience", DEFAULT_AUDIENCE)),
            claims=_parse_claims(_take(entry, "claims")),
            projects=_parse_projects(_take(entry, "projects")),
        )
    except Invalid as fault:
        raise Invalid(f"[[publisher]] number {number} in the configuration file: {fault.message}") from None


def _take(entry: Mapping[str, Any], key: str) -> Any:
    if key not in entry:
        raise Invalid(f"{key!r} is missing")
    return entry[key]


def _parse_text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Invalid(f"{key!r} must be a text of one line, not {value!r}")
    return value


def _parse_issuer(value: Any) -> str:
    """An issuer as OpenID Connect Discovery 1.0 defines it, letter by letter as its tokens name it.

    "URL using the https scheme with no query or fragment components"; plain http can be read by nobody on loopback.
    """
    issuer = _parse_text("issuer", value)
    try:
        parts = urlsplit(issuer)
        host = parts.hostname or ""
        usable = parts.port != 0 and "@" not in parts.netloc and not set("?# ") & set(issuer)
    except ValueError:
        host, usable = "", False
    if not host or not usable or parts.scheme not in {"https", "http"}:
        raise Invalid(f"'issuer' must be an https:// URL without '?' and '#', not {issuer!r}")
    if parts.scheme == "http" and not _is_loopback(host):
        raise Invalid(f"'issuer' must begin with https:// (http:// on loopback only), not {issuer!r}")
    return issuer


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse_claims(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not value:
        raise Invalid("'claims' must be a table such as { repository = \"acme/core\" }")
    return tuple((_parse_text("claims", name), _parse_text(f"claims.{name}", text)) for name, text in value.items())


def _parse_projects(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise Invalid("'projects' must be a list of project names or patterns such as [\"acme-*\"]")
    return tuple(_parse_glob(_parse_text("projects", glob)) for glob in value)


def _parse_glob(text: str) -> str:
    try:
        return parse_glob(text)
    except Invalid as fault:
        raise Invalid(f"'projects' {fault.message}") from None
