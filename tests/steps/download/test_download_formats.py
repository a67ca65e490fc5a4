"""Data of any format gives the dataset that parquet gives, and its errors name lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from data_image import build_data_image
from parquet_server import ParquetServer

from steps.download.settings import Settings
from steps.download.step import download, outputs_intact
from steps.oci import reference, registry
from steps.runtime.errors import BadInput

Chats = Callable[..., list[Any]]
LINE = '{{"prompt": "q{0}", "completion": "a{0}"}}\n'


def test_every_format_gives_the_same_rows(
    tmp_path: Path, parquet_server: ParquetServer, as_parquet: Callable[..., bytes], chats: Chats
) -> None:
    rows = chats(30)
    bodies = {
        "a.parquet": as_parquet(messages=rows),
        "a.jsonl": "".join(json.dumps({"messages": row}) + "\n" for row in rows).encode(),
        "a.json": json.dumps([{"messages": row} for row in rows]).encode(),
    }
    tables = []
    for name, body in bodies.items():
        url = parquet_server.put(f"/{name}", body)
        settings = Settings(work=tmp_path / name, urls=[url], allow_private_hosts=True)
        result = download(settings)
        assert outputs_intact(settings, result)
        tables.append(
            [pq.read_table(file).to_pylist() for file in sorted((tmp_path / name / "dataset").glob("*.parquet"))]
        )
        assert sorted(path.name for path in (tmp_path / name / "dataset").iterdir()) == [
            "eval.parquet",
            "manifest.json",
            "raw",
            "train.parquet",
        ]
    assert tables[0] == tables[1] == tables[2]


def test_a_folder_with_a_pattern(tmp_path: Path) -> None:
    for name in ("train-1.jsonl", "train-2.jsonl", "test.jsonl"):
        (tmp_path / "rows").mkdir(exist_ok=True)
        (tmp_path / "rows" / name).write_text("".join(LINE.format(f"{name}{n}") for n in range(5)))
    by_setting = download(Settings(work=tmp_path / "a", source=tmp_path / "rows", pattern="train-*.jsonl"))
    by_path = download(Settings(work=tmp_path / "b", source=tmp_path / "rows" / "train-*.jsonl"))
    assert by_setting == by_path
    assert by_setting.rows + by_setting.eval_rows == 10
    manifest = json.loads((tmp_path / "a/dataset/manifest.json").read_text())
    assert [Path(source["from"]).name for source in manifest["sources"]] == ["train-1.jsonl", "train-2.jsonl"]


def test_invalid_rows_have_lines(tmp_path: Path) -> None:
    lines = [LINE.format(n) for n in range(4)]
    (tmp_path / "a.jsonl").write_text(f"{lines[0]}\n{lines[1]}{lines[2].replace('a2', ' ')}{lines[3]}")
    (tmp_path / "b.csv").write_text('prompt,completion\n"a\nb",c\nd,\n')
    (tmp_path / "c.json").write_text(
        '[\n{"prompt": "a",\n"completion": "b"},\n{"prompt": "a",\n"completion": null}\n]'
    )
    for name, message in (
        ("a.jsonl", "message without text: 1 (row 2 at line 4)"),
        ("b.csv", "message without text: 1 (row 1 at line 4)"),
        ("c.json", "null value: 1 (row 1 at line 4)"),
    ):
        with pytest.raises(BadInput) as raised:
            download(Settings(work=tmp_path / "work", source=tmp_path / name))
        assert message in raised.value.message


def test_errors_of_all_files_together(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.jsonl").write_text("{\n")
    (folder / "b.jsonl").write_text(LINE.format(1))
    (folder / "c.jsonl").write_text(f"{LINE.format(1)}null\n")
    with pytest.raises(BadInput) as raised:
        download(Settings(work=tmp_path / "work", source=folder))
    assert raised.value.message.split("\n  ") == [
        f"{folder}/a.jsonl:1: invalid JSON: Expecting property name enclosed in double quotes (column 2)",
        f"{folder}/c.jsonl:2: a row is null, not an object",
    ]


def test_a_download_with_errors_is_downloaded_again(tmp_path: Path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/a.jsonl", LINE.format(1).encode() + b"oops\n")
    settings = Settings(work=tmp_path, urls=[url], allow_private_hosts=True)
    with pytest.raises(BadInput, match=r"/a\.jsonl:2: invalid JSON"):
        download(settings)
    parquet_server.put("/a.jsonl", "".join(map(LINE.format, range(10))).encode())
    assert download(settings).rows == 9


def test_ignored_files_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows/lang=en").mkdir(parents=True)
    (tmp_path / "rows/README.md").write_text("about")
    (tmp_path / "rows/lang=en/a.jsonl").write_text("".join(map(LINE.format, range(4))))
    download(Settings(work=tmp_path / "work", source=tmp_path / "rows"))
    out = capsys.readouterr().out
    assert "ignored files: README.md" in out
    assert "ignored partition columns (from names of folders): lang" in out


def test_an_image_of_several_files(tmp_path: Path, open_registry: Any, docker_config: Any) -> None:
    contents = {f"{name}.jsonl": "".join(map(LINE.format, range(5))).encode() for name in "ab"}
    build_data_image(tmp_path / "layout", contents | {"notes.txt": b"about"})
    image = f"{open_registry.address}/formats:1"
    registry.push_image(tmp_path / "layout", reference.parse(image))
    assert download(Settings(work=tmp_path / "a", image=image, eval_split=0)).rows == 10
    assert download(Settings(work=tmp_path / "b", image=image, eval_split=0, pattern="b.*")).rows == 5
