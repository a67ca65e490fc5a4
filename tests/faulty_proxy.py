"""An HTTP proxy that fails one call of its client: for clients of servers that are no ``http.server``.

with FaultyProxy() as proxy:
    proxy.faults.fail("timeout", 2)
    client = proxy.client(requests.Session(), 0.3)
"""

from __future__ import annotations

import http.client
from http.server import BaseHTTPRequestHandler
from typing import Self
from urllib.parse import urlsplit

from faults import Faults, FaultyHandler
from registry_fixture import serve_http
from requests import Session

HOP_BY_HOP = ("connection", "proxy-connection", "keep-alive", "transfer-encoding")


class FaultyProxy:
    """Hands on whatever comes to wherever it is for, over real HTTP on both sides."""

    def __init__(self) -> None:
        self.faults = Faults()
        proxy = self

        class Handler(_Handler):
            faults = proxy.faults

        self._http, address = serve_http(Handler)
        self.url = f"http://{address}"

    def client(self, session: Session, seconds: float = 0) -> Session:
        """Route a client through this proxy, with a timeout in seconds unless 0."""
        session.proxies = {"http": self.url}
        if seconds:
            request = session.request
            session.request = lambda *given, **more: request(*given, **{**more, "timeout": seconds})  # type: ignore
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.close()
        self._http.shutdown()
        self._http.server_close()


class _Handler(FaultyHandler, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def call_name(self) -> str:
        return f"{self.command} {urlsplit(self.path).path}"

    def hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = urlsplit(self.path)
        kept = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
        server = http.client.HTTPConnection(target.netloc, timeout=30)
        try:
            server.request(self.command, target.path, body or None, kept)
            answer = server.getresponse()
            content = answer.read()
        except OSError:
            self.send_error(502, "the server does not answer")
            return
        finally:
            server.close()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in (*HOP_BY_HOP, "content-length"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = hand_on

    def log_message(self, *_: object) -> None:
        pass
