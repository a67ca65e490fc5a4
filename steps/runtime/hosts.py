"""Hosts that a download is allowed to contact, and those that receive the token.

A workflow runs inside the cluster's network: the URL of a user, or of a redirect, must not reach the cloud's metadata
service or another workload (KAITO: "data source URL must not target a loopback, private, or link-local address").
Host names are resolved and checked before a request, and the address of the connected peer is checked again, against
DNS rebinding.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import urldefrag, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from steps.runtime import addresses, connection_failure
from steps.runtime.errors import BadInput
from steps.runtime.shown_url import shown

REDIRECTS = 10
RESPONSE_SECONDS = 60.0
"""Time from a request to the end of the response's head."""
_FORBIDDEN_FIX = "use another host; allow_private_hosts does not apply to these addresses"


def session(*, allow_private: bool) -> requests.Session:
    """Return a session that closes a connection to a forbidden peer before it sends anything."""
    guarded = requests.Session()
    for scheme in ("http://", "https://"):
        guarded.mount(scheme, _AllowedPeers() if allow_private else _PublicPeers())
    return guarded


def connect(host: str, port: int, *, allow_private: bool, timeout: float) -> socket.socket:
    """Connect to an allowed peer; nothing is sent to others.

    Raises:
        BadInput: the host is a metadata service, or its address is forbidden.
        OSError: the host is unreachable.
    """
    if host.rstrip(".") in addresses.METADATA_HOSTS:
        raise BadInput(f"{host} is a metadata service", _FORBIDDEN_FIX)
    return check_peer(socket.create_connection((host, port), timeout), host, allow_private)


def check(url: str, *, allow_private: bool) -> None:
    """Reject a URL that a download must not request.

    Raises:
        BadInput: not http(s); or a host that is, or resolves to, a link-local or metadata address, or a private one
            unless ``allow_private``.
        OSError: the name does not resolve.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{shown(url)} is not an http or https URL", "use a URL such as https://HOST/x.parquet")
    if parts.hostname.rstrip(".") in addresses.METADATA_HOSTS:
        raise BadInput(f"{parts.hostname} is a metadata service", _FORBIDDEN_FIX)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise BadInput(f"{parts.hostname} is not a host name", "correct the URL") from error
    except OSError:
        if requests.utils.get_environ_proxies(url):
            return  # a proxy resolves names
        raise
    for address in sorted({str(entry[4][0]) for entry in found}):
        _check_address(parts.hostname, address, allow_private)


def get(
    session: requests.Session,
    url: str,
    headers: Mapping[str, str],
    *,
    allow_private: bool,
    timeout: tuple[float, float],
) -> requests.Response:
    """Request a URL and stream the response.

    Redirects are followed one by one: each host is checked, and only the first one receives the token.

    Raises:
        BadInput: a forbidden host, or too many redirects.
        OSError: as ``check``, or the server is unreachable (``requests.RequestException``).
    """
    current = url
    for _ in range(REDIRECTS + 1):
        try:
            check(current, allow_private=allow_private)
            auth = authentication(current, url) or (None if origin(current) == origin(url) else anonymous_auth)
            response = session.get(
                current, headers=headers, auth=auth, stream=True, allow_redirects=False, timeout=timeout
            )
        except BadInput as error:
            redirect = "" if current == url else "a redirect leads to "
            raise BadInput(f"{shown(url)}: {redirect}{error.message}", error.fix) from error
        except requests.RequestException:
            raise
        except ValueError as error:  # urllib.parse, for a port that is no number
            raise requests.exceptions.InvalidURL(str(error)) from error
        target = _redirect_target(session, response, current)
        if target is None:
            return response
        response.close()
        current = target
    raise BadInput(f"{shown(url)}: more than {REDIRECTS} redirects", "use the URL that they lead to")


def _redirect_target(session: requests.Session, response: requests.Response, current: str) -> str | None:
    try:
        location = session.get_redirect_target(response)
        return None if location is None else urldefrag(urljoin(current, location)).url
    except ValueError as error:
        response.close()
        raise requests.exceptions.InvalidURL(str(error)) from error


def access_fix(url: str, status: int) -> str:
    """Return the fix for a server that responds with ``status``."""
    if status == connection_failure.PROXY_LOGIN:
        return connection_failure.from_proxy(status).fix
    if status not in (401, 403):
        return "correct the URL; open it in a browser to check it"
    if not is_hub(url):
        return "use a signed URL, or make the file public"
    if os.environ.get("HF_TOKEN"):
        return "the token in HF_TOKEN has no access: accept the terms on the dataset's page, or use another token"
    return "correct the URL, or set HF_TOKEN to a token with access"


def is_hub(url: str) -> bool:
    """Return True if a URL is on the model hub: huggingface.co over https, or the mirror ``HF_ENDPOINT``."""
    parts = urlsplit(url)
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", ""))
    if endpoint.hostname and origin(url) == origin(os.environ["HF_ENDPOINT"]):
        return True
    host = parts.hostname or ""
    return parts.scheme == "https" and (host == "huggingface.co" or host.endswith(".huggingface.co"))


def authentication(current: str, requested: str) -> AuthBase | None:
    """Return ``HF_TOKEN`` as bearer token for a URL of the hub that was not redirected to another host; or None."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return _Bearer(token) if token and origin(current) == origin(requested) and is_hub(current) else None


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL (RFC 6454): in lower case, with the default port."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").rstrip("."), port


