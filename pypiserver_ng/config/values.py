"""One text becomes one value, or Invalid with what it should have been."""

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from packaging.specifiers import SpecifierSet

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Action, Releases

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_QUANTITY = re.compile(r"\A\s*(\d{1,18}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*\Z")

#: A "!" belongs to the name inside brackets only, elsewhere it begins "!=".
_RELEASES = re.compile(r"\A\s*((?:[A-Za-z0-9._*?-]|\[[^\]]*\])+)\s*([<>=~!].*)?\Z")

#: First path segments that the index itself answers.
_OWN_SEGMENTS = frozenset({"", "-", "simple", "packages", "legacy", "pypi", "project", "rpc2", "integrity", "_"})


def parse_size(text: str) -> int:
    """SIZE in bytes: a number, or a number with ``KB MB GB KiB MiB GiB``."""
    return _parse_quantity(text, _SIZE_UNITS, "a size such as 500MB or 2GiB")


def parse_limit(text: str) -> int:
    """A size that leaves room for something."""
    size = parse_size(text)
    if not size:
        raise Invalid("must be more than 0: leave it out for no limit")
    return size


def parse_duration(text: str) -> int:
    """DURATION in seconds: a number with ``s m h d w``; a bare number is seconds."""
    return _parse_quantity(text, _DURATION_UNITS, "a duration such as 90s, 12h or 4d")


def _parse_quantity(text: str, units: Mapping[str, int], expected: str) -> int:
    match = _QUANTITY.match(text)
    factor = units.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise Invalid(f"must be {expected}, not {text!r}")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def parse_port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise Invalid(f"must be a port number from 0 to 65535, not {text!r}")
    return int(text)


def parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise Invalid("must be a path, not an empty text")
    try:
        text.encode()
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise Invalid("must be a path in UTF-8") from None
    except RuntimeError:
        raise Invalid(f"begins with the home directory of an unknown user: {text!r}") from None


def parse_actions(text: str) -> frozenset[Action]:
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["."]:
        return frozenset()
    try:
        return frozenset(Action(word) for word in words)
    except ValueError:
        raise Invalid(
            f"must be '.' alone or some of update, download, list separated by commas, not {text!r}"
        ) from None


def parse_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        raise Invalid("must be an absolute http:// or https:// URL")
    if parts.query or parts.fragment:
        raise Invalid("must be a URL without '?' and '#': the project name is appended to it")
    return text.rstrip("/") + "/"


def parse_glob(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._*?\[\]!-]{1,255}", text):
        raise Invalid(f"must be a project name or pattern such as 'acme-*', not {text!r}")
    # Project names are normalized before they are matched; inside brackets the characters are a set.
    return re.sub(r"[-_.]+(?![^\[]*\])", "-", text).lower()


def parse_releases(text: str) -> Releases:
    """A project name or pattern, and perhaps which of its versions are meant: ``leftpad<2``."""
    match = _RELEASES.match(text)
    if match is None or not text.isprintable():
        raise Invalid(f"must be releases such as 'numpy==2.4.1', 'leftpad<2' or 'acme-*', not {text!r}")
    try:
        specifier = SpecifierSet(match[2]) if match[2] else None
    except ValueError:
        raise Invalid(f"holds no version specifier such as '==2.4.1' or '>=1,<2': {text!r}") from None
    return Releases(text.strip(), parse_glob(match[1]), specifier)


def parse_endpoint(text: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9/_-]+", text) or "//" in text:
        raise Invalid(f"must be a path such as /health, not {text!r}")
    if text.split("/")[1].lower() in _OWN_SEGMENTS:
        raise Invalid(f"must not be below a path that the index itself answers, as {text!r} is")
    return text


def parse_base_path(text: str) -> str:
    if not re.fullmatch(r"/?[A-Za-z0-9._~/-]*", text) or any(part in {".", ".."} for part in text.split("/")):
        raise Invalid(f"must be a path prefix such as /pypi, not {text!r}")
    inner = "/".join(part for part in text.split("/") if part)
    return f"/{inner}" if inner else ""


def parse_location(text: str) -> str:
    path = text.rstrip("/")
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)+", path) or any(part in {".", ".."} for part in path.split("/")):
        raise Invalid(f"must be the path of a location such as /-files, not {text!r}")
    return path


def parse_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Invalid(f"must be an IP address or network such as 10.0.0.0/8, not {text!r}") from None


def parse_flag(text: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off", ""}:
        return False
    raise Invalid(f"must be true or false, not {text!r}")


def parse_count(text: str) -> int:
    if not re.fullmatch(r"\d", text):
        raise Invalid(f"must be a number from 0 to 9, not {text!r}")
    return int(text)


def parse_workers(text: str) -> int:
    if not re.fullmatch(r"\d{1,3}", text) or not 1 <= int(text) <= 128:
        raise Invalid(f"must be a number of processes from 1 to 128, not {text!r}")
    return int(text)


def parse_text(text: str) -> str:
    if not text or "\0" in text:
        raise Invalid("must not be empty")
    return text


def choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise Invalid(f"must be one of {', '.join(words)}, not {text!r}")
        return text.lower()

    return parse


def nearest(word: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown word: the known one that was probably meant, or an empty text."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ""
