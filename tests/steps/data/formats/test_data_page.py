"""The examples of docs/DATA.md are read as they are."""

from __future__ import annotations

import re
from pathlib import Path

import format_files
import pytest

PAGE = (Path(__file__).parents[4] / "docs/DATA.md").read_text()
BLOCKS = [(kind, text) for kind, text in re.findall(r"^```(json|csv)\n(.*?)^```", PAGE, re.S | re.M)]


def test_the_page_has_examples() -> None:
    assert {kind for kind, _ in BLOCKS} == {"json", "csv"}


@pytest.mark.parametrize(("kind", "text"), BLOCKS)
def test_examples_are_read(tmp_path: Path, kind: str, text: str) -> None:
    rows = format_files.rows_of(tmp_path, f"a.{kind}", text)
    assert rows and all("messages" in row or {"prompt", "completion"} <= row.keys() for row in rows)
