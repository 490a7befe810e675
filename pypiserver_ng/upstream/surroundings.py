"""What this machine says of the way to other indexes: netrc's credentials and the environment's proxies.

Knows no HTTP and no upstream. Both follow what pip and curl make of the same files and variables.
"""

import logging
import netrc
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from pypiserver_ng.upstream.addresses import Credentials, read_credentials

_log = logging.getLogger(__name__)

#: Modification time, size and inode, or the error's number.
_Sign = tuple[int, ...]


class Netrc:
    """The user's netrc file, read again when it changes. Every method may be called from any thread, and may block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sign: _Sign | None = None
        self._current: netrc.netrc | None = None

    def find(self, host: str) -> Credentials | None:
        """The credentials for a host, else those of the file's default entry."""
        with self._lock:
            self._refresh()
            found = self._current.authenticators(host) if self._current else None
        return Credentials(found[0], found[2] or "") if found else None

    def _refresh(self) -> None:
        path = _find_netrc()
        sign = _sign(path) if path else None
        if path is None or sign is None:
            self._sign, self._current = None, None
        elif sign != self._sign:
            self._sign, self._current = sign, _read(path)


def _find_netrc() -> Path | None:
    if given := os.environ.get("NETRC"):
        return Path(given)
    try:
        return Path.home() / ".netrc"
    except RuntimeError:
        return None


def _sign(path: Path) -> _Sign | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return (error.errno or 0,)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> netrc.netrc | None:
    try:
        return netrc.netrc(path)
    except OSError as error:
        _log.warning("the netrc file %s cannot be read (%s): upstreams get no credentials of it", path, error.strerror)
    except netrc.NetrcParseError as error:
        # The message may quote a password.
        _log.warning("the netrc file %s is wrong in line %s: upstreams get no credentials of it", path, error.lineno)
    except ValueError:
        _log.warning("the netrc file %s is not text: upstreams get no credentials of it", path)
    return None


@dataclass(frozen=True, slots=True)
class Proxy:
    #: Without credentials.
    url: str
    credentials: Credentials | None = None


class Proxies:
    """HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY as they are when this is made; the lower case counts first."""

    def __init__(self) -> None:
        self._found: Mapping[str, str] = getproxies_environment()

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for one origin; None = ask it directly."""
        url = self._found.get(scheme) or self._found.get("all")
        if not url or _is_bypassed(self._found.get("no", ""), host, f"{host}:{port}"):
            return None
        url = url if "://" in url else f"http://{url}"
        parts = urlsplit(url)
        return Proxy(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", read_credentials(url))


def _is_bypassed(exceptions: str, *spellings: str) -> bool:
    """NO_PROXY: ``*``, or hosts and domains with a comma between them, with or without a port and a leading dot."""
    names = [each.strip().lower().lstrip(".") for each in exceptions.split(",")]
    return "*" in names or any(
        spelling == name or spelling.endswith(f".{name}") for name in names if name for spelling in spellings
    )
