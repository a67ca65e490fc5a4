"""Faults of a server: one call fails once, in one way. For every fake server based on ``http.server``.

    class Handler(FaultyHandler, BaseHTTPRequestHandler): ...      # and Handler.faults = Faults()

A test runs a step once without a fault, which gives ``faults.calls``, and then once for each of them and each of
``KINDS``. ``kill_proof`` runs the step in a separate process, the one that ``killed`` ends.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

KINDS = ("reset", "timeout", "429", "500", "truncated", "killed")
"""``reset``, ``429`` (with Retry-After) and ``500``: the call is not performed. ``timeout`` (no answer comes),
``truncated`` (half of the answer, then the end) and ``killed`` (SIGKILL for the client): it is."""
RETRY_AFTER = 7
"""Seconds that a 429 asks for."""
SILENT_SECONDS = 1.0
"""Seconds after which a client under test gives up a call without an answer. A busy machine can take several tenths of
a second for an answer, and a call that is given up because of that would be a second fault."""
TIMEOUT_SECONDS = 60.0
"""Seconds after which a held or a killing call gives up, so that a wrong test ends."""


class Faults:
    """The calls that a server got, and the one of them that fails."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """All so far, as their handler names them."""
        self.happened = False
        """Return True if the fault has happened."""
        self.failed = ""
        """The call that failed."""
        self._lock = threading.Lock()
        self._kind, self._name, self._left = "", "", 0
        self._pid = 0
        self._pid_known = threading.Event()
        self._closing = threading.Event()

    def fail(self, kind: str, call: int, name: str = "") -> None:
        """Let the ``call``-th call from now on (the first is 1), of those of a name, fail once, as ``kind`` says."""
        assert kind in KINDS and call > 0, (kind, call)
        with self._lock:
            self._kind, self._name, self._left = kind, name, call
            self.happened = False
            self._pid_known.clear()

    def client(self, pid: int) -> None:
        """Say which process ``killed`` ends; it may have started already."""
        self._pid = pid
        self._pid_known.set()

    def close(self) -> None:
        """Let go of clients that wait for an answer."""
        self._closing.set()

    def begin(self, call: str) -> str:
        """Note a call and say how it fails; empty: not at all."""
        with self._lock:
            self.calls.append(call)
            if not self._kind or self.happened or self._name not in ("", call):
                return ""
            self._left -= 1
            if self._left:
                return ""
            self.happened, self.failed = True, call
            return self._kind

    def kill(self) -> None:
        assert self._pid_known.wait(TIMEOUT_SECONDS), "the process to kill is unknown: call Faults.client(pid)"
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def hold(self, connection: socket.socket) -> None:
        """Wait until the client goes away."""
        connection.settimeout(0.05)
        for _ in range(int(TIMEOUT_SECONDS / 0.05)):
            try:
                connection.recv(1)
                return
            except TimeoutError:
                if self._closing.is_set():
                    return
            except OSError:
                return


class FaultyHandler(BaseHTTPRequestHandler):
    """Mixin, before ``BaseHTTPRequestHandler``, by which a server fails the call that its ``faults`` name."""

    faults: Faults
    _spoiled: _Spoiled | None = None

    def call_name(self) -> str:
        """Return the name of a call in ``Faults.calls`` and docs/FAULTS.md; servers shorten names that vary."""
        return f"{self.command} {self.path.partition('?')[0]}"

    def fault_body(self, status: int) -> bytes:
        """JSON that says 429 or 500 as the real server would."""
        return b'{"message": "%d by fault injection"}' % status

    def handle_one_request(self) -> None:
        self._spoiled = None
        answers = self.wfile
        try:
            super().handle_one_request()
            if self._spoiled is not None:
                self._spoiled.end()
        except Gone:
            pass
        finally:
            if self._spoiled is not None:
                self.wfile, self._spoiled = answers, None
                self._hang_up()

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        kind = self.faults.begin(self.call_name())
        if kind == "reset":
            # Linger of zero seconds: the kernel sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return False
        if kind in ("429", "500"):
            self._refuse(int(kind))
            return False
        if kind:
            self._spoiled = _Spoiled(self, kind)
            self.wfile = self._spoiled
        return True

    def _refuse(self, status: int) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = self.fault_body(status)
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", str(RETRY_AFTER))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Gone(ConnectionAbortedError):
    """Discard the rest of the response."""


class _Spoiled:
    """Stands for ``wfile`` of a call that is performed and whose answer does not arrive whole."""

    closed = False

    def __init__(self, handler: FaultyHandler, kind: str) -> None:
        self._handler, self._kind = handler, kind
        self._answers: Any = handler.wfile
        self._head = b""
        self._over = False

    def write(self, data: bytes) -> int:
        if self._over:
            raise Gone
        if self._kind != "truncated":
            self._fail()
        if not self._head:
            self._head = bytes(data)
            return len(data)
        self._answers.write(self._head + bytes(data)[: len(data) // 2])
        self._over = True
        raise Gone

    def end(self) -> None:
        """The handler is done: a short answer without a body is cut too."""
        if not self._over and self._kind == "truncated":
            # Clients take a head that ends early for a whole one; not so half of a status line.
            self._answers.write(self._head[: len("HTTP/1")])
            self._over = True
        elif not self._over:
            self._fail()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _fail(self) -> None:
        self._over = True
        if self._kind == "killed":
            self._handler.faults.kill()
        else:
            self._handler.faults.hold(self._handler.connection)
        raise Gone


def read_timeout(kind: str) -> float:
    """Return the read timeout of the client under test: short if no answer comes, else long, for slow machines."""
    return SILENT_SECONDS if kind == "timeout" else 30.0


def fork(action: Callable[[], int], failed: int = 1) -> int:
    """Process id of a fork that does ``action`` and ends with the exit code which that gives.

    What it raises is on the fork's stderr, which ends with ``failed`` then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = failed
    try:
        code = action()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def kill_proof(faults: Faults, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child process, which ``killed`` may end; whether it lived on to the end.

    The child is a fork, so it starts at once and has the test's patches and environment.

    Raises:
        AssertionError: when the child failed in another way; its traceback is on stderr.
    """

    def alone() -> int:
        action()
        return 0

    pid = fork(alone)
    faults.client(pid)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended in (0, -signal.SIGKILL), f"the child process ended with {ended}"
    return ended == 0
