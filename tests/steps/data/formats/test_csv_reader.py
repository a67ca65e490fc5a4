"""CSV and TSV: cells are read as written, and errors have their line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import format_files
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.data.formats import csv_reader
from steps.data.formats.file_errors import MAX_ROW_BYTES
from steps.runtime.errors import BadInput


def test_cells_stay_as_written(tmp_path: Path) -> None:
    text = 'prompt,completion,id\n01,NA,1\n2024-01-01,null,2\n1e5,,3\n"a ""b"" c","x\ny, z\r\n",4\n'
    assert format_files.rows_of(tmp_path, "a.csv", text) == [
        {"prompt": "01", "completion": "NA"},
        {"prompt": "2024-01-01", "completion": "null"},
        {"prompt": "1e5", "completion": ""},
        {"prompt": 'a "b" c', "completion": "x\ny, z\r\n"},
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "prompt,completion\na,b\n"),
        ("a.csv", "prompt;completion\na;b\n"),
        ("a.csv", 'prompt;completion\r\n"a";b'),
        ("a.csv", "prompt|completion\na|b\n"),
        ("a.csv", "prompt\tcompletion\na\tb\n"),
        ("a.csv", "sep=;\nprompt;completion\na;b\n"),
        ("a.tsv", "prompt\tcompletion\na\tb\n"),
        ("a.csv", "prompt,completion\n\n\na,b\n\n"),
        ("a.csv", "\ufeffprompt,completion\na,b\n"),
    ],
)
def test_dialects(tmp_path: Path, name: str, text: str) -> None:
    assert format_files.rows_of(tmp_path, name, text) == [{"prompt": "a", "completion": "b"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    content = "prompt,completion\né,b\n".encode(encoding)
    assert format_files.rows_of(tmp_path, "a.csv", content) == [{"prompt": "é", "completion": "b"}]


def test_all_errors_with_their_lines(tmp_path: Path) -> None:
    text = 'prompt,completion\na,b\n"x\ny",z\nc\nd,e,f\n"never\ng,h\n'
    with pytest.raises(BadInput) as raised:
        format_files.convert(tmp_path, "a.csv", text)
    assert raised.value.message.split("\n  ") == [
        "a.csv:5: 1 cells, but the header has 2 columns",
        "a.csv:6: 3 cells, but the header has 2 columns",
        "a.csv:7: 1 cells, but the header has 2 columns",
        "a.csv:7: the quote that begins in this row is not closed",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"prompt,completion\na,\xe9\n", "a.csv:2: byte 0xe9 is not UTF-8"),
        (b'prompt,completion\na,b\nc,"d\ne,f\n', "a.csv:3: the quote that begins in this row is not closed"),
        (b"prompt,prompt\na,b\n", "several columns are called `prompt`"),
        (b"\n\n", "a.csv:1: the header is missing"),
        (b"prompt,completion\na,\xff\nb", "a.csv:2: byte 0xff is not UTF-8"),
    ],
)
def test_refused_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        format_files.convert(tmp_path, "a.csv", content)
    assert raised.value.fix


def test_row_beyond_the_limit(tmp_path: Path) -> None:
    content = b'prompt,completion\na,b\n"' + b"x\n" * MAX_ROW_BYTES + b'",c\n'
    with pytest.raises(BadInput, match=r"a\.csv:3: a row exceeds the limit of 16 MB"):
        format_files.convert(tmp_path, "a.csv", content)


def test_lines_of_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion\na,b\n\n"x\ny",z\nc,d\n')
    lines = csv_reader.find_lines(tmp_path / "a.csv", "a.csv", {"prompt"}, {0, 1, 2, 9})
    assert lines == {0: 2, 1: 4, 2: 6}


def test_messages_as_json_text(tmp_path: Path) -> None:
    text = 'messages\n"[{""role"": ""user"", ""content"": ""a""}]"\n"[{""role"": ""user"", ""weight"": 1}]"\n'
    read = format_files.rows_of(tmp_path, "a.csv", text)
    assert read[0] == {"messages": [{"role": "user", "content": "a", "weight": None}]}
    assert read[1]["messages"][0]["weight"] == 1
    with pytest.raises(BadInput, match=r"a\.csv: row 0: `messages`: not valid JSON\n  fix: .*json\.dumps"):
        raise_with_fix(tmp_path, "messages\n\"[{'role': 'user', 'content': 'a'}]\"\n")


def raise_with_fix(folder: Path, text: str) -> None:
    try:
        format_files.convert(folder, "a.csv", text)
    except BadInput as error:
        raise BadInput(f"{error.message}\n  fix: {error.fix}") from error


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), st.sampled_from(",;\t|"), st.booleans())
def test_any_cells_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str, quotes: bool
) -> None:
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quotes else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    writer.writerows([("prompt", "completion"), *rows])
    read = format_files.rows_of(tmp_path_factory.mktemp("rows"), "a.csv", text.getvalue())
    assert [(row["prompt"], row["completion"]) for row in read] == rows
