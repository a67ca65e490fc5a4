"""Parquet files that are small on disk and huge when decoded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.data import decoded_size
from steps.data.parquet_batches import read_batches

MB = 1_000_000


def conversations(texts: list[str], rows: list[list[int]]) -> pa.Table:
    """A table whose rows refer to texts of a dictionary."""
    indices = [index for row in rows for index in row]
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    content = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(texts))
    role = pa.array(["user", "assistant"] * (len(indices) // 2 + 1)).slice(0, len(indices))
    messages = pa.StructArray.from_arrays([role, content], ["role", "content"])
    return pa.table({"messages": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), messages)})


def write(path: Path, table: pa.Table, **options) -> Path:
    pq.write_table(table, path, compression="zstd", **options)
    return path


def test_a_dictionary_that_one_row_repeats_is_refused_by_name(tmp_path):
    """1 KB on disk, 3.5 GB in memory: read in a process whose memory is limited."""
    path = write(tmp_path / "bomb.parquet", conversations(["a" * MB], [[0] * 3500]))
    assert path.stat().st_size < 2000
    code = """
import re, sys
from pathlib import Path
from steps.data.decoded_size import RowTooLarge
from steps.data.parquet_batches import read_batches
try:
    for _ in read_batches(Path(sys.argv[1]), ["messages"]): pass
except RowTooLarge as error:
    print(error)
# Not ru_maxrss, which begins with that of the parent.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1000)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    message, memory = done.stdout.splitlines()
    assert message.startswith("row group 0 needs up to 3,500 MB a row when decoded (messages.list")
    assert int(memory) < 600


def replace_in_footer(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    assert old in content[begin:]
    footer = content[begin:-8].replace(old, new, 1)
    path.write_bytes(content[:begin] + footer + len(footer).to_bytes(4, "little") + content[-4:])


def test_damaged_metadata_of_a_column_chunk_is_an_error(tmp_path):
    """A histogram of a wrong length, on which pyarrow aborts the process when asked for the column chunk."""
    path = write(tmp_path / "a.parquet", conversations(["a", "b"], [[0, 1]] * 4))
    levels = b"\0\0\0\0\x10"  # definition levels 0 to 4 of 8 values
    replace_in_footer(path, b"\x56" + levels, b"\x66\0" + levels)
    code = """
import sys
from pathlib import Path
from steps.data.parquet_batches import read_batches
try:
    for _ in read_batches(Path(sys.argv[1]), ["messages"]): pass
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.partition(",")[0]) == (0, "Definition level histogram size mismatch")


def test_a_negative_size_of_a_row_group_is_ignored(tmp_path):
    path = write(tmp_path / "a.parquet", conversations(["a", "b"], [[0, 1]] * 4))
    size = pq.read_metadata(path).row_group(0).total_byte_size
    assert 64 <= size < 8192  # two bytes as a varint
    old, new = (bytes([0x16, number & 0x7F | 0x80, number >> 7]) for number in (2 * size, 2 * size - 1))
    replace_in_footer(path, old, new)
    assert pq.read_metadata(path).row_group(0).total_byte_size == -size
    assert sum(len(batch) for batch in read_batches(path, ["messages"])) == 4


def test_a_text_that_many_rows_repeat_is_read_in_small_batches(tmp_path):
    path = write(tmp_path / "a.parquet", conversations(["a" * MB, "b"], [[1, 0]] * 200))
    rows = 0
    for batch in read_batches(path, ["messages"]):
        assert batch.nbytes < 20 * MB
        rows += len(batch)
    assert rows == 200


def test_one_compressed_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_size, "MAX_ROW_BYTES", 4 * MB)
    path = write(tmp_path / "a.parquet", pa.table({"text": ["a" * 8 * MB]}), use_dictionary=False)
    with pytest.raises(decoded_size.RowTooLarge, match=r"row group 0 needs up to 8 MB a row.*text has a page"):
        list(read_batches(path, ["text"]))


def test_a_footer_that_states_a_small_size_hides_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_size, "MAX_ROW_BYTES", 4 * MB)
    path = write(tmp_path / "a.parquet", pa.table({"text": ["a" * 8 * MB]}), use_dictionary=False)
    size = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    content, stated = path.read_bytes(), zigzag(size)
    # 36, with leading zeros, so that the footer keeps its length.
    small = bytes([36 * 2 | 0x80]) + b"\x80" * (len(stated) - 2) + b"\x00"
    path.write_bytes(content.replace(stated, small))
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 36
    with pytest.raises(decoded_size.RowTooLarge, match=r"row group 0 needs up to 8 MB a row.*text has a page"):
        list(read_batches(path, ["text"]))


def zigzag(number: int) -> bytes:
    """Return a positive number as Thrift's compact protocol writes it."""
    number, content = number * 2, b""
    while number >= 0x80:
        content += bytes([number & 0x7F | 0x80])
        number >>= 7
    return content + bytes([number])


def test_long_texts_in_many_short_rows_are_not_refused(tmp_path, monkeypatch):
    """The bound (longest text times most values of a row) is too high, the largest row is not."""
    monkeypatch.setattr(decoded_size, "MAX_ROW_BYTES", 2 * MB)
    table = conversations(["a" * MB, "b"], [[0, 1], [1] * 50, [1, 0]] * 10)
    path = write(tmp_path / "a.parquet", table)
    assert sum(len(batch) for batch in read_batches(path, ["messages"])) == 30


@pytest.mark.parametrize("columns", [["text"], ["messages"]])
def test_ordinary_data_needs_no_bound(tmp_path, columns):
    table = conversations([f"text {n}" for n in range(100)], [[n, n + 1] for n in range(99)])
    table = table.append_column("text", pa.array([f"text {n}" for n in range(99)]))
    path = write(tmp_path / "a.parquet", table)
    with pq.ParquetFile(path) as parquet:
        assert decoded_size.bound_row_bytes(path, parquet, 0, columns) == 0
