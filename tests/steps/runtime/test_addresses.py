"""The one list of addresses that are never allowed, and of those that are private."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.runtime import addresses, hosts
from steps.runtime.errors import BadInput

FORBIDDEN = [
    "169.254.169.254", "169.254.0.1", "169.254.170.2", "192.0.0.192", "100.100.100.200", "168.63.129.16",
    "fe80::1", "febf::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "::ffff:169.254.169.254",
    "::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:100.100.100.200",
]  # fmt: skip
PRIVATE = [
    "127.0.0.1", "::1", "::", "0.0.0.0", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "::127.0.0.1",
    "::ffff:10.0.0.1", "fec0::1", "feff::1", "fc00::1", "64:ff9b:1::808:808", "64:ff9b::7f00:1", "2002:7f00:1::",
    "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "::8.8.8.8"]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_metadata_services_and_link_local_addresses_are_never_allowed(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert addresses.is_forbidden(address) and not addresses.is_public(address)
    host = f"[{text}]" if ":" in text else text
    for allow_private in (False, True):
        with pytest.raises(BadInput, match="metadata"):
            hosts.check(f"http://{host}/x.parquet", allow_private=allow_private)


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_are_allowed_on_request(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not addresses.is_public(address) and not addresses.is_forbidden(address)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert addresses.is_public(address) and not addresses.is_forbidden(address)


@given(st.ip_addresses(v=4))
def test_every_notation_of_an_ipv4_address_gets_the_same_verdict(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert addresses.is_public(wrapped) == addresses.is_public(address)
        assert addresses.is_forbidden(wrapped) == addresses.is_forbidden(address)
