"""Proxy on the loopback interface by which pyarrow reaches a custom endpoint: it checks each connection's address.

pyarrow opens its connections itself, after a check of the host's addresses. A name that then resolves differently, or
a redirect, would reach a private address. Connections to the clouds' own endpoints do not use it: TLS proves those.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from steps.runtime import hosts
from steps.runtime.errors import BadInput

TIMEOUTS = (15.0, 60.0)
"""Seconds to connect, and between bytes."""
CHUNK = 1 << 18
HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "upgrade")
ENVIRONMENT = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")


class GuardedProxy(ThreadingHTTPServer):
    """A running proxy; ``refusal`` is the error of the last forbidden connection."""

    daemon_threads = True

    def __init__(self, allow_private: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.allow_private = allow_private
        self.refusal: BadInput | None = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the proxy."""
        self.shutdown()
        self.server_close()


def set_environment(port: int, *, direct: str = "") -> None:
    """Let libraries of this process use the proxy at a port, except for the host ``direct``."""
    for name in ENVIRONMENT:
        os.environ[name] = f"http://127.0.0.1:{port}"
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = direct


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GuardedProxy

    def do_CONNECT(self) -> None:
        """Pass the bytes of a TLS connection."""
        host, _, port = self.path.rpartition(":")
        try:
            target = hosts.connect(host.strip("[]"), int(port), allow_private=self.server.allow_private, timeout=15)
        except BadInput as error:
            self._refuse(error)
        except (OSError, ValueError) as error:
            self.send_error(502, str(error)[:200])
        else:
            with target:
                self.send_response(200)
                self.end_headers()
                self.close_connection = True
                _relay(self.connection, target)

    def do_GET(self) -> None:
        """Forward a plain request. Its target is a whole URL, of Azure's client only the path."""
        url = self.path if "://" in self.path else f"http://{self.headers.get('Host', '')}{self.path}"
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        private = self.server.allow_private
        try:
            hosts.check(url, allow_private=private)
            with (
                hosts.session(allow_private=private) as session,
                session.request(
                    self.command, url, data=body, headers=headers, auth=hosts.anonymous_auth, stream=True,
                    allow_redirects=False, timeout=TIMEOUTS, proxies={"no_proxy": "*"},
                ) as response,
            ):  # fmt: skip
                self._pass_on(response)
        except BadInput as error:
            self._refuse(error)
        except OSError as error:
            self.close_connection = True
            with suppress(OSError):
                self.send_error(502, type(error).__name__)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        """Log nothing: URLs can be signed."""

    def _pass_on(self, response: Any) -> None:
        self.send_response_only(response.status_code, response.reason)
        for name, value in response.headers.items():
            if name.lower() not in (*HOP_BY_HOP, "transfer-encoding"):
                self.send_header(name, value)
        if "Content-Length" not in response.headers:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        while self.command != "HEAD" and (part := response.raw.read1(CHUNK, decode_content=False)):
            self.wfile.write(part)

    def _refuse(self, error: BadInput) -> None:
        self.server.refusal = error
        self.send_error(403, "forbidden address")


def _relay(*ends: socket.socket) -> None:
    """Pass bytes in both directions until one end closes."""
    with suppress(OSError):
        while ready := select.select(ends, [], [], TIMEOUTS[1] * 2)[0]:
            for source in ready:
                part = source.recv(CHUNK)
                if not part:
                    return
                ends[source is ends[0]].sendall(part)
