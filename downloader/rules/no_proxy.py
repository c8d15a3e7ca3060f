"""NO_PROXY: which hosts are asked directly, in all the forms that people write.

There is no standard (curl, Go, Python and Java differ): what people write for any of them is
understood, and what cannot be is named.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

_BETWEEN: Final = re.compile(r"[\s,;|]+")
_ENTRY: Final = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?"
    r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^:\[\]]+)|(?P<bare>[^\[\]]*:[^\[\]]*:[^\[\]]*))"
    r"(?P<of_six>/\d+)?(?::(?P<port>\d{1,5}))?",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"[\w.*-]+")


@dataclass(frozen=True, slots=True)
class Direct:
    """One entry: a name with what is below it, or a network; of a scheme or port alone, if told."""

    name: str | None
    network: IPv4Network | IPv6Network | None
    scheme: str | None
    port: int | None

    def covers(self, scheme: str, host: str, port: int | None) -> bool:
        """Tell whether a URL's scheme, host (lower case) and port are of this entry."""
        if self.scheme not in (None, scheme) or self.port not in (None, port):
            return False
        if self.network is not None:
            return _is_within(host, self.network)
        name = self.name or ""
        if "*" in name:
            return fnmatchcase(host, name)
        return host == name or host.endswith("." + name)


EVERYTHING: Final = Direct("*", None, None, None)


def read_no_proxy(text: str) -> tuple[tuple[Direct, ...], tuple[str, ...]]:
    """Return the entries of NO_PROXY, and those that cannot be understood."""
    understood, others = [], []
    for entry in filter(None, _BETWEEN.split(text)):
        found = _entry(entry)
        if found is None:
            others.append(entry)
        else:
            understood.append(found)
    return tuple(understood), tuple(others)


def is_direct(direct: tuple[Direct, ...], url: str) -> bool:
    """Tell whether a URL is asked directly."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return any(one.covers(parts.scheme, host, port) for one in direct)


def _entry(text: str) -> Direct | None:
    parts = _ENTRY.fullmatch(text.rstrip("/"))
    if parts is None:
        return None
    scheme = parts["scheme"] and parts["scheme"].lower()
    port = None if parts["port"] is None else int(parts["port"])
    if port is not None and not 0 < port < 65_536:
        return None
    six, host = parts["six"] or parts["bare"], parts["host"]
    try:
        if six is not None:
            address, slash, size = six.partition("/")
            network = ip_network(
                address.partition("%")[0] + (parts["of_six"] or slash + size), strict=False
            )
            return Direct(None, network, scheme, port)
        if "/" in host or re.fullmatch(r"[\d.]+", host):
            return Direct(None, ip_network(host, strict=False), scheme, port)
    except ValueError:
        return None
    if parts["of_six"] or not _NAME.fullmatch(host):
        return None
    name = host if host == "*" else host.lower().removeprefix("*.").strip(".")
    with contextlib.suppress(UnicodeError):
        name = name.encode("idna").decode("ascii")  # as hosts are asked for
    return Direct(name, None, scheme, port) if name else None


def _is_within(host: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # a name: nothing is looked up for this
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped and network.version == 4:
        return address.ipv4_mapped in network
    return address in network
