"""The generated pages are current: ``ARGOTUNE_REGENERATE=1 pytest tests/docs/test_reference_pages.py`` writes them."""

import os

import cli_page
import families_page
import pytest
import site_page
import troubleshooting_page

from workflows import cli
from workflows.plan.site import FIELDS

PAGES = [cli_page, families_page, site_page, troubleshooting_page]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.DOCUMENT.stem)
def test_page_is_current(page):
    text = page.document()
    if os.environ.get("ARGOTUNE_REGENERATE"):
        page.DOCUMENT.write_text(text)
    assert page.DOCUMENT.read_text() == text, "ARGOTUNE_REGENERATE=1 rewrites it"


def test_every_command_has_a_section():
    text = cli_page.document()
    assert [name for name in cli.COMMANDS if f"## argotune {name}\n" not in text] == []


def test_every_field_of_a_site_profile_has_a_row():
    text = site_page.document()
    assert [field for field in FIELDS if f"| `{field}` |" not in text] == []
    assert [line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []
