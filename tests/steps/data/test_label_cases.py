"""Learned text of rows with weights, fields, named columns and spare columns, as preview shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tuning import small_model

from steps.data import message_fields
from steps.data.dataset import read_messages
from steps.download.settings import Settings as DownloadSettings
from steps.download.step import download
from steps.preview.settings import Settings
from steps.preview.step import LEARNED, LEARNED_END, preview
from steps.runtime.errors import BadInput

CASES = Path(__file__).parents[2] / "data" / "cases"
REASONING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['reasoning_content'] %}<think>"
    "{{ m['reasoning_content'] }}</think>{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.getbasetemp())


@pytest.fixture
def learned(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the learned texts of the rows of a folder, digits replaced, and the warnings of the preview."""

    def run(source: Path, template: str = "", **options: Any) -> tuple[set[str], list[str]]:
        download(DownloadSettings(work=tmp_path, source=source, eval_split=0, **options))
        capsys.readouterr()
        config = {"model_config": {"chat_template": template}} if template else {}
        result = preview(Settings(work=tmp_path, model=str(tiny), rows=12, max_length=256, **config))
        parts = capsys.readouterr().out.split("--- 12 rows")[0].split(LEARNED)[1:]
        return {re.sub(r"\d+", "N", part.split(LEARNED_END)[0]) for part in parts}, result.warnings

    return run


@pytest.mark.parametrize("name", ["reasoning", "thinking"])
def test_a_field_that_the_template_ignores_is_rejected(learned: Any, name: str) -> None:
    field = {"reasoning": "reasoning_content", "thinking": "thinking"}[name]
    with pytest.raises(BadInput, match=f"does not render these fields of messages: `{field}` in rows 1, 2"):
        learned(CASES / "02-reasoning-field" / name)


def test_a_field_that_the_template_renders_is_learned(learned: Any) -> None:
    texts, _ = learned(CASES / "02-reasoning-field/reasoning", REASONING)
    assert texts == {"<think>THOUGHT: first look at df output N, then inodes.</think>Clean volume N.<|im_end|>"}


def test_pairs_of_ultrafeedback(tmp_path: Path) -> None:
    result = download(
        DownloadSettings(work=tmp_path, source=CASES / "09-ultrafeedback/rows", eval_split=0, objective="dpo")
    )
    assert result.data_format == "preference"
    row = pq.read_table(tmp_path / "dataset" / "train.parquet").to_pylist()[0]
    assert "Clean it" in row["messages"][-1]["content"] and "No idea" in row["rejected"][0]["content"]


def test_a_mapped_system_column_is_the_first_message(tmp_path: Path) -> None:
    source = CASES / "20-system-column/rows"
    download(DownloadSettings(work=tmp_path, source=source, eval_split=0, columns={"system": "system"}))
    row = read_messages(tmp_path / "dataset" / "train.parquet")[0]
    assert row[0]["role"] == "system" and "answer as a pirate" in row[0]["content"]


CALL = {"id": "1", "type": "function", "function": {"name": "df", "arguments": '{"volume": 7}'}}
TALK = [
    {"role": "user", "content": "Disk full?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "98%"},
    {"role": "assistant", "content": "Yes."},
]
TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% for c in m['tool_calls'] or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_tools_and_their_calls_are_rendered_and_learned(tmp_path: Path, learned: Any) -> None:
    (tmp_path / "rows").mkdir()
    table = pa.table({"messages": [TALK] * 12, "tools": ['[{"name": "df"}]'] * 12})
    pq.write_table(table, tmp_path / "rows" / "a.parquet")
    texts, _ = learned(tmp_path / "rows", TOOLS_TEMPLATE)
    assert texts == {'<call>df {"volume": N}</call><|im_end|>', "Yes.<|im_end|>"}
    with pytest.raises(BadInput, match="`tools` in rows 1") as raised:
        learned(tmp_path / "rows")
    assert "`tool_calls` in rows 1" in raised.value.message


def test_rows_of_which_nothing_is_learned(tmp_path: Path, learned: Any) -> None:
    (tmp_path / "rows").mkdir()
    rows = [
        [{"role": "user", "content": f"a{n}", "weight": None}, {"role": "assistant", "content": "b", "weight": n % 2}]
        for n in range(24)
    ]
    pq.write_table(pa.table({"messages": rows}), tmp_path / "rows" / "a.parquet")
    assert any("12 rows have no message to learn" in warning for warning in learned(tmp_path / "rows")[1])
    pq.write_table(pa.table({"messages": rows[::2]}), tmp_path / "rows" / "a.parquet")
    with pytest.raises(BadInput, match="none of the 12 rows has a message to learn"):
        learned(tmp_path / "rows")


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"weight": 0.5}, "`weight` is 0.5; must be 0 or 1"), ({"weight": 0, "train": True}, "contradict each other")],
)
def test_invalid_weights(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    rows = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **fields}]]
    pq.write_table(pa.table({"messages": pa.array(rows)}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=message):
        download(DownloadSettings(work=tmp_path, source=tmp_path / "a.parquet", eval_split=0))


@pytest.mark.parametrize(
    ("weights", "learned"),
    [
        ([0, 1, 0.0], [False, True, False]),
        (["0", "1", "true"], [False, True, True]),
        ([None, False, True], [None, False, True]),
    ],
)
def test_weights_of_any_type_are_read(weights, learned):
    message = pa.array([{"role": "assistant", "content": "x", "weight": weight} for weight in weights])
    train, _, errors = message_fields.read_fields(message, ["weight"])
    assert (train.to_pylist(), errors.null_count) == (learned, 3)


@pytest.mark.parametrize("weight", ["2", "half", 0.5, -1])
def test_other_weights_are_refused(weight):
    _, _, errors = message_fields.read_fields(pa.array([{"role": "assistant", "weight": weight}]), ["weight"])
    assert errors[0].as_py() == f"`weight` is {json.dumps(weight)}; must be 0 or 1"
