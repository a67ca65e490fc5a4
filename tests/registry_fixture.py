"""Real servers for tests: Debian's docker-registry, an HTTP server to put in front of it, and a wire that breaks."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from faults import Faults, FaultyHandler

from steps.oci import reference
from steps.oci.oci_layout import Image

USER, PASSWORD = "tuner", "s3cr3t pass:w0rd"


@dataclass
class Registry:
    """A running registry."""

    address: str
    log: Path

    def requests(self, method: str, part: str) -> int:
        """Return the number of answered requests of ``method`` whose path contains ``part``."""
        # The access log is Apache's: ... "PUT /v2/... HTTP/1.1" 201 ...
        return len(re.findall(rf'"{method} \S*{re.escape(part)}\S* HTTP', self.log.read_text()))


@contextmanager
def serve_registry(folder: Path, *, password: bool = False, host: str = "127.0.0.1") -> Iterator[Registry]:
    """Run ``docker-registry`` on a free port of an address, with ``USER`` and ``PASSWORD`` by htpasswd if asked."""
    folder.mkdir(parents=True, exist_ok=True)
    config = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
    config += f"http: {{addr: '{host}:0', secret: only-for-tests}}\n"
    if password:
        made = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, check=True)
        (folder / "htpasswd").write_bytes(made.stdout)
        config += f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}\n"
    (folder / "config.yml").write_text(config)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=output, stderr=output)
    try:
        yield Registry(_address(process, log), log)
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := re.search(r"listening on ([\d.]+:\d+)", log.read_text()):
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"docker-registry did not come up:\n{log.read_text()}")


@dataclass
class Request:
    """A request to a ``Front``."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Answer:
    """A response of a ``Front``: its own, or that of the registry behind it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Front:
    """An HTTP server before a registry: ``before`` may answer itself, ``after`` may change the registry's answer."""

    def __init__(self, behind: str) -> None:
        self.seen: list[Request] = []
        self.faults = Faults()
        self.before: Callable[[Request], Answer | None] = lambda request: None
        self.after: Callable[[Request, Answer], Answer] = lambda request, answer: answer
        front = self

        class Handler(FaultyHandler, BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            faults = front.faults

            def call_name(self) -> str:
                return call_name(self.command, self.path)

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                front.seen.append(request)
                answer = front.before(request) or front.after(request, _forward(behind, request))
                self.send_response(answer.status)
                for key, value in answer.headers.items():
                    self.send_header(key, value)
                if "Content-Length" not in answer.headers:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if request.method != "HEAD" and answer.body:
                    self.wfile.write(answer.body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server, self.address = serve_http(Handler)

    def use_tls(self, key: Path, certificate: Path) -> None:
        """Speak https from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def sent(self, method: str) -> int:
        """Bytes of body that came with the requests of a method."""
        return sum(len(request.body) for request in self.seen if request.method == method)

    def close(self) -> None:
        self.faults.close()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes away in the middle is what some tests want."""


def serve_http(handler: type[BaseHTTPRequestHandler]) -> tuple[ThreadingHTTPServer, str]:
    """A server on a free port, and its address."""
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server, f"127.0.0.1:{server.server_port}"


def call_name(method: str, path: str) -> str:
    """A call without what differs from run to run: repository, digests, ids of uploads."""
    path = re.sub(r"^/v2/.*(/(?:blobs|manifests)/)", r"\1", path.partition("?")[0])
    path = re.sub(r"/blobs/uploads/.+", "/blobs/uploads/ID", path)
    path = re.sub(r"sha256:[0-9a-f]{64}", "DIGEST", path)
    return f"{method} {re.sub(r'sha256-[0-9a-f]{64}', 'REFERRERS-TAG', path)}"


def _forward(behind: str, request: Request) -> Answer:
    connection = http.client.HTTPConnection(behind, timeout=30)
    with_host = {
        k: v for k, v in request.headers.items() if k != "connection"
    }  # Host stays: Locations name the front.
    connection.request(request.method, request.path, request.body or None, with_host)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    headers = {k: v for k, v in response.getheaders() if k.lower() not in ("connection", "transfer-encoding", "date")}
    if request.method != "HEAD":
        headers["Content-Length"] = str(len(body))
    return Answer(response.status, headers, body)


class BreakingWire:
    """A TCP relay that cuts each of its first ``cuts`` connections exactly after ``limit`` bytes of one direction."""

    def __init__(self, behind: str, limit: int, cuts: int, *, of: str = "client") -> None:
        host, _, port = behind.rpartition(":")
        self._behind = (host, int(port))
        self._limit, self._cuts, self._of = limit, cuts, of
        self.cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._behind)
                for source, sink, side in ((client, server, "client"), (server, client, "server")):
                    threading.Thread(target=self._relay, args=(source, sink, side), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, side: str) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                breaks = side == self._of and self.cut < self._cuts and passed + len(data) > self._limit
                sink.sendall(data[: self._limit - passed] if breaks else data)
                passed += len(data)
                if breaks:
                    self.cut += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def ref(text: str) -> reference.Reference:
    return reference.parse(text)


def same_adapter(folder: Path, image: Image) -> bool:
    names = ("adapter_config.json", "adapter_model.safetensors")
    inputs = image.layout.parent / "adapter"
    return {p.name: p.read_bytes() for p in folder.iterdir()} == {n: (inputs / n).read_bytes() for n in names}
