"""Values and files that rank 0 sends to the other nodes, which do not have its work volume.

A key-value store of torch in rank 0's process (TCPStore). It carries no tensors, so it works before the process group
is initialized, and one port serves both. Values are pickled, as torch's own collectives of objects do. The store
listens on the address of rank 0 only: on this machine on the loopback interface, in a cluster on the address of the
pod, which other pods of trainings can reach (argo/install/network-policies.yaml).
"""

from __future__ import annotations

import datetime
import json
import pickle
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK_BYTES = 4 << 20
"""Size of a value; the server rejects values over 8 MiB."""
CONNECT_TIMEOUT = datetime.timedelta(minutes=30)
"""Time until rank 0 listens: its pod is running, but it imports libraries before."""
WAIT_TIMEOUT = datetime.timedelta(hours=24)
"""Time until a value is set: rank 0 can fetch a model and tokenize rows before. A lost rank 0 ends the wait."""
LEAVE_TIMEOUT = datetime.timedelta(seconds=60)


class RankStore:
    """The store, as seen from one rank."""

    def __init__(self, host: str, port: int, rank: int, world_size: int, nodes: int) -> None:
        from torch.distributed import TCPStore

        self.rank, self.world_size, self.num_readers = rank, world_size, nodes - 1
        # torch alone would listen on all addresses.
        listener = _listen(host, port) if rank == 0 else None
        self.store = TCPStore(
            host,
            port,
            is_master=rank == 0,
            timeout=CONNECT_TIMEOUT,
            wait_for_workers=False,
            multi_tenant=False,
            master_listen_fd=listener,
        )

    def send(self, name: str, value: Any) -> None:
        """Send a value to one rank of each other node."""
        self._send_bytes(name, pickle.dumps(value))

    def receive(self, name: str) -> Any:
        """Return a value that rank 0 sends; call this on one rank of each other node."""
        return pickle.loads(self._receive_bytes(name))

    def send_folder(self, name: str, folder: Path) -> None:
        """Send the files of a directory."""
        paths = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        self._send_bytes(name, json.dumps(paths).encode())
        for path in paths:
            self._send_bytes(f"{name}/{path}", (folder / path).read_bytes())

    def receive_folder(self, name: str, folder: Path) -> None:
        """Write the files of a directory that rank 0 sends."""
        for path in json.loads(self._receive_bytes(name)):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._receive_bytes(f"{name}/{path}"))

    def wait_for_all(self, name: str, timeout: datetime.timedelta = WAIT_TIMEOUT) -> None:
        """Wait until all ranks have called this with the same name."""
        if self.store.add(f"{name}/arrived", 1) == self.world_size:
            self.store.set(f"{name}/complete", "1")
        self.store.wait([f"{name}/complete"], timeout)

    def leave(self) -> None:
        """Keep rank 0, and with it the store, until the other ranks have read all values; not longer than a minute."""
        # A failed rank never leaves.
        with suppress(RuntimeError):
            self.wait_for_all("leave", LEAVE_TIMEOUT)

    def _send_bytes(self, name: str, content: bytes) -> None:
        starts = range(0, len(content), CHUNK_BYTES)
        for number, start in enumerate(starts):
            self.store.set(f"{name}/{number}", content[start : start + CHUNK_BYTES])  # type: ignore[arg-type]
        self.store.set(name, str(len(starts)))

    def _receive_bytes(self, name: str) -> bytes:
        self.store.wait([name], WAIT_TIMEOUT)
        keys = [f"{name}/{number}" for number in range(int(self.store.get(name)))]
        content = b"".join(self.store.get(key) for key in keys)
        if self.store.add(f"{name}/read", 1) == self.num_readers:
            for key in keys:
                self.store.delete_key(key)
        return content


def _listen(host: str, port: int) -> int:
    """Return the file descriptor of a socket that listens; the store closes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family).detach()
