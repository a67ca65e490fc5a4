"""Network addresses that are not public: loopback, private, link-local, and cloud metadata services.

The one list for the compiler and the steps. Link-local addresses and metadata services are never allowed, private ones
only on request (``allowPrivateHosts``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA_ADDRESSES = {
    "169.254.169.254",  # AWS, Azure, Google
    "169.254.170.2",  # AWS ECS
    "169.254.170.23",  # AWS EKS pod identity
    "fd00:ec2::254",  # AWS
    "fd00:ec2::23",  # AWS EKS pod identity
    "fd20:ce::254",  # Google
    "168.63.129.16",  # Azure; counts as public, but is answered inside a virtual machine only
    "192.0.0.192",  # Oracle
    "100.100.100.200",  # Alibaba
}
METADATA_HOSTS = {
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1


def unwrap(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 address embeds (mapped, compatible, 6to4, NAT64), or the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 0xFFFF):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_forbidden(address: IPAddress) -> bool:
    """Return True if the address is link-local or a cloud's metadata service, which no setting allows."""
    return any(inner.is_link_local or str(inner) in METADATA_ADDRESSES for inner in _readings(address))


def is_metadata(address: IPAddress) -> bool:
    """Return True if a cloud's metadata service answers at the address."""
    return any(str(inner) in METADATA_ADDRESSES for inner in _readings(address))


def is_public(address: IPAddress) -> bool:
    """Return True if the address is reachable from the internet and is no metadata service."""
    inner = unwrap(address)
    if isinstance(inner, ipaddress.IPv6Address) and (inner.is_site_local or inner in _LOCAL_NAT64):
        return False
    return inner.is_global and not inner.is_multicast and not is_forbidden(inner)


def _readings(address: IPAddress) -> Iterator[IPAddress]:
    """Yield the address, and the IPv4 addresses that a router can forward it to."""
    yield address
    yield unwrap(address)
    if isinstance(address, ipaddress.IPv6Address) and address in _LOCAL_NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
