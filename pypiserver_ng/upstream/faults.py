"""What went wrong with another index, in one line for people.

Names the index as its owner calls it and the host that was asked; never credentials, never a library's own words.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp

from pypiserver_ng.errors import NotFound, UpstreamDown, UpstreamFailed
from pypiserver_ng.upstream.addresses import Upstream, public_host
from pypiserver_ng.upstream.guard import RefusedAddressError

_REFUSED = "leads to an address in this machine's own network, where an index from outside may not send anybody"


@dataclass(slots=True)
class Trail:
    """Whom we ask, and where we are with it."""

    upstream: Upstream
    #: Without credentials; another one after each redirect.
    url: str
    #: What it means when the time is up.
    waiting: str = "did not answer in time"
    #: Whether the last request found a connection.
    is_connected: bool = False
    #: Whether the last request had credentials with it.
    authorized: bool = False

    @property
    def is_home(self) -> bool:
        """Whether the host that was asked is the index's own."""
        return public_host(self.url).lower() == public_host(self.upstream.public_url).lower()

    def __str__(self) -> str:
        return f"The upstream {self.upstream.name!r} ({public_host(self.url)})"


@contextmanager
def blaming(trail: Trail) -> Iterator[None]:
    """Whatever fails in the block becomes an UpstreamFailed of this upstream; NotFound passes."""
    try:
        yield
    except UpstreamFailed as failure:
        raise UpstreamFailed(f"{trail} {failure}", retry_after=failure.retry_after) from failure
    except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
        # A page that takes too long says nothing of the next one.
        is_down = isinstance(error, TimeoutError | aiohttp.ClientConnectorError) and not trail.is_connected
        kind = UpstreamDown if is_down else UpstreamFailed
        raise kind(f"{trail} {_describe(error, trail)}") from error


def check_status(status: int, retry_after: int | None, trail: Trail) -> None:
    """Raises for all but 200, 206 and 304: NotFound, or UpstreamFailed without the subject of its sentence."""
    if status in {200, 206, 304}:
        return
    if status in {404, 410}:
        raise NotFound(f"{trail} does not have it")
    if status == 429:
        raise UpstreamFailed("is asked too often and wants to be left alone (429)", retry_after=retry_after)
    if status == 503:
        raise UpstreamFailed("is not available (503)", retry_after=retry_after)
    raise UpstreamFailed(_describe_status(status, trail))


def _describe_status(status: int, trail: Trail) -> str:
    if status == 407:
        return (
            "cannot be reached: the proxy wants credentials (407); put them into the URL in HTTP_PROXY or HTTPS_PROXY"
        )
    if status == 416:
        return "does not have the part that was asked for (416)"
    if status not in {401, 403}:
        return f"answered with status {status}"
    if trail.authorized:
        return f"refuses our credentials ({status}); correct them in its URL or in the netrc file"
    if trail.is_home:
        return f"wants credentials ({status}); put them into its URL or into the netrc file"
    return f"refuses to give it ({status}); credentials are for the upstream's own host only"


def _describe(error: Exception, trail: Trail) -> str:
    if isinstance(error, TimeoutError):
        return trail.waiting
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return (
            _describe_status(407, trail) if error.status == 407 else f"cannot be reached: the proxy says {error.status}"
        )
    if isinstance(error, RefusedAddressError):
        return _REFUSED
    if isinstance(error, aiohttp.InvalidURL):
        return "leads to a URL that cannot be asked"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _describe_connection(error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return "ended its answer early"
    if isinstance(error, RuntimeError):
        # What aiohttp raises when its session is closed.
        return "is not asked any more: the program stops"
    if isinstance(error, aiohttp.ServerDisconnectedError | OSError):
        return "closed the connection"
    return "answered with something that is not HTTP"


def _describe_connection(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error.os_error, RefusedAddressError):
        return _REFUSED
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "has a certificate that is not trusted here; SSL_CERT_FILE can name the file of those that are"
    if isinstance(error, aiohttp.ClientSSLError):
        return "does not speak TLS as it should"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return (
            "cannot be reached: the proxy does not answer; correct HTTP_PROXY and HTTPS_PROXY, or name it in NO_PROXY"
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "cannot be reached: its name has no address"
    number = error.os_error.errno
    known = number in errno.errorcode if number else False
    return f"cannot be reached: {os.strerror(number).lower()}" if number and known else "cannot be reached"
