"""Connections to a registry that reject truncated response headers and send bodies in large blocks."""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse

from steps.runtime import hosts

BLOCK_BYTES = 256 * 1024
"""http.client uses 16 kB."""


class _CompleteHeaders(http.client.HTTPResponse):
    """Response that fails if its headers are truncated; http.client would accept half of a Location."""

    def begin(self) -> None:
        lines: Any = _Lines(self.fp)
        self.fp = lines
        super().begin()
        self.fp = lines.file
        if lines.last not in (b"\r\n", b"\n"):
            self.close()
            raise ConnectionResetError("the connection was lost within the headers of a response")


class _Lines:
    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class _StrictHTTPConnection(HTTPConnection):
    response_class = _CompleteHeaders

    def _new_conn(self) -> socket.socket:
        return hosts.check_peer(super()._new_conn(), self.host, allow_private=True)


class _StrictHTTPSConnection(_StrictHTTPConnection, HTTPSConnection):
    pass


class _StrictHTTPConnectionPool(HTTPConnectionPool):
    ConnectionCls = _StrictHTTPConnection


class _StrictHTTPSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _StrictHTTPSConnection


class RegistrySession(requests.Session):
    """Session that sends nothing to metadata services and link-local addresses, and its credentials to no other host.

    Registries often have private addresses, so these are allowed. The peer of each connection is checked, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.max_redirects = hosts.REDIRECTS
        for scheme in ("http://", "https://"):
            self.mount(scheme, _RegistryAdapter())

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request, also one that a redirect leads to, to an allowed host.

        Raises:
            BadInput: the host is a metadata service, or has a link-local address.
        """
        with contextlib.suppress(OSError):  # a name that does not resolve: the connection reports it
            hosts.check(str(request.url), allow_private=True)
        return super().send(request, **options)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Remove credentials at another origin; requests would add those of ~/.netrc."""
        if hosts.origin(str(prepared_request.url)) != hosts.origin(str(response.request.url)):
            prepared_request.headers.pop("Authorization", None)


class _RegistryAdapter(HTTPAdapter):
    """Transport adapter that checks headers, and returns bodies as they were sent."""

    def build_response(self, request: requests.PreparedRequest, response: BaseHTTPResponse) -> requests.Response:
        """Ignore Content-Encoding, as docker does: digests are of the bytes sent, and 1 MiB can unpack to 1 GiB."""
        response.headers.pop("Content-Encoding", None)
        return super().build_response(request, response)

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Create connections that check headers."""
        super().init_poolmanager(*arguments, blocksize=BLOCK_BYTES, **named)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _StrictHTTPConnectionPool,
            "https": _StrictHTTPSConnectionPool,
        }
