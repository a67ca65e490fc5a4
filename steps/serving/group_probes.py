"""The HTTP server of a node without one of vLLM: it answers the probes of its pod."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from steps.serving.allowlist import ADAPTERS, HEALTH, READY

FOLLOWER = "vllm follower"
"""Kind of server that a follower reports."""


@contextlib.contextmanager
def answer_probes(host: str, port: int, is_serving: Callable[[], bool]) -> Iterator[int]:
    """Answer probes until the block ends: 200 while ``is_serving``, else 503; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == ADAPTERS:
                # The drain of a terminating pod waits for requests in progress: a follower has none of its own.
                self._answer(200, {"server": FOLLOWER, "running": {}})
            elif self.path in (HEALTH, READY):
                self._answer(200 if is_serving() else 503, {"server": FOLLOWER})
            else:
                self._answer(404, {"error": {"message": "not found: this node does not serve requests"}})

        def _answer(self, status: int, content: dict[str, object]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a probe comes every few seconds."""

    with ThreadingHTTPServer((host, port), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
