"""docs/STEPS.md is current: ``ARGOTUNE_REGENERATE=1 pytest tests/steps/test_step_docs.py`` writes it."""

import importlib
import os

import pytest
import step_docs


@pytest.mark.parametrize("step", step_docs.STEPS)
def test_settings_and_outputs_are_described(step):
    module = importlib.import_module(f"steps.{step}.settings")
    assert module.Settings.__doc__
    assert {
        name: field.description for name, field in module.Settings.model_fields.items() if not field.description
    } == {}
    assert {name for name, docstring in step_docs.field_docstrings(module.Result).items() if not docstring} == set()


def test_page_is_current():
    text = step_docs.document()
    if os.environ.get("ARGOTUNE_REGENERATE"):
        step_docs.DOCUMENT.write_text(text)
    assert step_docs.DOCUMENT.read_text() == text
