"""Damaged commits and checkpoints of a Delta log give the live files, or are refused with file and line."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Iterator
from typing import Any, BinaryIO

import fuzz
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import mutate_bytes, mutate_document

from steps.data.formats import delta_log

FIRST = "_delta_log/00000000000000000000.json"
SECOND = "_delta_log/00000000000000000001.json"
CHECKPOINT = "_delta_log/00000000000000000000.checkpoint.parquet"
ACTIONS: list[dict[str, Any]] = [
    {"protocol": {"minReaderVersion": 1, "readerFeatures": ["timestampNtz"]}},
    {"metaData": {"id": "1", "format": {"provider": "parquet"}, "configuration": {"delta.x": "1"}}},
    {"add": {"path": "part-0.parquet", "size": 5, "dataChange": True}},
    {"add": {"path": "part%201.parquet", "size": 5}},
    {"remove": {"path": "part-0.parquet"}},
]


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    rows = [{"add": {"path": "a.parquet"}, "protocol": None}, {"add": None, "protocol": {"minReaderVersion": 1}}]
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def create(chance: random.Random) -> dict[str, bytes]:
    lines = [mutate_document(chance, a) if chance.random() < 0.3 else json.dumps(a).encode() for a in ACTIONS]
    files = {FIRST: b"\n".join(lines), SECOND: b"\n".join(chance.sample(lines, 2))}
    if chance.random() < 0.3:
        files[CHECKPOINT] = mutate_bytes(chance, checkpoint())
    if chance.random() < 0.2:
        files[chance.choice([SECOND, "_delta_log/x.json"])] = mutate_bytes(chance, files[FIRST])
    return files


def read(files: dict[str, bytes]) -> None:
    @contextlib.contextmanager
    def open_file(name: str) -> Iterator[BinaryIO]:
        yield io.BytesIO(files[name])

    for path in delta_log.read_live_files(list(files), open_file):
        assert not path.startswith("/") and ".." not in path.split("/")


@pytest.mark.parametrize(("kind", "count"), fuzz.cases(["delta"]))
def test_damaged_logs_are_refused(kind: str, count: int) -> None:
    fuzz.check(kind, read, create, count)
