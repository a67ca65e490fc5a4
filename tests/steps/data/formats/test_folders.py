"""Data files of a local folder."""

from pathlib import Path

from steps.data.formats.folders import find_data_files


def test_the_rows_of_local_runs_are_not_data(tmp_path: Path) -> None:
    """The folder of the rows can be the one that runs are started in."""
    converted = tmp_path / "runs" / "disks-x7k2m" / "volumes" / "work" / "dataset" / "train.parquet"
    converted.parent.mkdir(parents=True)
    for file in (converted, tmp_path / "chats.jsonl", tmp_path / "more" / "chats.jsonl"):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "runs" / "disks-x7k2m" / "workflow.json").touch()
    assert list(find_data_files(tmp_path).files) == ["chats.jsonl", "more/chats.jsonl"]
    assert list(find_data_files(converted.parent).files) == ["train.parquet"]
