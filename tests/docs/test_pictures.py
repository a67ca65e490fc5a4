"""The pictures of the documentation are made by scripts."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from doc_blocks import ROOT


def words(svg: str) -> str:
    """Return the texts of an SVG."""
    root = ElementTree.fromstring(svg)
    return html.unescape(" ".join("".join(root.itertext()).replace("\xa0", " ").split()))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("picture") / "cli.svg"
    subprocess.run([sys.executable, "docs/cli_screenshot.py", "--output", file], cwd=ROOT, check=True, timeout=300)
    return file.read_text()


def test_script_shows_commands_and_the_view_of_a_run(picture):
    text = words(picture)
    for part in ("$ argotune validate", "valid (oncall", "INSTANCE TYPE AND COST", "TASK", "28/72 0.4/s"):
        assert part in text
    assert re.findall(r"url\(.?https?://", picture) == []


def test_picture_in_the_documentation_shows_the_same(picture):
    numbers = re.compile(r"[\d.,]+")
    assert numbers.sub("", words((ROOT / "docs/images/cli.svg").read_text())) == numbers.sub("", words(picture))


@pytest.mark.parametrize("name", ["architecture.svg", "cli.svg"])
def test_pictures_load_nothing_and_run_nothing(name):
    text = (ROOT / "docs/images" / name).read_text()
    assert re.findall(r"<script|<image|href=\"http|url\(.?http", text) == []
    assert len(text) < 200_000
