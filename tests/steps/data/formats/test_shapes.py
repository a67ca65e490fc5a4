"""Types and encodings of parquet files, and folders of Spark and Delta: each is read, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.download.settings import Settings
from steps.download.step import download
from steps.runtime.errors import BadInput

DATA = Path(__file__).parents[3] / "data" / "formats"
DISKS = {f"Disk {n} full?": f"Clean volume {n}." for n in range(12)}
QUESTIONS = {f"Q {n}": f"A {n}" for n in range(12)}
TASKS = {f"do x {n}": f"y{n}" for n in range(12)}
READ = {
    "comp-brotli": DISKS,
    "comp-gzip": DISKS,
    "comp-lz4": DISKS,
    "comp-none": DISKS,
    "comp-zstd": DISKS,
    "conv-role-content": DISKS,
    "dict-nested": DISKS,
    "dots-beside": QUESTIONS,
    "empty-group": DISKS,
    "fixed-list": DISKS,
    "json-text": DISKS,
    "list-of-map": DISKS,
    "list-view": DISKS,
    "mix-lists": DISKS,
    "parts": DISKS,
}
REFUSED = {
    "binary": "unsupported column type: `messages` is list<item: struct<role: binary, content: binary>>",
    "binary-text": "unsupported column type: `prompt` is binary and `completion` is binary",
    "encrypted": "an encrypted parquet file, which is not supported",
    "no-group": "the file has no rows",
    "null-type": "null value: 12",
}


def pairs(work: Path, source: Path, **settings: object) -> dict[str, str]:
    """Return question -> answer of all rows."""
    download(Settings(work=work, source=source, **settings))
    table = pa.concat_tables(pq.read_table(file) for file in (work / "dataset").glob("*.parquet"))
    return {row[0]["content"]: row[-1]["content"] for row in table["messages"].to_pylist()}


@pytest.mark.parametrize("shape", READ)
def test_shapes_that_are_read(tmp_path: Path, shape: str) -> None:
    assert pairs(tmp_path, DATA / "shapes" / shape) == READ[shape]


@pytest.mark.parametrize("shape", REFUSED)
def test_shapes_that_are_refused(tmp_path: Path, shape: str) -> None:
    with pytest.raises(BadInput) as raised:
        pairs(tmp_path, DATA / "shapes" / shape)
    assert f"a.parquet: {REFUSED[shape]}" in raised.value.message or REFUSED[shape] in raised.value.message
    assert raised.value.fix


def test_every_shape_has_a_test() -> None:
    others = {"dots", "arrow-json", "null-input", "null-string"}
    assert {path.name for path in (DATA / "shapes").iterdir()} == {*READ, *REFUSED, *others}


def test_dotted_names(tmp_path: Path) -> None:
    columns = {"prompt": "data.prompt", "completion": "data.completion"}
    assert pairs(tmp_path, DATA / "shapes/dots", columns=columns) == QUESTIONS


def test_json_extension_type_is_text(tmp_path: Path) -> None:
    assert list(pairs(tmp_path, DATA / "shapes/arrow-json")) == ['{"a":1}']


@pytest.mark.parametrize("shape", ["null-input", "null-string"])
def test_column_without_values(tmp_path: Path, shape: str) -> None:
    assert list(pairs(tmp_path, DATA / "shapes" / shape)) == ["do x"]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([["a", "b"], ["c", "d"], ["e", "f"]], names=["prompt", "prompt", "completion"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="several columns are called `prompt`"):
        pairs(tmp_path, tmp_path / "a.parquet")


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "RLE_DICTIONARY"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_encodings(tmp_path: Path, encoding: str, version: str) -> None:
    table = pa.table({"prompt": list(QUESTIONS), "completion": list(QUESTIONS.values())})
    is_dictionary = encoding == "RLE_DICTIONARY"
    pq.write_table(
        table,
        tmp_path / "a.parquet",
        use_dictionary=is_dictionary,
        column_encoding=None if is_dictionary else {"prompt": encoding, "completion": encoding},
        data_page_version=version,
    )
    assert pairs(tmp_path, tmp_path / "a.parquet") == QUESTIONS


@pytest.mark.parametrize("folder", ["spark", "delta"])
def test_tables_without_removed_rows(tmp_path: Path, folder: str) -> None:
    expected = {f"Disk {n} full?": f"ok clean volume {n}." for n in range(10)}
    assert pairs(tmp_path, DATA / "tables" / folder) == expected


def test_delta_log_that_lists_missing_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="_delta_log lists files that are not in the folder: x"):
        pairs(tmp_path, DATA / "tables/delta-checkpoint")
