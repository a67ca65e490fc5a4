"""Real servers for tests: Debian's docker-registry, an HTTP server to put in front of it, and a wire that breaks."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from steps import reference
from steps.oci_layout import Image

USER, PASSWORD = "tuner", "s3cr3t pass:w0rd"


@dataclass
class Registry:
    """A running registry."""

    address: str
    log: Path

    def requests(self, method: str, part: str) -> int:
        """How many requests of ``method`` to a path that holds ``part`` were answered so far."""
        # The access log is Apache's: ... "PUT /v2/... HTTP/1.1" 201 ...
        return len(re.findall(rf'"{method} \S*{re.escape(part)}\S* HTTP', self.log.read_text()))


@contextmanager
def serve_registry(folder: Path, *, password: bool = False) -> Iterator[Registry]:
    """Run ``docker-registry`` on a free port, with ``USER`` and ``PASSWORD`` by htpasswd if asked."""
    folder.mkdir(parents=True, exist_ok=True)
    config = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
    config += "http: {addr: '127.0.0.1:0', secret: only-for-tests}\n"
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
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"docker-registry did not come up:\n{log.read_text()}")


@dataclass
class Request:
    """What a client asked a ``Front`` for."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Answer:
    """What a ``Front`` says instead of, or what it was told by, the registry behind it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Front:
    """An HTTP server before a registry: ``before`` may answer itself, ``after`` may change the registry's answer."""

    def __init__(self, behind: str) -> None:
        self.seen: list[Request] = []
        self.before: Callable[[Request], Answer | None] = lambda request: None
        self.after: Callable[[Request, Answer], Answer] = lambda request, answer: answer
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

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
                if request.method != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


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
    """A TCP relay that cuts its first ``cuts`` connections after ``limit`` bytes from the client have passed."""

    def __init__(self, behind: str, limit: int, cuts: int) -> None:
        host, _, port = behind.rpartition(":")
        self._behind = (host, int(port))
        self._limit, self._cuts = limit, cuts
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
                threading.Thread(target=self._relay, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._relay, args=(server, client, False), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                passed += len(data)
                if counted and passed > self._limit and self.cut < self._cuts:
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
