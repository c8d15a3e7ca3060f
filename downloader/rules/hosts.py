"""Where a host name leads, as far as the name alone tells: the internet, or inside.

A storage on the internet has no business in our own network, and a redirect is its word, not
the API's: it could have us ask a router or a cloud's metadata service. Nothing is looked up, so
that a name that resolves to an address inside (DNS rebinding) is not seen through.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

_LOCAL_NAMES: Final = frozenset(
    {"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"}
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_THIS_NETWORK: Final = 0


class Reach(IntEnum):
    """How far inside a host is; a redirect may lead out, but no farther in."""

    INTERNET = 0
    PRIVATE = 1
    LINK = 2
    MACHINE = 3


def reach_of(host: str) -> Reach:
    """Return where a host is: a name, or an address as `getaddrinfo` takes it. Never raises.

    Addresses are told in every form that systems take (`127.1`, `0x7f000001`, `2130706433`),
    and so are IPv4 addresses within IPv6 ones.
    """
    name = host.strip("[]").partition("%")[0].rstrip(".").lower()
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return Reach.MACHINE
    address: IPv4Address | IPv6Address | None = _old_address(name)
    if address is None:
        try:
            address = ip_address(name)
        except ValueError:  # a name
            return Reach.INTERNET
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # the same host, written otherwise
    return max(map(_reach, [address, *_inner_addresses(address)]))


def may_redirect(from_host: str, to_host: str) -> bool:
    """Tell whether a redirect from one host to another is followed: never farther inside."""
    return reach_of(to_host) <= reach_of(from_host)


def _reach(address: IPv4Address | IPv6Address) -> Reach:
    in_this_network = address.version == 4 and address.packed[0] == _THIS_NETWORK
    if address.is_loopback or address.is_unspecified or in_this_network:
        return Reach.MACHINE
    if address.is_link_local:
        return Reach.LINK
    if address.is_global and not address.is_multicast:
        return Reach.INTERNET
    return Reach.PRIVATE


def _inner_addresses(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address leads to; none is in an IPv4 address."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        found.append(IPv4Address(address.packed[-4:]))
    return [inner for inner in found if inner is not None]


def _old_address(text: str) -> IPv4Address | None:
    """Return the address that `inet_aton` reads: one to four numbers, the last of which fills."""
    numbers = [_number(part) for part in text.split(".")]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(numbers) > 4:
        return None
    *first, last = known
    room = 4 - len(first)
    if any(number > 255 for number in first) or last >= 256**room:
        return None
    return IPv4Address(bytes(first) + last.to_bytes(room, "big"))


def _number(text: str) -> int | None:
    base, digits = 10, text
    if text.startswith("0x"):
        base, digits = 16, text[2:]
    elif text.startswith("0"):
        base = 8
    if not (
        digits.isascii() and digits.isalnum()
    ):  # neither signs nor underscores, which int() would take
        return None
    try:
        return int(digits, base)
    except ValueError:
        return None
