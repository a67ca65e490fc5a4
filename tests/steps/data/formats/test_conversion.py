"""Every format gives the same rows, with every compression, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import format_files
import pyarrow as pa
import pytest

from steps.data.formats import content, conversion
from steps.runtime import files
from steps.runtime.errors import BadInput

ROWS = [{"prompt": f"is {n}, or\nnot?", "completion": f'"{n}"é'} for n in range(50)]
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    "lz4": lambda data: pa.compress(data, "lz4", asbytes=True),
}


@pytest.mark.parametrize("suffix", format_files.SUFFIXES)
def test_formats(tmp_path: Path, suffix: str) -> None:
    assert format_files.rows_of(tmp_path, f"a.{suffix}", format_files.encode(suffix, ROWS)) == ROWS


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", format_files.SUFFIXES)
def test_compressed_formats(tmp_path: Path, suffix: str, compression: str) -> None:
    data = COMPRESSIONS[compression](format_files.encode(suffix, ROWS))
    assert format_files.rows_of(tmp_path, f"a.{suffix}.{compression}", data) == ROWS


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_truncated_compression(tmp_path: Path, compression: str) -> None:
    data = COMPRESSIONS[compression](format_files.encode("jsonl", ROWS))
    with pytest.raises(BadInput, match=r"a\.jsonl"):
        format_files.convert(tmp_path, f"a.jsonl.{compression}", data[: len(data) // 2])


@pytest.mark.parametrize("compression", ["gz", "zst", "xz"])
def test_concatenated_compression(tmp_path: Path, compression: str) -> None:
    half = COMPRESSIONS[compression](format_files.encode("jsonl", ROWS))
    assert format_files.rows_of(tmp_path, f"a.jsonl.{compression}", half + half) == ROWS + ROWS


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json", "arrow", "arrows", "tar"])
def test_names_without_extension(tmp_path: Path, suffix: str) -> None:
    assert format_files.rows_of(tmp_path, "0001-rows", format_files.encode(suffix, ROWS)) == ROWS


def test_parquet_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(format_files.encode("parquet", ROWS))
    use = conversion.ColumnUse.of({})
    assert (
        conversion.to_parquet(tmp_path / "a.parquet", "a.parquet", "", use, tmp_path / "out") == tmp_path / "a.parquet"
    )
    assert not (tmp_path / "out").exists()


def test_a_conversion_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(format_files.encode("jsonl", ROWS))

    def convert(digest: str, columns: dict[str, str]) -> Path:
        return conversion.to_parquet(path, path.name, digest, conversion.ColumnUse.of(columns), tmp_path / "out")

    first = convert(files.sha256(path), {})
    monkeypatch.setattr(conversion, "_convert", lambda *_: pytest.fail("converted again"))
    assert convert(files.sha256(path), {}) == first
    monkeypatch.undo()
    assert convert("other", {}) != first
    assert convert(files.sha256(path), {"prompt": "question"}) != first


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("a.parquet", b'{"messages": []}', "not a parquet file, but JSON"),
        ("a.parquet", b"<!DOCTYPE html><html>", "not a parquet file, but a web page"),
        ("a.jsonl", b"<html>", "not a JSON file, but a web page"),
        ("a.csv", b"<!doctype html>", "not a CSV file, but a web page"),
        ("a.parquet", b"role,content\n", "not a parquet file, but data that begins with b'role,content"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself"),
        ("a.json", b"PAR1", "not a JSON file, but parquet"),
        ("a.arrow", b"x", "not an Arrow IPC file, but data that begins"),
        ("a.arrow", b"FEA1", "a Feather file of version 1"),
        ("a.csv", b"PK\x03\x04", "a zip archive or an Excel file"),
        ("rows", b"a,b\n1,2\n", "the format is not known from the name, nor from the content"),
        ("a.parquet", b"PARE", "an encrypted parquet file"),
    ],
)
def test_content_of_another_format(name: str, start: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        content.check_start(name, start)
    assert raised.value.fix


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.csv: the file is empty"):
        format_files.convert(tmp_path, "a.csv", b"")


MEASURE = """
import re, sys
from pathlib import Path
from steps.data.formats import conversion
path = Path(sys.argv[1])
conversion.to_parquet(path, path.name, "", conversion.ColumnUse.of({}), path.parent / "out")
# Not ru_maxrss, which can be that of the parent.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "feather", "tar"])
def test_memory_is_bounded(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "why? " * 200, "completion": f"{n} " * 100} for n in range(2000)]
    part = format_files.encode(suffix, rows)
    path = tmp_path / f"a.{suffix}"
    with path.open("wb") as file:
        if suffix == "jsonl":
            for _ in range(300):
                file.write(part)
        elif suffix == "json":
            inner = part.strip()[1:-1]
            file.write(b"[" + inner)
            for _ in range(300):
                file.write(b"," + inner)
            file.write(b"]")
        elif suffix == "csv":
            header, _, body = part.partition(b"\n")
            file.write(header + b"\n")
            for _ in range(300):
                file.write(body)
        else:
            file.write(format_files.encode(suffix, rows * 150))
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000, f"{path.stat().st_size >> 20} MB of {suffix}"


def test_schema_of_unused_columns_is_only_names(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "meta": {"k": n} if n % 2 else [n]} for n in range(4)]
    table = format_files.convert(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert table.schema.field("meta").type == pa.null()
