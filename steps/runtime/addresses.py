"""Network addresses that are not public: loopback, private, link-local, and cloud metadata services."""

from __future__ import annotations

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA_ADDRESSES = {"169.254.169.254", "fd00:ec2::254", "168.63.129.16", "192.0.0.192"}
"""The last two, of Azure and Oracle, count as public but are answered inside a virtual machine only."""
METADATA_HOSTS = {"metadata", "metadata.google.internal", "metadata.goog"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def unwrap(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 address embeds (mapped, 6to4 or NAT64), else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_metadata(address: IPAddress) -> bool:
    """Return True if a cloud's metadata service answers at the address."""
    return str(address) in METADATA_ADDRESSES


def is_public(address: IPAddress) -> bool:
    """Return True if the address is reachable from the internet and is no metadata service."""
    inner = unwrap(address)
    return inner.is_global and not inner.is_multicast and not is_metadata(inner)
