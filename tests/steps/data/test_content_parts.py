"""Contents that are lists of parts: texts are joined, all else is refused by row and field, whatever the file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.dataset import read_messages
from steps.download.settings import Settings
from steps.download.step import download
from steps.runtime.errors import BadInput

TEXT = st.text("ab \n\u00e9", min_size=1, max_size=5).map(lambda text: f"x{text}")
GOOD = TEXT.map(lambda text: {"type": "text", "text": text}) | TEXT.map(lambda text: {"text": text})
BAD = st.sampled_from(
    [
        ({"type": "image_url", "image_url": {"url": "http://x/y.png"}}, 'the type "image_url"'),
        ({"type": "image"}, 'the type "image"'),
        ({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}, "the field `cache_control`"),
        ({"type": "text"}, "no text"),
    ]
)


def write(folder: Path, extension: str, key: str, contents: list[Any]) -> Path:
    role, column = ("from", "conversations") if key == "value" else ("role", "messages")
    rows = [
        {column: [{role: "user", key: content}, {role: "assistant", key: [{"type": "text", "text": "Yes."}]}]}
        for content in contents
    ]
    path = folder / f"rows.{extension}"
    if extension == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
@pytest.mark.parametrize("key", ["content", "value"])
@given(contents=st.lists(st.lists(GOOD, min_size=1, max_size=3), min_size=1, max_size=4), data=st.data())
@settings(max_examples=8)
def test_parts(extension: str, key: str, contents: list[Any], data: st.DataObject) -> None:
    if extension == "jsonl" and data.draw(st.booleans()):
        contents = [*contents, "only text"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = write(work, extension, key, contents)
        download(Settings(work=work, source=source, eval_split=0, shuffle=False))
        rows = read_messages(work / "dataset" / "train.parquet")
        assert [row[0]["content"] for row in rows] == list(map(text_of, contents))
        bad, reason = data.draw(BAD)
        number = data.draw(st.integers(0, len(contents) - 1))
        before = (
            [{"type": "text", "text": contents[number]}] if isinstance(contents[number], str) else contents[number]
        )
        contents = [*contents[:number], [*before, bad], *contents[number + 1 :]]
        source = write(work, extension, key, contents)
        with pytest.raises(BadInput) as raised:
            download(Settings(work=work, source=source, eval_split=0))
        assert f"message whose `content` has a part with {reason}, but only text is trained on: 1 (row {number}" in (
            raised.value.message
        )


def test_a_content_that_is_one_part() -> None:
    with tempfile.TemporaryDirectory() as folder:
        messages = [{"role": role, "content": {"type": "text", "text": "a"}} for role in ("user", "assistant")]
        source = Path(folder) / "rows.jsonl"
        source.write_text(json.dumps({"messages": messages}))
        download(Settings(work=Path(folder), source=source, eval_split=0))
        assert read_messages(Path(folder) / "dataset" / "train.parquet")[0][0]["content"] == "a"
