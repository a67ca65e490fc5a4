"""Formats, errors and the split, on real parquet files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.data import row_messages
from steps.data.message_fields import merge_fields
from steps.data.row_formats import Columns
from steps.data.row_messages import output_schema
from steps.download import row_checks
from steps.download.rows import (
    DataFile,
    UnusableData,
    count_duplicates,
    detect_common_format,
    has_message_fields,
    normalize,
    split,
    write_parquet,
)
from steps.runtime.errors import BadInput


def written(path: Path, **columns: Any) -> DataFile:
    pq.write_table(pa.table(columns), path)
    return DataFile(path, path.name)


def turn(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


ASK, ANSWER = turn("user", "Why?"), turn("assistant", "Because.")


def read_back(*data: DataFile, columns: Columns | None = None) -> list[Any]:
    """All rows as they would be tuned on."""
    kept: list[pa.RecordBatch] = []
    named = [replace(file, columns=columns or {}) for file in data]
    found = detect_common_format(named)
    normalize(named, kept.append)
    table = pa.Table.from_batches(kept, output_schema(found, full=has_message_fields(named)))
    if table.num_columns > 1:
        return table.to_pylist()
    return table[0].to_pylist() if found == "text" else [merge_fields(row) for row in table[0].to_pylist()]


def check(*data: DataFile) -> None:
    normalize(data, lambda rows: None)


def test_messages_are_unchanged(tmp_path: Path, chats) -> None:
    rows = [[turn("system", "Be brief."), *chat, ASK, ANSWER] for chat in chats(2500)]
    data = written(tmp_path / "a.parquet", messages=rows)
    assert detect_common_format([data]) == "messages"
    assert read_back(data) == rows


def test_prompt_and_completion_become_turns(tmp_path: Path) -> None:
    text = written(tmp_path / "a.parquet", completion=["Because."], prompt=["Why?"])
    lists = written(tmp_path / "b.parquet", prompt=[[turn("system", "Be brief."), ASK]], completion=[[ANSWER]])
    assert detect_common_format([text, lists]) == "prompt-completion"
    assert read_back(text, lists) == [[ASK, ANSWER], [turn("system", "Be brief."), ASK, ANSWER]]


def test_sharegpt_becomes_turns(tmp_path: Path) -> None:
    said = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Why?"}]
    data = written(tmp_path / "a.parquet", conversations=[[*said, {"from": "gpt", "value": "Because."}]])
    assert detect_common_format([data]) == "sharegpt"
    assert read_back(data) == [[turn("system", "Be brief."), ASK, ANSWER]]
    tool = written(tmp_path / "b.parquet", conversations=[[*said, {"from": "function_response", "value": "5"}]])
    with pytest.raises(UnusableData, match='unknown role "function_response"'):
        check(tool)


def test_instructions_become_turns(tmp_path: Path) -> None:
    plain = written(tmp_path / "a.parquet", instruction=["Why?"], output=["Because."])
    assert detect_common_format([plain]) == "instruction"
    assert read_back(plain) == [[ASK, ANSWER]]
    data = written(tmp_path / "b.parquet", instruction=["Add."] * 3, input=["1 and 2", "", None], output=["3"] * 3)
    prompts = [row[0]["content"] for row in read_back(data)]
    assert prompts == ["Add.\n\n1 and 2", "Add.", "Add."]


def test_columns_of_other_names(tmp_path: Path) -> None:
    data = written(tmp_path / "a.parquet", question=["Why?"], output=["Because."], prompt=["no"], id=[1])
    columns = {"prompt": "question", "completion": "output"}
    named = replace(data, columns=columns)
    assert detect_common_format([named]) == "prompt-completion"
    assert normalize([named], lambda rows: None).unused == ["prompt", "id"]
    assert read_back(data, columns=columns) == [[ASK, ANSWER]]
    with pytest.raises(UnusableData, match=r"columns not found: `Frage`"):
        detect_common_format([replace(data, columns={"prompt": "Frage"})])


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.struct([("content", pa.large_string()), ("role", pa.dictionary(pa.int32(), pa.string()))])),
        pa.large_list(pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.string())])),
    ],
    ids=["other text types", "more fields"],
)
def test_types_of_other_writers(tmp_path: Path, kind: pa.DataType) -> None:
    data = written(tmp_path / "a.parquet", messages=pa.array([[ASK, ANSWER]], kind))
    assert read_back(data) == [[ASK, ANSWER]]


def test_unused_columns_are_reported(tmp_path: Path) -> None:
    data = written(tmp_path / "a.parquet", id=[1], messages=[[ASK, ANSWER]], prompt=["Why?"])
    assert normalize([data], lambda rows: None).unused == ["id", "prompt"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": ["a"], "output": ["b"]}, "no columns to tune on, only `question`, `output`"),
        ({"conversations": ["a"]}, "unsupported column type: `conversations` is string"),
        ({"instruction": [[ASK]], "output": ["b"]}, "unsupported column type: `instruction` is list"),
        ({"instruction": ["a"], "input": [1], "output": ["b"]}, "unsupported column type: `input` is int64"),
        ({"body": ["a"]}, "no columns to tune on, only `body`"),
        ({"text": [1]}, "unsupported column type: `text` is int64"),
        ({"chosen": ["a"], "rejected": ["b"]}, "the column `chosen` is text, but the column `prompt` is missing"),
        ({"prompt": ["a"]}, "no columns to tune on, only `prompt`"),
        ({"messages": ["a"]}, "unsupported column type: `messages` is string"),
        ({"messages": [[{"from": "human", "value": "a"}]]}, r"unsupported column type: `messages` is list<.*from"),
        ({"messages": [[{"role": "user", "content": ["a"]}]]}, "unsupported column type: `messages` is"),
        ({"prompt": [1], "completion": ["a"]}, "unsupported column type: `prompt` is int64"),
        ({"messages": pa.array([], pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})))}, "no rows"),
    ],
)
def test_unsupported_columns(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UnusableData, match=rf"a\.parquet: .*{message}") as raised:
        detect_common_format([written(tmp_path / "a.parquet", **columns)])
    assert raised.value.exit_code == 2 and raised.value.fix
    assert raised.value.invalid_files == [tmp_path / "a.parquet"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1 and then nothing of the kind", "a damaged parquet file"),
        (b"PAR1", "a damaged parquet file"),
    ],
)
def test_files_that_are_not_parquet(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UnusableData, match=rf"a\.parquet: {message}") as raised:
        detect_common_format([DataFile(tmp_path / "a.parquet", "a.parquet")])
    assert raised.value.fix


def test_all_invalid_files_are_reported(tmp_path: Path) -> None:
    good = written(tmp_path / "good.parquet", messages=[[ASK, ANSWER]])
    bad = written(tmp_path / "bad.parquet", body=["a"])
    (tmp_path / "page.parquet").write_text("<html>")
    page = DataFile(tmp_path / "page.parquet", "page.parquet")
    with pytest.raises(UnusableData) as raised:
        detect_common_format([bad, good, page])
    assert raised.value.invalid_files == [bad.path, page.path]
    assert "bad.parquet" in raised.value.message and "page.parquet" in raised.value.message


def test_files_of_different_formats(tmp_path: Path) -> None:
    one = written(tmp_path / "one.parquet", messages=[[ASK, ANSWER]])
    two = written(tmp_path / "two.parquet", prompt=["a"], completion=["b"])
    with pytest.raises(UnusableData, match=r"one\.parquet: messages\n  two\.parquet: prompt-completion"):
        detect_common_format([one, two])


FAULTS = [
    (None, r"null value"),
    ([], "no assistant turn"),
    ([ASK], "no assistant turn"),
    ([ASK, None], "null message"),
    ([ASK, turn(None, "x")], "unknown role null; must be one of system, user, assistant, tool"),
    ([ASK, turn("bot", "x")], 'unknown role "bot"; must be one of system, user, assistant, tool'),
    ([ASK, turn("assistant", None)], "message without text"),
    ([turn("user", " \n"), ANSWER], "message without text"),
    ([ASK, ANSWER, ASK], "the last turn is not an assistant turn"),
    ([ANSWER], "no user turn before the assistant turn"),
    ([turn("system", "x"), ANSWER], "no user turn before the assistant turn"),
    ([ASK, turn("system", "x"), ANSWER], "system message is not the first"),
    ([ASK, turn("assistant", "x") | {"tool_calls": "y"}], "message whose `tool_calls` is not JSON"),
]


@pytest.mark.parametrize(("row", "message"), FAULTS)
def test_invalid_row(tmp_path: Path, row: Any, message: str) -> None:
    kind = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.string())])
    rows = pa.array([[ASK, ANSWER], [ASK, ANSWER], row], pa.list_(kind))
    data = written(tmp_path / "a.parquet", messages=rows)
    with pytest.raises(UnusableData, match=rf"a\.parquet: 1 of 3 rows\n    {message}: 1 \(row 2\)"):
        check(data)


@given(
    st.lists(
        st.none()
        | st.fixed_dictionaries(
            {
                "role": st.sampled_from(["system", "user", "user", "assistant", "assistant", "bot", None]),
                "content": st.sampled_from(["x", "x", "x", " ", None]),
            }
        ),
        max_size=5,
    )
    | st.none()
)
def test_batches_are_checked_like_single_rows(row: Any) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    made = row_messages.to_messages("messages", {"messages": pa.array([[ASK, ANSWER], row], kind)})
    fault = row_checks._find_error(made["messages"].to_pylist()[1])
    assert row_checks._is_valid(made["messages"]) is (not fault)
    assert row_checks.find_invalid_rows(made) == ({1: fault} if fault else {})


def test_errors_of_all_files_are_counted_with_their_first_rows(tmp_path: Path, chats) -> None:
    rows = chats(3000)
    for i in range(5, 3000, 100):
        rows[i] = [ASK]
    one = written(tmp_path / "one.parquet", messages=rows)
    two = written(tmp_path / "two.parquet", messages=[[ASK, ANSWER], [turn("user", ""), ANSWER]])
    fine = written(tmp_path / "fine.parquet", messages=[[ASK, ANSWER]])
    with pytest.raises(UnusableData) as raised:
        check(one, fine, two)
    assert raised.value.message.splitlines()[1:] == [
        "  one.parquet: 30 of 3000 rows",
        "    no assistant turn: 30 (rows 5, 105, 205, 305, 405, ...)",
        "  two.parquet: 1 of 2 rows",
        "    message without text: 1 (row 1)",
    ]
    assert raised.value.invalid_files == [one.path, two.path]


def test_missing_prompts(tmp_path: Path) -> None:
    data = written(tmp_path / "a.parquet", prompt=["a", None, "b"], completion=["c", "d", ""])
    with pytest.raises(UnusableData, match=r"2 of 3 rows\n    null value: 1 \(row 1\)\n    message without"):
        check(data)


def test_damaged_pages(tmp_path: Path, chats) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"messages": chats(3000)}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[200:2000] = bytes(1800)
    path.write_bytes(content)
    data = DataFile(path, "a.parquet")
    assert detect_common_format([data]) == "messages"
    with pytest.raises(UnusableData, match=r"a\.parquet: .*\n +damaged: "):
        check(data)


@given(
    count=st.integers(2, 300),
    eval_split=st.floats(0, 0.9),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_has_every_row_once(count: int, eval_split: float, shuffle: bool, seed: int) -> None:
    try:
        train, held_out = split(count, eval_split, shuffle, seed)
    except BadInput:
        assert round(count * eval_split) >= count
        return
    assert sorted([*train, *held_out]) == list(range(count))
    assert len(train) and bool(len(held_out)) is (eval_split > 0)
    assert abs(len(held_out) - count * eval_split) <= 1
    if not shuffle:
        assert list(train) + list(held_out) == list(range(count))


def test_split_is_deterministic() -> None:
    train, held_out = split(10, 0.2, True, 42)
    assert (train.tolist(), held_out.tolist()) == ([8, 1, 5, 0, 7, 2, 9, 4], [3, 6])
    assert split(10, 0.2, True, 43)[0].tolist() != train.tolist()


def test_one_row_cannot_be_split() -> None:
    with pytest.raises(BadInput, match="cannot split 1 row:"):
        split(1, 0.1, True, 42)
    assert [len(part) for part in split(1, 0, True, 42)] == [1, 0]


@pytest.mark.parametrize("seed", [0, 42])
def test_order_is_a_permutation(seed: int) -> None:
    train, held_out = split(5000, 0.1, True, seed)
    assert [*train, *held_out] == np.random.RandomState(seed).permutation(5000).tolist()


def test_tables_are_split_at_any_row(tmp_path: Path, chats) -> None:
    rows = chats(100)
    schema = output_schema("messages")
    tables = [pa.table({"messages": rows[a:b]}, schema) for a, b in ((0, 30), (30, 85), (85, 100))]
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    write_parquet(tables, schema, {one: 60, two: 40})
    assert [pq.read_table(file)["messages"].to_pylist() for file in (one, two)] == [rows[:60], rows[60:]]
    assert pq.read_schema(one).names == ["messages"]
    first = one.read_bytes()
    write_parquet(tables, schema, {one: 60, two: 40})
    assert one.read_bytes() == first


def test_duplicates_and_leaks_are_counted(tmp_path: Path, chats) -> None:
    a, b, c = chats(3)
    data = written(tmp_path / "a.parquet", messages=[a, b, a, c, a])
    found = normalize([data], lambda rows: None)
    assert count_duplicates(found.digests, np.array([0, 1, 2]), np.array([3, 4])) == (2, 1)
    assert count_duplicates(found.digests, np.array([0, 1, 2, 3, 4]), np.array([], int)) == (2, 0)


def test_similar_rows_are_no_duplicates(tmp_path: Path) -> None:
    """The same letters, divided otherwise."""
    rows = [
        [turn("user", "ab"), turn("assistant", "c")],
        [turn("user", "a"), turn("assistant", "bc")],
        [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")],
        [turn("user", "a"), turn("assistant", "b4:user1:c9:assistant1:d")],
        [turn("user", "a"), turn("assistant", "b:user:1:c:assistant:1:d")],
    ]
    data = written(tmp_path / "a.parquet", messages=rows)
    found = normalize([data], lambda rows: None)
    assert count_duplicates(found.digests, np.arange(5), np.array([], int)) == (0, 0)


WORSE = turn("assistant", "No idea.")
PAIR = {"messages": [ASK, ANSWER], "rejected": [WORSE]}


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": ["Why?"], "chosen": ["Because."], "rejected": ["No idea."]},
        {"prompt": [[ASK]], "chosen": [[ANSWER]], "rejected": [[WORSE]]},
        {"prompt": [[ASK]], "chosen": ["Because."], "rejected": [[WORSE]]},
        {"chosen": [[ASK, ANSWER]], "rejected": [[ASK, WORSE]]},
        {"prompt": ["Why?"], "chosen": [[ASK, ANSWER]], "rejected": [[ASK, WORSE]]},
    ],
    ids=["texts", "messages", "mixed", "prompt within", "prompt said twice"],
)
def test_preference_pairs(tmp_path: Path, columns: dict[str, Any]) -> None:
    data = written(tmp_path / "a.parquet", **columns, score=[1.0])
    assert detect_common_format([data]) == "preference"
    assert read_back(data) == [PAIR]


PAIR_FAULTS = [
    ([[ASK, ANSWER]], [[ASK, ANSWER]], "chosen and rejected are the same"),
    ([[ASK, ANSWER]], [[turn("user", "How?"), WORSE]], "chosen and rejected differ before their last message"),
    ([[ASK, ANSWER, ASK, ANSWER]], [[ASK, WORSE]], "chosen and rejected differ before their last message"),
    ([None], [[ASK, WORSE]], r"chosen: null value"),
    ([[ASK, ANSWER]], [[ASK, turn("assistant", " ")]], "rejected: message without text"),
    ([[ASK, ANSWER]], [[ASK]], "rejected: no assistant turn"),
]


@pytest.mark.parametrize(("chosen", "rejected", "message"), PAIR_FAULTS)
def test_invalid_preference_pairs(tmp_path: Path, chosen: Any, rejected: Any, message: str) -> None:
    good = [[ASK, ANSWER]], [[ASK, WORSE]]
    data = written(tmp_path / "a.parquet", chosen=good[0] + chosen, rejected=good[1] + rejected)
    with pytest.raises(UnusableData, match=rf"1 of 2 rows\n    {message}: 1 \(row 1\)"):
        check(data)


def test_text_rows(tmp_path: Path) -> None:
    data = written(tmp_path / "a.parquet", text=["Once.", "Twice."], url=["x", "y"])
    assert detect_common_format([data]) == "text"
    assert read_back(data) == ["Once.", "Twice."]
    bad = written(tmp_path / "b.parquet", text=["Once.", None, " "])
    with pytest.raises(UnusableData, match=r"2 of 3 rows\n    null value: 1 \(row 1\)\n    no text: 1 \(row 2\)"):
        check(bad)


def test_invalid_utf_8_is_damage(tmp_path: Path) -> None:
    content = pa.array([b"Why?", b"Bec\xffause."], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 2, content.buffers())
    message = pa.StructArray.from_arrays([pa.array(["user", "assistant"]), texts], ["role", "content"])
    data = written(tmp_path / "a.parquet", messages=pa.ListArray.from_arrays([0, 2], message))
    with pytest.raises(UnusableData, match=r"damaged: .*UTF8"):
        check(data)


def test_whitespace_is_that_of_python() -> None:
    every = [chr(code) for code in range(1, 0x3100)]
    assert row_messages.is_blank(pa.array(every)).to_pylist() == [not letter.strip() for letter in every]
    assert row_messages.is_blank(pa.array([None, "", " \n", " a"])).to_pylist() == [True, True, True, False]
