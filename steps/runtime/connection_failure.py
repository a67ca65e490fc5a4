"""Cause of a failed connection, and if another attempt can help: one classification for all clients.

It reads the chain of causes of an error, and needs none of the libraries (requests, urllib3, httpx) that raise it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PROXY_LOGIN = 407
_PROXY_STATUS = re.compile(r"^(?:Tunnel connection failed: )?(\d{3})\b ?([^\r\n]{0,80})")
_NOT_TLS = re.compile(r"WRONG_VERSION_NUMBER|UNSUPPORTED_PROTOCOL|NO_CIPHERS|HTTP_REQUEST|RECORD_LAYER_FAILURE")


@dataclass(frozen=True)
class ConnectionFailure:
    """The reason of a failed connection, without URLs, which can be signed."""

    reason: str
    fix: str = ""
    """Change that the user must make; empty if waiting can help."""
    is_tls: bool = False
    is_proxy: bool = False

    @property
    def is_permanent(self) -> bool:
        """True if another attempt fails for the same reason."""
        return bool(self.fix)


def classify(error: BaseException) -> ConnectionFailure:
    """Return why a request failed without a response."""
    causes = list(iter_causes(error))
    for cause in causes:
        if match := _proxy_status(cause):
            return from_proxy(int(match[1]), match[2].strip())
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        fix = "set REQUESTS_CA_BUNDLE to the certificate authority's file"
        return ConnectionFailure("the server's certificate is not trusted", fix, is_tls=True)
    if text := next((str(cause) for cause in causes if isinstance(cause, ssl.SSLError)), ""):
        fix = "check the port, and https or http" if _NOT_TLS.search(text) else ""
        return ConnectionFailure(f"TLS failed: {_system_text(causes)}", fix, is_tls=True)
    if any(isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__ for cause in causes):
        return ConnectionFailure("the server timed out")
    if any(type(cause).__name__ == "IncompleteRead" for cause in causes):
        return ConnectionFailure("the connection ended early")
    if _is_address_error(causes):
        return ConnectionFailure("invalid URL or redirect", "correct the URL")
    return ConnectionFailure(_system_text(causes))


def from_proxy(status: int, reason: str = "") -> ConnectionFailure:
    """Return the failure that a proxy reports with a status: to CONNECT, or (407) to any request."""
    shown = f"{status} {reason}".strip()
    if status == PROXY_LOGIN:
        fix = "set HTTPS_PROXY (and HTTP_PROXY) to http://USER:PASSWORD@HOST:PORT, or add the host to NO_PROXY"
        return ConnectionFailure(f"the proxy requires a login ({shown})", fix, is_proxy=True)
    if is_transient_status(status):
        return ConnectionFailure(f"the proxy cannot reach the server ({shown})", is_proxy=True)
    fix = "allow the host in the proxy, or add it to NO_PROXY"
    return ConnectionFailure(f"the proxy rejects the connection ({shown})", fix, is_proxy=True)


def is_transient_status(status: int) -> bool:
    """Return True if the same request can succeed later (RFC 9110; 425: RFC 8470)."""
    return status in (408, 425, 429) or status >= 500


def iter_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the errors that libraries wrapped in it, and their causes."""
    seen: set[int] = set()
    pending: list[Any] = [error]
    while pending:
        cause = pending.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


def _proxy_status(cause: BaseException) -> re.Match[str] | None:
    """Match the status of a proxy: http.client raises an OSError for it, httpx a ProxyError."""
    text = str(cause)
    is_proxy = text.startswith("Tunnel connection failed:") or type(cause).__name__ == "ProxyError"
    return _PROXY_STATUS.match(text) if is_proxy else None


def _is_address_error(causes: list[BaseException]) -> bool:
    """Return True for a URL that cannot be parsed, or has an unknown scheme."""
    names = {type(cause).__name__ for cause in causes}
    is_url = names & {"InvalidURL", "InvalidSchema", "MissingSchema", "InvalidProxyURL", "LocationParseError"}
    return bool(is_url) or type(causes[0]) in (ValueError, UnicodeError, UnicodeDecodeError, UnicodeEncodeError)


def _system_text(causes: list[BaseException]) -> str:
    system = [str(cause.strerror) for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return system[0] if system else f"the connection was lost ({type(causes[-1]).__name__})"
