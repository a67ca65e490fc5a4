"""Damaged files of every format end in errors for the user, never in an unexpected exception."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import format_files
import fuzz
import pytest
from mutations import mutate_bytes

from steps.data.formats import conversion
from steps.download import rows
from steps.runtime.errors import BadInput

CHATS = [
    {"messages": [{"role": "user", "content": f"é {n}?\n"}, {"role": "assistant", "content": "[1, {}]"}], "id": n}
    for n in range(8)
]
PAIRS = [{"prompt": f"is {n},\nor not?", "completion": f'"{n}"', "id": n} for n in range(8)]
FORMATS = ("jsonl", "json", "csv", "arrow", "arrows", "feather", "tar", "jsonl.gz", "csv.zst", "parquet", "parquet.gz")


def encode(suffix: str) -> bytes:
    import pyarrow as pa

    inner, _, compression = suffix.partition(".")
    content = format_files.encode(inner, PAIRS if inner == "csv" else CHATS)
    if compression == "gz":
        return gzip.compress(content)
    return pa.compress(content, "zstd", asbytes=True) if compression else content


def read_rows(path: Path) -> None:
    """Read a parquet file as download does, without a conversion."""
    data = [rows.DataFile(path, path.name)]
    rows.detect_common_format(data)
    rows.has_message_fields(data)
    rows.normalize(data, lambda batch: None)


def damage_footer(chance: random.Random, content: bytes) -> bytes:
    """Return parquet with a mutated footer of the stated length, which is interpreted."""
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = mutate_bytes(chance, content[begin:-8])
    return content[:begin] + footer + len(footer).to_bytes(4, "little") + content[-4:]


def run(folder: Path, suffix: str, count: int) -> None:
    content, chance, errors = encode(suffix), random.Random(suffix), 0
    for number in range(count):
        path = folder / f"a.{suffix}"
        damage = damage_footer if suffix == "parquet" and number % 2 else mutate_bytes
        path.write_bytes(damage(chance, content))
        (folder / "last").write_bytes(path.read_bytes())  # for the case that it crashes the process
        use = conversion.ColumnUse.of({})
        try:
            with fuzz.limited_cpu():
                if suffix == "parquet":
                    read_rows(path)
                else:
                    conversion.to_parquet(path, path.name, str(number), use, folder / "out")
        except BadInput as error:
            assert error.fix and "a." in error.message
            errors += 1
        for left in (folder / "out").glob("*") if (folder / "out").exists() else ():
            assert left.suffix == ".parquet", "no temporary file remains"
            left.unlink()
    assert errors > count // 10


def run_process(folder: Path, suffix: str, count: int) -> None:
    """Run in another process, because pyarrow aborts the process on some damaged parquet."""
    code = f"import pathlib, test_fuzz_formats as t; t.run(pathlib.Path({str(folder)!r}), {suffix!r}, {count})"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}, file {folder / 'last'}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize(("kind", "count"), fuzz.cases(FORMATS, 60))
def test_damaged_files_are_refused(tmp_path: Path, kind: str, count: int) -> None:
    (run_process if kind == "parquet" else run)(tmp_path, kind, count)
