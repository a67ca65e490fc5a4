"""Files of every format with the same rows."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from steps.data.formats import conversion

Row = dict[str, Any]
SUFFIXES = ("parquet", "jsonl", "json", "csv", "tsv", "arrow", "arrows", "feather", "tar")


def encode(suffix: str, rows: Sequence[Row]) -> bytes:
    """Return the rows as a file of this format."""
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(list(rows))
    if suffix == "parquet":
        pq.write_table(table, buffer)
    elif suffix == "jsonl":
        buffer.write("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode())
    elif suffix == "json":
        buffer.write(json.dumps(list(rows), indent=1).encode())
    elif suffix in ("csv", "tsv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        buffer.write(text.getvalue().encode())
    elif suffix in ("arrow", "arrows"):
        new = pa.ipc.new_file if suffix == "arrow" else pa.ipc.new_stream
        with new(buffer, table.schema) as sink:
            sink.write_table(table, max_chunksize=2)
    elif suffix == "feather":
        feather.write_feather(table, buffer, compression="zstd")
    else:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for number, row in enumerate(rows):
                content = json.dumps(row).encode()
                member = tarfile.TarInfo(f"part/{number:05}.json")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def convert(folder: Path, name: str, content: bytes | str, columns: dict[str, str] | None = None) -> pa.Table:
    """Return the rows of a file with this content, as they are converted."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    converted = conversion.to_parquet(path, name, "", conversion.ColumnUse.of(columns or {}), folder / "converted")
    table = pq.read_table(converted)
    if converted != path:
        converted.unlink()
    return table


def rows_of(folder: Path, name: str, content: bytes | str) -> list[Row]:
    """Return the converted rows, without columns whose values are not kept."""
    table = convert(folder, name, content)
    return table.select([field.name for field in table.schema if field.type != pa.null()]).to_pylist()
