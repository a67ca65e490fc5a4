"""Arrow files and streams, with and without compression."""

from __future__ import annotations

import io
from pathlib import Path

import format_files
import pyarrow as pa
import pyarrow.feather as feather
import pytest

from steps.data.formats import arrow_reader
from steps.runtime.errors import BadInput

TABLE = pa.table({"prompt": [f"q{n}" for n in range(100)], "completion": ["a"] * 100, "id": range(100)})


def as_feather(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(table, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_feather(tmp_path: Path, compression: str) -> None:
    content = as_feather(TABLE, compression=compression, chunksize=30)
    assert format_files.rows_of(tmp_path, "a.feather", content) == TABLE.drop_columns(["id"]).to_pylist()


def test_types_are_canonical(tmp_path: Path) -> None:
    columns = {
        "prompt": pa.array(["a", None, "a"]).dictionary_encode(),
        "completion": pa.array(["x", "y", "z"], pa.large_string()),
        "system": pa.array(["x", "y", "z"], pa.string_view()),
        "messages": pa.array([[{"role": "user"}]] * 3, pa.list_(pa.struct([("role", pa.string())]), 1)),
    }
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))
    table = format_files.convert(tmp_path, "a.arrow", sink.getvalue())
    assert [str(field.type) for field in table.schema][:3] == ["string"] * 3
    assert table.to_pylist()[1] == {
        "prompt": None,
        "completion": "y",
        "system": "y",
        "messages": [{"role": "user"}],
    }


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_batch_that_would_exceed_memory(tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_reader, "MAX_BATCH_BYTES", 1 << 20)
    table = pa.table({"prompt": ["a" * 1000] * 5000, "completion": ["b"] * 5000})
    with pytest.raises(BadInput, match=r"record batch 0 has 5 MB when decompressed \(limit 1 MB\)"):
        format_files.convert(tmp_path, "a.feather", as_feather(table, compression=compression, chunksize=5000))
    read = format_files.convert(tmp_path, "a.feather", as_feather(table, compression=compression, chunksize=500))
    assert len(read) == 5000
    # Others are mapped, and read in slices.
    read = format_files.convert(tmp_path, "a.feather", as_feather(table, compression="uncompressed", chunksize=5000))
    assert len(read) == 5000


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([["a"], ["b"]], names=["prompt", "prompt"])
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(BadInput, match="several columns are called `prompt`"):
        format_files.convert(tmp_path, "a.arrow", sink.getvalue())
