"""Columns whose names are nearly those that a format needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.download.rows import DataFile, UnusableData, detect_common_format, normalize

ASK, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}


def written(path: Path, **columns: Any) -> DataFile:
    pq.write_table(pa.table(columns), path)
    return DataFile(path, path.name)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mesages": [[ASK, ANSWER]]}, "only `mesages` (rename `mesages` to `messages`)"),
        (
            {"Prompt": ["a"], "completon": ["b"]},
            "(rename `Prompt` to `prompt` and rename `completon` to `completion`)",
        ),
        ({"body": ["a"]}, "only `body`"),
    ],
)
def test_a_misspelled_column_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UnusableData) as raised:
        detect_common_format([written(tmp_path / "a.parquet", **columns)])
    assert raised.value.message.endswith(message)


@pytest.mark.parametrize(("name", "renames"), [("completon", True), ("Completion", True), ("source", False)])
def test_a_misspelled_key_of_some_rows_is_named(tmp_path: Path, name: str, renames: bool) -> None:
    columns = {"prompt": ["a", "b"], "completion": ["c", None], name: [None, "d"]}
    with pytest.raises(UnusableData, match=r"null value: 1 \(row 1\)") as raised:
        normalize([written(tmp_path / "a.parquet", **columns)], lambda rows: None)
    assert (f"not read: rename `{name}` to `completion`" in raised.value.message) == renames
