"""URLs of other indexes: what is taken for one, whose it is, and what of it may be shown. Knows no HTTP and no DNS."""

import hashlib
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from pypiserver_ng.model import NormalizedName, OnError

#: Longest URL that is kept or asked for, in bytes.
LONGEST_URL = 8 * 2**10

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"\A(?:[a-z0-9][a-z0-9._-]{0,252}|\[[0-9a-f:.]{2,45}\])\Z")
#: A URL that needs no work at all, as almost every file's.
_PLAIN = re.compile(
    r"\Ahttps?://[a-z0-9][a-z0-9.-]{0,252}(?::[1-9][0-9]{0,3})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?\Z"
)
_DOTS = re.compile(r"/\.\.?(?:/|\Z)")
#: What RFC 3986 allows in a path or query; ``%`` stays, since what is quoted already must not be quoted twice.
_LEGAL = "/%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a URL belongs to: credentials are for one origin only."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The URL has to be one that `clean_url` let through."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    user: str
    password: str


class Upstream:
    """One other index, by the URL of its simple API."""

    def __init__(self, url: str, name: str = "upstream", on_error: OnError = OnError.NEXT) -> None:
        self.name = name
        self.on_error = on_error
        #: Without credentials, with ``/`` at its end: the only form that leaves the server or is logged.
        self.public_url = without_credentials(url)
        #: Names what is kept of it on the disk; another address is another index.
        self.key = hashlib.sha256(self.public_url.encode()).hexdigest()[:16]
        #: From the URL; for its own origin only.
        self.credentials = read_credentials(url)

    def project_url(self, name: NormalizedName) -> str:
        return f"{self.public_url}{quote(name)}/"


def without_credentials(url: str) -> str:
    """The URL without its user and password, ending with one ``/``."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/") + "/", "", ""))


def read_credentials(url: str) -> Credentials | None:
    """The user and password in a URL; a token may stand there as the user alone."""
    user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return Credentials(unquote(user), unquote(password)) if user or password else None


def clean_url(link: str, base: str) -> str | None:
    """What a link on the page `base` points to, without credentials and fragment; None where no file can be there.

    Absolute, http or https, with a host, ASCII, and without dot segments. What browsers would quote is quoted.
    """
    if len(link) <= LONGEST_URL and _PLAIN.match(link) and not _DOTS.search(link):
        return link
    if len(link) > LONGEST_URL or any(letter < " " or letter == "\x7f" for letter in link):
        return None
    try:
        return _rebuild(urljoin(base, link.strip()))
    except (ValueError, UnicodeEncodeError):
        return None


def _rebuild(url: str) -> str | None:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    port = parts.port
    if parts.scheme not in _PORTS or not _HOST.match(host.removesuffix(f":{port}").removesuffix(":")) or port == 0:
        return None
    path = quote(_remove_dots(parts.path), safe=_LEGAL)
    query = quote(parts.query, safe=_LEGAL + "?")
    cleaned = f"{parts.scheme}://{host}{path}{'?' if query else ''}{query}"
    return cleaned if len(cleaned) <= LONGEST_URL else None


def _remove_dots(path: str) -> str:
    """RFC 3986, 5.2.4; `urljoin` does so for relative links only."""
    kept: list[str] = []
    segments = path.split("/")[1:] or [""]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


def public_host(url: str) -> str:
    """Host and port, for people."""
    return urlsplit(url).netloc.rpartition("@")[2]
