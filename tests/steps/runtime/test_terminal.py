"""Text from outside on a terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.runtime import terminal
from workflows import cli
from workflows.errors import InvalidInput, Problem
from workflows.runs.result import print_answers
from workflows.runs.status import RunStatus
from workflows.runs.step import Step
from workflows.runs.view import PlainView

ATTACK = "\x1b]0;title\x07\x1b[2J\x9b31mred\rhidden"


@given(st.text())
def test_no_control_character_remains(text: str) -> None:
    escaped = terminal.escape(text)
    assert all(char in "\n\t" or (char >= " " and not "\x7f" <= char <= "\x9f") for char in escaped)
    if text.isprintable():
        assert escaped == text


def test_logs_and_messages_of_a_run_are_escaped() -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    view.on_message(ATTACK)
    view.on_prompt(ATTACK)
    assert not set("\x1b\x07\x9b\r") & set(stream.getvalue())
    assert "\\x1b[2J" in stream.getvalue()


def test_errors_are_escaped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> int:
        raise InvalidInput(Problem(ATTACK))

    monkeypatch.setattr("workflows.commands.schema.run", run)
    assert cli.main(["schema"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_answers_of_a_model_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {"endpoint": "http://x", "answer": ATTACK}
    print_answers(RunStatus(name="x", phase="Succeeded", steps=[Step(key="rollout", outputs=outputs)]))
    assert "\x1b" not in capsys.readouterr().out
