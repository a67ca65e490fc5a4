from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_server import ParquetServer

Chat = list[dict[str, str]]


@pytest.fixture
def parquet_server() -> Iterator[ParquetServer]:
    server = ParquetServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def chats() -> Callable[..., list[Chat]]:
    """``chats(n)``: n rows of chat that differ from each other and from those of another ``about``."""

    def make(count: int, about: str = "pod") -> list[Chat]:
        return [
            [{"role": "user", "content": f"{about} {i}?"}, {"role": "assistant", "content": f"It is {i}."}]
            for i in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def as_parquet() -> Callable[..., bytes]:
    """``as_parquet(messages=[...], ...)``: a parquet file with these columns."""

    def make(**columns: object) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer)
        return buffer.getvalue()

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