def anonymous_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send no credentials, not even those of a ``.netrc`` entry."""
    return request


class _Bearer(AuthBase):
    """An auth object rather than a header, because a ``.netrc`` entry would replace a header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def check_peer(connection: socket.socket, host: str, allow_private: bool) -> socket.socket:
    """Return a connection to an allowed peer, and close one to another.

    Raises:
        BadInput: the address is forbidden.
    """
    try:
        _check_address(host, connection.getpeername()[0], allow_private)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_address(host: str, text: str, allow_private: bool) -> None:
    address = ipaddress.ip_address(text.partition("%")[0])
    target = host if host == text else f"{host} ({text})"
    if addresses.is_forbidden(address):
        raise BadInput(f"{target} is a link-local or metadata address", _FORBIDDEN_FIX)
    if not allow_private and not addresses.is_public(address):
        raise BadInput(
            f"{target} is a loopback, private, link-local or metadata address",
            "use a public host, or set allow_private_hosts for data in a private network",
        )


def _shut_down(connection: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):
        # Not SSLSocket's method, which would drop the TLS state that another thread is reading.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Guard(HTTPConnection):
    """Connection to an allowed peer, whose response must begin in time; ``timeout`` is only the time between bytes."""

    allow_private = False

    def _new_conn(self) -> socket.socket:
        return check_peer(super()._new_conn(), self.host, self.allow_private)

    def getresponse(self) -> Any:
        late = threading.Event()
        timer = threading.Timer(RESPONSE_SECONDS, _shut_down, [self.sock, late])
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        finally:
            timer.cancel()
            if late.is_set():
                # http.client takes a head that was cut for a whole one.
                raise TimeoutError("the server timed out")
        return response


class _PublicHTTP(_Guard):
    pass


class _PublicHTTPS(_Guard, HTTPSConnection):
    pass


class _AllowedHTTP(_Guard):
    allow_private = True


class _AllowedHTTPS(_Guard, HTTPSConnection):
    allow_private = True


class _PublicHTTPPool(HTTPConnectionPool):
    ConnectionCls = _PublicHTTP


class _PublicHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _PublicHTTPS


class _AllowedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _AllowedHTTP


class _AllowedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _AllowedHTTPS


class _PeerGuard(HTTPAdapter):
    """Guard of direct connections; connections through a proxy are guarded by the proxy."""

    pools: ClassVar[dict[str, type[HTTPConnectionPool]]]

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools


class _PublicPeers(_PeerGuard):
    """Peers with public addresses."""

    pools: ClassVar = {"http": _PublicHTTPPool, "https": _PublicHTTPSPool}


class _AllowedPeers(_PeerGuard):
    """All peers except link-local addresses and metadata services."""

    pools: ClassVar = {"http": _AllowedHTTPPool, "https": _AllowedHTTPSPool}
