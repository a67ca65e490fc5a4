"""Real servers of object stores on 127.0.0.1: moto (S3), fake-gcs-server, Azurite; and a proxy that slows them down.

``make test-tools`` installs them below the virtual environment (``tools/``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from free_ports import free_port
from pyarrow import fs

TOOLS = Path(sys.prefix) / "tools"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's account key, the same everywhere (learn.microsoft.com/azure/storage/common/storage-use-azurite)."""
ACCOUNT = "devstoreaccount1"
BUCKET = "rows"
START_SECONDS = 300.0


@dataclass
class ObjectStore:
    """A running server, with one bucket."""

    scheme: str
    port: int
    file_system: fs.FileSystem
    environment: Callable[[int], dict[str, str]]
    """Variables by which a client finds the server at a port."""

    def put(self, name: str, content: bytes) -> str:
        """Store an object and return its location."""
        with self.file_system.open_output_stream(f"{BUCKET}/{name}") as file:
            file.write(content)
        return f"{self.scheme}://{BUCKET}/{name}"


@contextlib.contextmanager
def serve_s3() -> Iterator[ObjectStore]:
    program = _find(TOOLS / "moto" / "bin" / "moto_server")

    def environment(port: int) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "hush-s3",
        }

    with _serve([program, "-H", "127.0.0.1", "-p"]) as port:
        store = fs.S3FileSystem(
            endpoint_override=f"http://127.0.0.1:{port}",
            region="us-east-1",
            access_key="key",
            secret_key="hush-s3",
            allow_bucket_creation=True,
        )
        store.create_dir(BUCKET)
        yield ObjectStore("s3", port, store, environment)


@contextlib.contextmanager
def serve_gcs() -> Iterator[ObjectStore]:
    program = _find(TOOLS / "bin" / "fake-gcs-server")
    with _serve([program, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port"]) as port:
        options = {"anonymous": True, "scheme": "http", "project_id": "p"}
        store = fs.GcsFileSystem(endpoint_override=f"127.0.0.1:{port}", **options)
        store.create_dir(BUCKET)
        yield ObjectStore("gs", port, store, lambda port: {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"})


@contextlib.contextmanager
def serve_azure() -> Iterator[ObjectStore]:
    program = _find(TOOLS / "node_modules" / ".bin" / "azurite-blob")
    # pyarrow's SDK requests newer versions of the API than Azurite knows.
    flags = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--blobPort"]

    def environment(port: int) -> dict[str, str]:
        parts = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": ACCOUNT,
            "AccountKey": AZURITE_KEY,
            "BlobEndpoint": f"http://127.0.0.1:{port}/{ACCOUNT}",
        }
        return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in parts.items())}

    with _serve([program, *flags]) as port:
        address = {"blob_storage_authority": f"127.0.0.1:{port}", "dfs_storage_authority": f"127.0.0.1:{port}"}
        schemes = {"blob_storage_scheme": "http", "dfs_storage_scheme": "http"}
        store = fs.AzureFileSystem(ACCOUNT, account_key=AZURITE_KEY, **address, **schemes)
        store.create_dir(BUCKET)
        yield ObjectStore("az", port, store, environment)


SERVERS = {"s3": serve_s3, "gs": serve_gcs, "az": serve_azure}


def _find(program: Path) -> str:
    if not program.exists():
        message = f"{program.name} is not installed: make test-tools"
        if os.environ.get("ARGOTUNE_REQUIRE_TOOLS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return str(program)


@contextlib.contextmanager
def _serve(command: Sequence[str]) -> Iterator[int]:
    """Run a server; its last argument is a free port."""
    port = free_port()
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(process, port)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{process.args} does not answer")


@dataclass
class SlowProxy:
    """A TCP proxy that passes ``budget`` bytes of responses quickly, and the rest as ``trickle`` says."""

    target: int
    budget: int = 1 << 60
    trickle: bool = False
    """After the budget send a byte every 10 ms, instead of nothing."""
    sent: int = 0
    exhausted: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> SlowProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._listener.close()

    def release(self) -> None:
        """Pass everything from now on, and count from 0."""
        with self._lock:
            self.budget, self.sent = 1 << 60, 0
        self._released.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                for source, sink, limited in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, sink, limited), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, limited: bool) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 14):
                if limited:
                    self._send_limited(sink, part)
                else:
                    sink.sendall(part)
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _send_limited(self, sink: socket.socket, part: bytes) -> None:
        with self._lock:
            quick = part[: max(0, self.budget - self.sent)]
            self.sent += len(quick)
        sink.sendall(quick)
        rest = part[len(quick) :]
        if not rest:
            return
        self.exhausted.set()
        if not self.trickle:
            self._released.wait()
        for index in range(len(rest)):
            if self._released.is_set():
                sink.sendall(rest[index:])
                with self._lock:
                    self.sent += len(rest) - index
                return
            time.sleep(0.01)
            sink.sendall(rest[index : index + 1])
