"""Selection of the data files of a folder."""

from __future__ import annotations

import pytest

from steps.data.formats import file_names
from steps.data.formats.selection import select_data_files
from steps.runtime.errors import BadInput


@pytest.mark.parametrize(
    ("names", "pattern", "files"),
    [
        (["b.jsonl", "a.jsonl", "README.md", "sub/c.jsonl"], None, ["a.jsonl", "b.jsonl", "sub/c.jsonl"]),
        (["a.parquet", "..data/a.parquet", ".a.parquet.crc", ".a.parquet"], None, ["a.parquet"]),
        (["_SUCCESS", "_committed_1", "part-0.json.gz", "_temporary/0/part-0.json.gz"], None, ["part-0.json.gz"]),
        (["part-0.csv._COPYING_", "part-0.csv"], None, ["part-0.csv"]),
        (["_day=1/a.parquet", "_metadata"], None, ["_day=1/a.parquet"]),
        (["data-00000.arrow", "state.json", "dataset_info.json"], None, ["data-00000.arrow"]),
        (["a.jsonl", "b.csv"], "*.csv", ["b.csv"]),
        (["a/x.jsonl", "a/b/y.jsonl", "z.jsonl"], "a/**/*.jsonl", ["a/b/y.jsonl", "a/x.jsonl"]),
        (["train-1.csv", "test-1.csv"], "{train,dev}-*.csv", ["train-1.csv"]),
        (["_old/a.csv", "b.csv"], "_old/*.csv", ["_old/a.csv"]),
        (["a", "b.txt"], "a", ["a"]),
    ],
)
def test_selected_files(names: list[str], pattern: str | None, files: list[str]) -> None:
    assert select_data_files(names, pattern).files == files


@pytest.mark.parametrize(
    ("names", "pattern", "message"),
    [
        ([], None, "no data file found: the folder contains nothing"),
        (["a.txt", "b.md"], None, "the folder contains a.txt, b.md"),
        (["a.txt"], "*.txt", "not a supported format: a.txt"),
        (["a.csv"], "*.jsonl", r"no file matches '\*\.jsonl': the folder contains a\.csv"),
        (["a.csv", "b.parquet"], None, "files of several formats: .*a.csv"),
        (["metadata/v1.metadata.json", "data/a.parquet"], None, "an Apache Iceberg table"),
        ([".hoodie/hoodie.properties", "a.parquet"], None, "an Apache Hudi table"),
        (["t/_delta_log/00000000000000000000.json", "t/a.parquet"], None, "t/ is a Delta table"),
    ],
)
def test_refused_folders(names: list[str], pattern: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        select_data_files(names, pattern)
    assert raised.value.fix


def test_what_is_not_read_is_reported() -> None:
    selection = select_data_files(["lang=en/day=1/a.csv", "lang=de/day=1/a.csv", "notes.txt"])
    assert selection.ignored == ["notes.txt"]
    assert selection.partitions == ["lang", "day"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", ("json", "")),
        ("a.JSON.GZ", ("json", "gzip")),
        ("rows.tgz", ("webdataset", "gzip")),
        ("https://x/a.csv.zst", ("csv", "zstd")),
        ("data-00000-of-00001", (None, "")),
        ("a.gz", (None, "gzip")),
        ("a.xlsx", (None, "")),
    ],
)
def test_names(name: str, expected: tuple[str | None, str]) -> None:
    assert file_names.parse_name(name) == expected


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.xlsx", ".xlsx"), ("a.txt.gz", ".txt"), ("a.csv", ""), ("a", ""), ("get.php", ""), ("v1.0", ""), (".env", "")],
)
def test_unsupported_extensions(name: str, extension: str) -> None:
    assert file_names.unsupported_extension(name) == extension
