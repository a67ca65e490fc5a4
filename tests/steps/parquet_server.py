"""An HTTP server on 127.0.0.1 for tests of downloads: Range, If-Range, ETag, redirects and optional faults."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from faults import Faults, FaultyHandler


@dataclass
class Fault:
    """Fault of one response."""

    status: int = 0
    """Respond with this status and no file."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that are added or replaced; an empty value omits one."""
    reset_after: int = -1
    """Reset the connection after this number of bytes."""
    cut_after: int = -1
    """Close the connection after this number of bytes."""
    hold_after: int = -1
    """Send nothing after this number of bytes until the server is stopped."""
    ignores_range: bool = False
    """Respond with 200 and the whole file to a range request."""
    ignores_if_range: bool = False
    """Respond with 206 although the file has changed."""


@dataclass
class Seen:
    """A received request, and the number of body bytes sent."""

    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class Served:
    body: bytes
    etag: str
    last_modified: str


class ParquetServer:
    """Files by path (with query string), redirects, and faults of the next requests to a path."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.redirects: dict[str, str] = {}
        self.seen: list[Seen] = []
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.calls = Faults()
        """Calls that fail in one of the ways of ``tests/faults.py``."""
        self.always: dict[str, Fault] = {}
        self.holding = threading.Event()
        self.stopping = threading.Event()
        server = self

        class Handler(_Handler):
            parquet_server = server
            faults = server.calls

        self._http = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def use_tls(self, key: Path, certificate: Path) -> None:
        """Switch to https."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.port}"

    def put(self, path: str, body: bytes, *, etag: str | None = None, last_modified: str = "") -> str:
        """Serve ``body`` at ``path`` and return its address; the default entity tag is a digest of the content."""
        tag = f'"{sha256(body).hexdigest()[:16]}"' if etag is None else etag
        self.files[path] = Served(body, tag, last_modified)
        return self.url + path

    def redirect(self, path: str, location: str) -> str:
        self.redirects[path] = location
        return self.url + path

    def sent(self, path: str) -> int:
        """Return the number of body bytes sent for a path."""
        return sum(seen.sent for seen in self.seen if seen.path == path)

    def requests_for(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    def stop(self) -> None:
        self.stopping.set()
        self.calls.close()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect, which some tests do."""


class _Handler(FaultyHandler, BaseHTTPRequestHandler):
    parquet_server: ParquetServer
    protocol_version = "HTTP/1.1"

    def call_name(self) -> str:
        return f"{super().call_name()}{', a part' if 'Range' in self.headers else ''}"

    def do_GET(self) -> None:
        server = self.parquet_server
        seen = Seen(self.path, {key.lower(): value for key, value in self.headers.items()})
        server.seen.append(seen)
        waiting = server.faults[self.path]
        fault = waiting.popleft() if waiting else server.always.get(self.path, Fault())
        if fault.status:
            return self._head(fault.status, {"Content-Length": "0"} | fault.headers)
        if self.path in server.redirects:
            return self._head(302, {"Location": server.redirects[self.path], "Content-Length": "0"})
        if self.path not in server.files:
            return self._head(404, {"Content-Length": "0"})
        self._file(server.files[self.path], fault, seen)

    def _file(self, file: Served, fault: Fault, seen: Seen) -> None:
        first, size = self._first(file, fault), len(file.body)
        last = self._last(size) if first >= 0 else size - 1
        headers = {"Content-Length": str(last + 1 - max(first, 0)), "Accept-Ranges": "bytes"}
        if file.etag:
            headers["ETag"] = file.etag
        if file.last_modified:
            headers["Last-Modified"] = file.last_modified
        if first >= size:
            return self._head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
        if first >= 0:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        headers = {key: value for key, value in (headers | fault.headers).items() if value}
        self._head(206 if first >= 0 else 200, headers)
        body = memoryview(file.body)[max(first, 0) : last + 1]
        limit = max(fault.reset_after, fault.cut_after, fault.hold_after)
        self._send(body if limit < 0 else body[:limit], seen)
        if fault.hold_after >= 0:
            self.parquet_server.holding.set()
            self.parquet_server.stopping.wait()
        if limit >= 0 or "Content-Length" not in headers:
            self.close_connection = True
        if fault.reset_after >= 0:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # The descriptor is shared with rfile, so that it is closed (and reset) only with it.
            self.rfile.close()
            self.connection.close()

    def _first(self, file: Served, fault: Fault) -> int:
        """Return the first requested byte; -1 for the whole file."""
        requested = self.headers.get("Range", "")
        if not requested.startswith("bytes=") or fault.ignores_range:
            return -1
        condition = self.headers.get("If-Range")
        same = condition is None or condition in (file.etag, file.last_modified)
        return int(requested.removeprefix("bytes=").partition("-")[0]) if same or fault.ignores_if_range else -1

    def _last(self, size: int) -> int:
        """Return the last requested byte."""
        last = self.headers["Range"].partition("-")[2]
        return min(int(last), size - 1) if last else size - 1

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _send(self, body: memoryview, seen: Seen) -> None:
        for start in range(0, len(body), 1 << 16):
            piece = body[start : start + (1 << 16)]
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                return
            seen.sent += len(piece)

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Log nothing; tests use ``seen``."""
