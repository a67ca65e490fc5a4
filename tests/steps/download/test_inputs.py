"""Several named inputs that are mixed, each with its own columns, format and weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from steps.data import decoded_size
from steps.download.settings import Settings
from steps.download.sources import has_changed
from steps.download.step import download, outputs_intact
from steps.runtime.errors import BadInput
from steps.runtime.files import sha256


def chats(count: int, topic: str) -> list[list[dict[str, str]]]:
    return [
        [{"role": "user", "content": f"{topic} {n}?"}, {"role": "assistant", "content": f"{topic}."}]
        for n in range(count)
    ]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Folders of two inputs: chats in parquet, questions with answers in JSON Lines and other column names."""
    for name in ("chat", "code"):
        (tmp_path / name).mkdir()
    pq.write_table(pa.table({"messages": chats(20, "chat")}), tmp_path / "chat" / "a.parquet")
    lines = [json.dumps({"question": f"code {n}?", "answer": "code."}) for n in range(10)]
    (tmp_path / "code" / "b.jsonl").write_text("\n".join(lines))
    return {name: str(tmp_path / name) for name in ("chat", "code")}


def settings(tmp_path: Path, *inputs: dict[str, Any], **fields: Any) -> Settings:
    return Settings.model_validate({"work": tmp_path / "work", "inputs": inputs, "eval_split": 0.2, **fields})


def code(folders: dict[str, str], **fields: Any) -> dict[str, Any]:
    columns = {"prompt": "question", "completion": "answer"}
    return {"name": "code", "source": folders["code"], "columns": columns, **fields}


def topics(file: Path) -> list[str]:
    return [row[1]["content"] for row in pq.read_table(file)["messages"].to_pylist()]


def test_inputs_of_other_formats_and_columns_are_mixed(tmp_path: Path, folders, capsys) -> None:
    result = download(settings(tmp_path, {"name": "chat", "source": folders["chat"]}, code(folders)))
    assert (result.rows, result.eval_rows, result.data_format) == (24, 6, "messages")
    dataset = tmp_path / "work" / "dataset"
    mixed = topics(dataset / "train.parquet") + topics(dataset / "eval.parquet")
    assert (mixed.count("chat."), mixed.count("code.")) == (20, 10)
    inputs = json.loads((dataset / "manifest.json").read_text())["inputs"]
    assert [(data["name"], data["rows"]) for data in inputs] == [("chat", 20), ("code", 10)]
    assert sum(data["train_rows"] for data in inputs) == 24
    assert "code: 10 rows, " in capsys.readouterr().out


def test_weights_are_of_inputs(tmp_path: Path, folders) -> None:
    chat = {"name": "chat", "source": folders["chat"], "weight": 0}
    plan = settings(tmp_path, chat, code(folders, weight=3), eval_split=0)
    assert download(plan).rows == 30
    assert set(topics(tmp_path / "work" / "dataset" / "train.parquet")) == {"code."}


def test_the_input_of_kaito_is_mixed_with_named_ones(tmp_path: Path, folders) -> None:
    plan = settings(tmp_path, code(folders), source=folders["chat"], weights={"a.parquet": 2}, eval_split=0)
    result = download(plan)
    assert result.rows == 50
    assert outputs_intact(plan, result)
    (Path(folders["code"]) / "b.jsonl").write_text('{"question": "x", "answer": "y"}\n')
    assert not outputs_intact(plan, result)


def test_a_changed_folder_is_noticed_beside_inputs_from_urls(tmp_path: Path, folders) -> None:
    plan = settings(tmp_path, code(folders), urls=["https://example.com/a.parquet"])
    file = Path(folders["code"]) / "b.jsonl"
    recorded = [{"sha256": "0" * 64}, {"sha256": sha256(file), "input": "code"}]
    assert not has_changed(plan, recorded)
    file.write_text('{"question": "x", "answer": "y"}\n')
    assert has_changed(plan, recorded)


def test_the_digest_depends_on_the_columns_of_an_input_and_not_on_folders(tmp_path: Path, folders) -> None:
    first = download(settings(tmp_path / "1", code(folders))).data_digest
    Path(folders["code"]).rename(tmp_path / "moved")
    assert download(settings(tmp_path / "2", code({"code": str(tmp_path / "moved")}))).data_digest == first
    swapped = {"prompt": "answer", "completion": "question"}
    other = settings(tmp_path / "3", code({"code": str(tmp_path / "moved")}, columns=swapped))
    assert download(other).data_digest != first


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([{"name": "a", "source": "x"}, {"name": "a", "source": "y"}], "a: several inputs have this name"),
        ([{"name": "a"}], r"inputs\.a: none of urls, source and image set"),
        ([{"name": "a", "source": "x", "image": "reg.io/a:1"}], r"inputs\.a: source and image of"),
        ([{"name": "a", "source": "x", "weight": 0}], "x not found|all inputs have weight 0"),
    ],
)
def test_invalid_inputs_are_rejected_by_name(tmp_path: Path, inputs, message) -> None:
    with pytest.raises(BadInput, match=message):
        download(settings(tmp_path, *inputs))


def test_weights_out_of_range_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"inputs\.0\.weight"):
        settings(tmp_path, {"name": "a", "source": "x", "weight": -1})


def test_a_row_too_large_to_decode_is_refused_by_file_and_row_group(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(decoded_size, "MAX_ROW_BYTES", 1_000_000)
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0] * 50, pa.int32()), pa.array(["a" * 100_000]))
    roles = pa.array(["user", "assistant"] * 25)
    messages = pa.StructArray.from_arrays([roles, dictionary], ["role", "content"])
    rows = pa.ListArray.from_arrays(pa.array([0, 50], pa.int32()), messages)
    pq.write_table(pa.table({"messages": rows}), tmp_path / "bomb.parquet")
    with pytest.raises(BadInput, match=r"(?s)bomb\.parquet: .*row group 0 needs up to 5 MB a row when decoded"):
        download(settings(tmp_path, source=str(tmp_path / "bomb.parquet"), eval_split=0))


def test_chats_are_not_mixed_with_texts(tmp_path: Path, folders) -> None:
    pq.write_table(pa.table({"text": ["plain"]}), tmp_path / "plain.parquet")
    plain = {"name": "plain", "source": str(tmp_path / "plain.parquet")}
    with pytest.raises(BadInput, match="these inputs cannot be mixed") as error:
        download(settings(tmp_path, plain, code(folders)))
    assert "mix chats with chats" in error.value.fix
