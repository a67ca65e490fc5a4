"""The files that are part of the newest version of a Delta table."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.data.formats.delta_log import read_live_files
from steps.runtime.errors import BadInput

Log = dict[str, bytes]


def commit(number: int, *actions: Any) -> Log:
    return {f"_delta_log/{number:020}.json": b"\n".join(json.dumps(action).encode() for action in actions)}


def checkpoint(number: int, paths: list[str], part: str = "") -> Log:
    buffer = io.BytesIO()
    kind = pa.struct([("path", pa.string())])
    actions = [{"add": {"path": path}, "remove": None} for path in paths]
    actions.append({"add": None, "remove": {"path": "old.parquet"}})
    pq.write_table(pa.Table.from_pylist(actions, pa.schema([("add", kind), ("remove", kind)])), buffer)
    return {f"_delta_log/{number:020}.checkpoint{part}.parquet": buffer.getvalue()}


def add(path: str, **facts: Any) -> Any:
    return {"add": {"path": path, **facts}}


def remove(path: str) -> Any:
    return {"remove": {"path": path, "dataChange": True}}


def live(log: Log) -> list[str]:
    return read_live_files(list(log), lambda name: io.BytesIO(log[name]))


PARTS = (".0000000001.0000000002", ".0000000002.0000000002")
METADATA = {"metaData": {"format": {"provider": "parquet"}, "configuration": {"delta.appendOnly": "true"}}}


@pytest.mark.parametrize(
    ("log", "files"),
    [
        (commit(0, METADATA, add("a"), add("b")) | commit(1, remove("a"), add("c")), ["b", "c"]),
        (commit(0, add("a")) | commit(1, remove("a")) | commit(2, add("a")), ["a"]),
        (checkpoint(10, ["a", "b"]) | commit(10, add("zzz")) | commit(11, remove("b")), ["a"]),
        (
            checkpoint(3, ["a"], f".{1:010}.{2:010}")
            | checkpoint(3, ["b"], f".{2:010}.{2:010}")
            | commit(4, add("c")),
            ["a", "b", "c"],
        ),
        # Of an incomplete checkpoint nothing is used.
        (commit(0, add("a")) | commit(1, add("b")) | checkpoint(1, ["x"], PARTS[0]), ["a", "b"]),
        (commit(0, add("lang=en/a%20b.parquet")), ["lang=en/a b.parquet"]),
        (commit(0, {"commitInfo": {}}, {"protocol": {"minReaderVersion": 1}}, add("a")), ["a"]),
    ],
    ids=["commits", "again", "checkpoint", "parts", "incomplete", "encoded", "protocol"],
)
def test_live_files(log: Log, files: list[str]) -> None:
    assert live(log) == files


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (lambda: commit(0, add("a", deletionVector={"storageType": "u"})), r"\.json:1: .* deletion vectors"),
        (
            lambda: commit(0, {"metaData": {"configuration": {"delta.columnMapping.mode": "name"}}}, add("a")),
            "column mapping",
        ),
        (lambda: commit(0, {"protocol": {"readerFeatures": ["typeWidening"]}}), "typeWidening"),
        (lambda: commit(0, {"metaData": {"format": {"provider": "orc"}}}), "orc, not parquet"),
        (lambda: commit(0, add("a")) | commit(2, add("b")), "version 1 is missing"),
        (lambda: commit(1, add("a")), "version 0 is missing"),
        (lambda: {"_delta_log/_last_checkpoint": b"{}"}, "contains no commit"),
        (lambda: commit(0, add("a")) | {f"_delta_log/{1:020}.json": b'{"add":\n'}, r"1\.json:1: not a JSON object"),
        (lambda: commit(0, {"add": 5}), "`add` is not an object"),
        (lambda: commit(0, {"add": {}}), "the path is missing"),
        (lambda: commit(0, add("s3://other/a")), "outside the table"),
        (lambda: commit(0, add("../a")), "outside the table"),
        (lambda: commit(0, add("%2e%2e/a")), "outside the table"),
        (lambda: {f"_delta_log/{5:020}.checkpoint.parquet": b"PAR1xxPAR1"}, "a damaged checkpoint"),
        (
            lambda: {f"_delta_log/{5:020}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json": b""},
            "checkpoints of version 2",
        ),
    ],
)
def test_refused_logs(log: Callable[[], Log], message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        live(log())
    assert raised.value.fix
