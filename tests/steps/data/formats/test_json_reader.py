"""JSON Lines, lists, and objects with one list: rows are read as written, or refused with their line."""

from __future__ import annotations

import json
from pathlib import Path

import format_files
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.data.formats import json_blocks, value_types
from steps.data.formats.file_errors import MAX_ROW_BYTES
from steps.runtime.errors import BadInput

TWO = [{"prompt": "a"}, {"prompt": "b"}]


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt":"a"}\n{"prompt":"b"}',
        '\n{"prompt":"a"}\r\n \r\n\n{"prompt":"b"}\r\n',
        '\ufeff{"prompt":"a"}\n{"prompt":"b"}\n',
        '[{"prompt":"a"},\n {"prompt":"b"}]',
        ' [ {"prompt" : "a"} , {"prompt":"b"} ] \n',
        '{"version": 1, "tags": ["x"], "data":[{"prompt":"a"},{"prompt":"b"}], "license": {"name": "cc"}}',
        '{\n  "data": [\n    {\n      "prompt": "a"\n    },\n    {"prompt": "b"}\n  ]\n}\n',
        '{\n  "prompt": "a"\n}\n{\n  "prompt": "b"\n}\n',
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a"])
def test_layouts(tmp_path: Path, text: str, name: str) -> None:
    if name == "a.jsonl" and text.startswith("{") and ("data" in text or "{\n" in text):
        pytest.skip("the name states one row a line")
    assert format_files.rows_of(tmp_path, name, text) == TWO


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = '{"prompt":"é\N{GRINNING FACE}"}\n{"prompt":"b"}\n' * 3
    rows = format_files.rows_of(tmp_path, "a.jsonl", text.encode(encoding))
    assert rows == [{"prompt": "é\N{GRINNING FACE}"}, {"prompt": "b"}] * 3


def test_values_stay_as_written(tmp_path: Path) -> None:
    rows = [
        {"prompt": text} for text in ("2024-01-01", "2024-01-01T00:00:00Z", "01", "NA", "null", "1e5", "\\", "é\0")
    ]
    assert format_files.rows_of(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))) == rows


