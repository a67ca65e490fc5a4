"""Links in the documentation lead somewhere: files and headings, as GitHub shows them and on the site."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache

import pytest
from doc_blocks import ROOT, pages

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
PAGE_IN_CODE = re.compile(r"\bdocs/[A-Z_]+\.md\b")


@cache
def text_of(page: str) -> str:
    """Return a page without its code."""
    return CODE.sub("", (ROOT / page).read_text())


@cache
def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ +(.*)$", re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text(), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_links_lead_to_files_and_headings(page):
    wrong = []
    for target in LINK.findall(text_of(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(os.path.relpath(file, ROOT))):
            wrong.append(target)
    assert wrong == []


def test_pages_named_in_code_exist():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    suffixes = (".py", ".yaml", ".toml", "Makefile")
    files = [ROOT / name for name in listed.splitlines() if name.endswith(suffixes) and "tests/data/" not in name]
    missing = [
        f"{file.relative_to(ROOT)}: {page}"
        for file in files
        if file.exists()
        for page in PAGE_IN_CODE.findall(file.read_text())
        if not (ROOT / page).exists() and "AAD-OAuth" not in page
    ]
    assert missing == []


def test_no_address_is_a_placeholder():
    assert [
        page for page in pages() if re.search(r"https?://\S*\b(OWNER|TODO|CHANGEME)\b", (ROOT / page).read_text())
    ] == []


def test_site_is_built_without_a_warning_and_needs_no_other_host(tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    built = {file.stem for file in site.glob("*.html")} - {"index", "404"}
    assert built == {file.stem for file in (ROOT / "docs").glob("*.md")} - {"README"}
    loaded = r"<(?:script|link|img)[^>]*(?:src|href)=\"?https?://[^\" >]+"
    assert re.findall(loaded, (site / "index.html").read_text()) == []
