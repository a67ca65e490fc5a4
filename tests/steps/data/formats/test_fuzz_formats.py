"""Damaged files of every format end in errors for the user, never in an unexpected exception."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import format_files
import pytest

from steps.data.formats import conversion
from steps.runtime.errors import BadInput

CHATS = [
    {"messages": [{"role": "user", "content": f"é {n}?\n"}, {"role": "assistant", "content": "[1, {}]"}], "id": n}
    for n in range(8)
]
PAIRS = [{"prompt": f"is {n},\nor not?", "completion": f'"{n}"', "id": n} for n in range(8)]
FORMATS = ("jsonl", "json", "csv", "arrow", "arrows", "feather", "tar", "jsonl.gz", "csv.zst", "parquet.gz")
TOKENS = [b"{", b"[", b"}", b"]", b'"', b",", b"\n", b"\\", b"null", b"1e999", b"\xff", b"\0", b"\\ud800", b"[" * 3000]


def mutate(chance: random.Random, content: bytes) -> bytes:
    """Return the content with some bytes changed, inserted, removed or repeated."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif kind == 1:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 2:
            del data[at : at + chance.choice([1, 4, 50])]
        elif kind == 3:
            data[at:at] = data[at : at + chance.choice([1, 8, 200])]
        else:
            del data[at:]
    return bytes(data)


def encode(suffix: str) -> bytes:
    import pyarrow as pa

    inner, _, compression = suffix.partition(".")
    content = format_files.encode(inner, PAIRS if inner == "csv" else CHATS)
    if compression == "gz":
        return gzip.compress(content)
    return pa.compress(content, "zstd", asbytes=True) if compression else content


def fuzz(folder: Path, suffix: str, count: int) -> None:
    content, chance, errors = encode(suffix), random.Random(suffix), 0
    for number in range(count):
        path = folder / f"a.{suffix}"
        path.write_bytes(mutate(chance, content))
        (folder / "last").write_bytes(path.read_bytes())  # for the case that it crashes the process
        use = conversion.ColumnUse.of({})
        try:
            conversion.to_parquet(path, path.name, str(number), use, folder / "out")
        except BadInput as error:
            assert error.fix and "a." in error.message
            errors += 1
        for left in (folder / "out").glob("*") if (folder / "out").exists() else ():
            assert left.suffix == ".parquet", "no temporary file remains"
            left.unlink()
    assert errors > count // 10


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    fuzz(tmp_path, suffix, 60)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_many_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    fuzz(tmp_path, suffix, 10_000)