def test_text_and_parts_in_one_column(tmp_path: Path) -> None:
    part = [{"type": "text", "text": "y"}]
    rows = [{"messages": [{"role": "user", "content": content}]} for content in ("x", part, None)]
    table = format_files.convert(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    contents = [row[0]["content"] for row in table["messages"].to_pylist()]
    assert contents == [[{"type": "text", "text": "x"}], part, None]


def test_arguments_of_tools_keep_their_keys(tmp_path: Path) -> None:
    def row(arguments: object) -> str:
        call = {"function": {"name": "f", "arguments": arguments}}
        return json.dumps({"messages": [{"role": "assistant", "tool_calls": [call]}], "tools": [{"x": arguments}]})

    text = "\n".join(map(row, ({"a": 1}, {"b": None, "c": "é"}, '{"d": 2}')))
    table = format_files.convert(tmp_path, "a.jsonl", text)
    calls = [value[0]["tool_calls"][0]["function"]["arguments"] for value in table["messages"].to_pylist()]
    assert calls == ['{"a": 1}', '{"b": null, "c": "é"}', '{"d": 2}']
    assert table["tools"].to_pylist()[1] == '[{"x": {"b": null, "c": "é"}}]'


def test_types_that_change_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_blocks, "BLOCK_BYTES", 64)
    rows: list[dict[str, object]] = [{"prompt": "a", "input": None, "id": n} for n in range(5)]
    rows += [{"prompt": "b", "input": "c", "extra": {"k": [n]}, "id": n + 0.5} for n in range(5)]
    rows += [{"prompt": "d", "late": "e", "id": "x", "extra": []}]
    read = format_files.convert(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read.column_names == ["prompt", "input", "id", "extra", "late"]
    assert read["prompt"].to_pylist() == [row["prompt"] for row in rows]
    assert read["input"].to_pylist() == [row.get("input") for row in rows]
    assert read["id"].type == pa.null()


def test_all_errors_with_their_lines(tmp_path: Path) -> None:
    lines = [
        '{"prompt":"a"}',
        '{"prompt":5}',
        '{"prompt":"c"',
        "",
        "[1]",
        "null",
        '{"prompt":"\\ud800"}',
        '{"prompt":"a","prompt":"b"}',
        '{"prompt":' + "[" * 50_000,
        "x" * 10,
    ]
    with pytest.raises(BadInput) as raised:
        format_files.convert(tmp_path, "a.jsonl", "\n".join(lines))
    assert raised.value.message.split("\n  ") == [
        "a.jsonl:2: `prompt` is a number, but text in other rows",
        "a.jsonl:3: invalid JSON: Expecting ',' delimiter (column 14)",
        "a.jsonl:5: a row is a list, not an object",
        "a.jsonl:6: a row is null, not an object",
        "a.jsonl:7: `prompt` contains half of a surrogate pair, which is not Unicode",
        'a.jsonl:8: invalid JSON: duplicate key "prompt"',
        "a.jsonl:9: it is nested too deeply",
        "a.jsonl:10: invalid JSON: Expecting value (column 1)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"prompt":"a"},\n5]', r"a\.json:2: text between the rows"),
        ('[{"prompt":"a"}', "the file ends within a row or list"),
        ('[{"prompt":"a"}]\n[]', "text follows after the list"),
        ('[{"prompt":"a"} {"prompt":"b"}]', "text between the rows"),
        ('[[{"prompt":"a"}]]', "a row is a list, not an object"),
        ('{"x":[{"prompt":"a"}],\n"y":[{"prompt":"a"}]\n}', 'several lists, also "y"'),
        ("5", "a row is a number, not an object"),
        ('{"prompt":"\\q"}', "invalid JSON"),
    ],
)
def test_refused_layouts(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        format_files.convert(tmp_path, "a.json", text)


KEYS = json.dumps({str(number): "x" for number in range(300)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (KEYS, "`prompt` is an object with more than 200 keys"),
        ("9" * 30, "`prompt` is a number beyond 64 bits"),
        (f'[{{"role": "user", "content": {KEYS}}}]', "`content` is an object with more than 200 keys"),
        (f'[{{"role": "user", "weight": {"9" * 30}}}]', "`weight` is a number beyond 64 bits"),
        ("9" * 5000, "invalid JSON: Exceeds the limit"),
    ],
)
def test_values_that_cannot_be_text(tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises(BadInput, match=f"a.jsonl:1: {message}"):
        format_files.convert(tmp_path, "a.jsonl", f'{{"prompt": {value}}}')
    unused = format_files.convert(
        tmp_path, "b.jsonl", f'{{"text": "a", "other": {value if len(value) < 4000 else 1}}}'
    )
    assert unused["text"].to_pylist() == ["a"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_row_beyond_the_limit(tmp_path: Path, name: str) -> None:
    text = b'{"prompt":"a"}\n{"prompt":"' + b"x" * (MAX_ROW_BYTES + (9 << 20)) + b'"}'
    text = text if name == "a.jsonl" else b"[" + text.replace(b"\n", b",\n") + b"]"
    with pytest.raises(BadInput, match=rf"{name}:2: a row exceeds the limit of 16 MB"):
        format_files.convert(tmp_path, name, text)


def test_reading_stops_after_many_errors(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        format_files.convert(tmp_path, "a.jsonl", "x\n" * 1000)
    assert len(raised.value.message.splitlines()) == 21
    assert "reading stopped after 20 errors" in raised.value.message


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXTS, "content": TEXTS}, optional={"name": TEXTS}), max_size=3)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"prompt": TEXTS, "messages": MESSAGES}, optional={"other": st.none() | st.integers() | TEXTS}
    ),
    min_size=1,
    max_size=6,
)


@given(ROWS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from([16, 1 << 20]))
def test_any_rows_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[format_files.Row], indent: int | None, ascii: bool, size: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    listed = json.dumps(rows, ensure_ascii=ascii, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_blocks, "BLOCK_BYTES", size)
        for name, text in (("a.jsonl", lines), ("a.json", listed), ("b.json", json.dumps({"x": rows}))):
            table = format_files.convert(folder, name, text)
            assert table["prompt"].to_pylist() == [row["prompt"] for row in rows]
            read = [
                [{key: value for key, value in message.items() if value is not None} for message in row]
                for row in table["messages"].to_pylist()
            ]
            assert read == [row["messages"] for row in rows]


def test_common_types() -> None:
    number, text = value_types.type_of(1), value_types.type_of("a")
    assert value_types.merge(number, value_types.type_of(0.5), "x") == value_types.FLOAT
    assert value_types.merge(number, text, "name") == value_types.JSON
    with pytest.raises(value_types.TypeConflict, match="`role` is text, but a number in other rows"):
        value_types.merge(number, text, "role")
