"""The connection to a registry: an answer whose head breaks off is no answer, and bodies leave in large pieces."""

from __future__ import annotations

import http.client
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

PIECE = 256 * 1024
"""Bytes; http.client takes 16 kB."""


class _WholeHead(http.client.HTTPResponse):
    """http.client takes what came of a head for the whole: half an address of an upload for where it goes on."""

    def begin(self) -> None:
        lines: Any = _Lines(self.fp)
        self.fp = lines
        super().begin()
        self.fp = lines.file
        if lines.last not in (b"\r\n", b"\n"):
            self.close()
            raise ConnectionResetError("the connection broke within the head of an answer")


class _Lines:
    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class _WholeHTTPConnection(HTTPConnection):
    response_class = _WholeHead


class _WholeHTTPSConnection(HTTPSConnection):
    response_class = _WholeHead


class _WholeHTTPConnectionPool(HTTPConnectionPool):
    ConnectionCls = _WholeHTTPConnection


class _WholeHTTPSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _WholeHTTPSConnection


class RegistryAdapter(HTTPAdapter):
    """To be mounted in a session of requests."""

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Make connections of this kind."""
        super().init_poolmanager(*arguments, blocksize=PIECE, **named)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _WholeHTTPConnectionPool,
            "https": _WholeHTTPSConnectionPool,
        }
