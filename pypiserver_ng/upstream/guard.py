"""Which addresses another index may send the server to: by a link on its page, or by a redirect.

Its owner chose the index's own host, so that may be anywhere. Any other host is a stranger's word, and must not reach
what only the server can reach. Names are judged where their addresses are looked up for connecting, so nothing can be
given another address after it was judged.
"""

import asyncio
import ipaddress
import socket
from enum import IntEnum

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: "This network": no host outside it has such an address, and the system takes some for itself.
_THIS = ipaddress.IPv4Network("0.0.0.0/8")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Seconds for which it is remembered how near an index itself is.
_REMEMBERED = 60


class Reach(IntEnum):
    """How near an address is. An index may send to what is as far as itself, or farther."""

    WORLD = 0
    PRIVATE = 1
    LOOPBACK = 2
    #: Link-local (where clouds keep their machines' credentials), multicast, unspecified, reserved.
    NOBODY = 3


class RefusedAddressError(OSError):
    """All addresses of a host are out of an index's reach."""


def measure(address: Address) -> Reach:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner is not None:
            return measure(inner)
    if address.is_loopback:
        return Reach.LOOPBACK
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return Reach.NOBODY
    if address in _THIS:
        return Reach.NOBODY
    return Reach.WORLD if address.is_global and not _is_site_local(address) else Reach.PRIVATE


def _is_site_local(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.is_site_local


def read_literal(host: str) -> Address | None:
    """The address that a URL's host is written as, in any spelling that the system would take; None for a name."""
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        # Octal, hexadecimal and shortened forms.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


class Guard(AbstractResolver):
    """Looks up the hosts that one index sends to, and withholds the addresses that are not for it."""

    def __init__(self, host: str) -> None:
        #: The index's own.
        self._host = host
        self._names: AbstractResolver = ThreadedResolver()
        self._reach: Reach | None = None
        self._measured = 0.0

    async def check_literal(self, host: str) -> None:
        """Raises RefusedAddressError where the host is an address that is not for this index; names pass."""
        address = read_literal(host)
        if host != self._host and address is not None and measure(address) > await self._find_reach():
            raise RefusedAddressError

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        if host == self._host:
            return found
        reach = await self._find_reach()
        allowed = [each for each in found if measure(_read_address(each)) <= reach]
        if not allowed:
            raise RefusedAddressError
        return allowed

    async def close(self) -> None:
        await self._names.close()

    async def _find_reach(self) -> Reach:
        """How near the index itself is: as its farthest address, and far where it cannot be looked up."""
        now = asyncio.get_running_loop().time()
        if self._reach is None or now - self._measured > _REMEMBERED:
            self._reach, self._measured = await self._measure_host(), now
        return self._reach

    async def _measure_host(self) -> Reach:
        literal = read_literal(self._host)
        if literal is not None:
            addresses = [literal]
        else:
            try:
                found = await self._names.resolve(self._host, 0, socket.AF_UNSPEC)
            except OSError:
                return Reach.WORLD
            addresses = [_read_address(each) for each in found]
        # An index on a link-local address may still send nobody there.
        return min((min(measure(each), Reach.LOOPBACK) for each in addresses), default=Reach.WORLD)


def _read_address(found: ResolveResult) -> Address:
    # A scope is no part of what is judged.
    return ipaddress.ip_address(found["host"].partition("%")[0])
