"""The generated pages are current: ``ARGOTUNE_REGENERATE=1 pytest tests/docs/test_reference_pages.py`` writes them."""

import json
import os
import re
from functools import cache

import cli_page
import families_page
import pytest
import site_page
import troubleshooting_page
from message_source import ROOT, messages

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


def test_every_error_in_the_input_has_a_fix():
    without = [item for item in messages() if not item.fix and troubleshooting_page.cause(item) == "input"]
    # The messages contain the fix.
    assert {item.text for item in without} <= {
        "does not fit into an argument (at most N bytes)",
        "its runner has ended; resume it with argotune run FILE --resume",
        *("is required", "unknown field", "must be EXPECTED", "MESSAGE, not VALUE"),
    }


@pytest.mark.parametrize(
    "case", sorted((ROOT / "tests" / "data" / "kaito").glob("*.yaml")), ids=lambda file: file.stem
)
def test_messages_about_kaito_examples_are_on_the_page(case, argotune):
    result = argotune("validate", case, "-o", "json")
    reported = [problem["message"] for file in [json.loads(result.stdout)] for problem in all_problems(file)]
    assert [text for text in reported if not any(pattern.fullmatch(text) for pattern in patterns())] == []


@cache
def patterns() -> list[re.Pattern[str]]:
    """Return a pattern for each message of the page, with a wildcard for each placeholder."""
    texts = {re.sub(r"[A-Z][A-Z_]+( [A-Z_]{2,})*", "\0", item.text) for item in messages()}
    return [re.compile(re.escape(text).replace(re.escape("\0"), ".*"), re.DOTALL) for text in texts]


def all_problems(value):
    """Yield the objects with a message in JSON output."""
    if isinstance(value, dict):
        if "message" in value:
            yield value
        for part in value.values():
            yield from all_problems(part)
    elif isinstance(value, list):
        for part in value:
            yield from all_problems(part)
