"""Rules for data URLs, as in KAITO's v1beta1 webhook (0.12)."""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from urllib.parse import parse_qsl, unquote, urlsplit

from steps.data.formats import file_names
from steps.data.locations.location import InvalidLocation, is_single_file, parse
from steps.runtime import addresses
from steps.runtime.signatures import is_signature
from workflows.spec.findings import Findings

_CHECKSUM = re.compile(r"sha256=[0-9a-fA-F]{64}")
_PRIVATE_NAMES = ("localhost", "local", "internal", "svc", "arpa")
_ALLOW = "to allow private hosts, write pipeline: {data: {allowPrivateHosts: true}}"


def check(url: str, path: str, allow_private: bool, findings: Findings) -> None:
    """Report errors of one location of ``tuning.input.urls``."""
    if is_single_file(url):
        _check_url(url, path, allow_private, findings)
        return
    try:
        parse(url)
    except InvalidLocation as error:
        findings.error(path, f"data source URL {error}", error.fix)


def _check_url(url: str, path: str, allow_private: bool, findings: Findings) -> None:
    try:
        parts = urlsplit(url)
        # Name resolution normalizes digits and dots of other scripts (IDNA).
        host, _ = unicodedata.normalize("NFKC", parts.hostname or "").replace("\u3002", ".").rstrip("."), parts.port
    except ValueError as error:
        findings.error(path, f"invalid data source URL: {error}", "write https://host/path/file.parquet")
        return
    if not host or re.search(r"\s", url):
        findings.error(path, "invalid data source URL", "write https://host/path/file.parquet")
    else:
        _check_host(host, path, allow_private, findings)
    if extension := file_names.unsupported_extension(unquote(parts.path)):
        findings.error(path, f"files of the type {extension} cannot be read", f"use {file_names.SUPPORTED}")
    if parts.fragment and not _CHECKSUM.fullmatch(parts.fragment):
        fix = "write #sha256= and 64 hex digits, or remove the part after #"
        findings.error(path, f"{parts.fragment!r} after # is not a checksum", fix)
    if parts.username or parts.password:
        fix = "use a signed URL, or an image or volume as input"
        findings.error(path, "the URL contains a user or password, visible to all readers of the Workflow", fix)
    if signed := sorted({key for key, _ in parse_qsl(parts.query) if is_signature(key)}):
        fix = "use a short expiry, or an image or volume as input"
        findings.warn(path, f"the URL is signed ({', '.join(signed)}), visible to all readers of the Workflow", fix)


def _check_host(host: str, path: str, allow_private: bool, findings: Findings) -> None:
    address = _address(host)
    if host in addresses.METADATA_HOSTS or (address and addresses.is_metadata(address)):
        findings.error(path, "data source URL must not target a local or metadata endpoint", "use a public host")
    elif address and addresses.is_forbidden(address):
        fix = "use another host; allowPrivateHosts does not apply to link-local addresses"
        findings.error(path, "data source URL must not target a loopback, private, or link-local address", fix)
    elif allow_private:
        return
    elif address and not addresses.is_public(address):
        what = "data source URL must not target a loopback, private, or link-local address"
        findings.error(path, what, _ALLOW)
    elif not address and ("." not in host or host.rpartition(".")[2] in _PRIVATE_NAMES):
        findings.error(path, "data source URL must not target a local or metadata endpoint", _ALLOW)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address of a host in any notation that resolvers accept (``127.1``, ``0x7f000001``), or None."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
