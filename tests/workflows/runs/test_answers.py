"""Answers at the end of a run: a table on a terminal, lines in a pipe."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from workflows.commands import run as run_command
from workflows.runner.outcome import Outcome
from workflows.runs.answers import MAX_WIDTH, Sample, print_answers
from workflows.runs.status import RunStatus
from workflows.runs.step import Step

QUESTION = "The pods of checkout in namespace shop are in CrashLoopBackOff. What now?"
BASE = "Restart the cluster, then wait for the pods to become ready again, and open a ticket."
ADAPTER = "Cause: the container exits.\nCheck: kubectl logs deploy/checkout -n shop --previous\nRunbook: RB-101"
PLAIN = f"\nquestion:   {QUESTION}\n\nbase model: {BASE}\n\nadapter:    {ADAPTER}\n"


class Terminal(io.StringIO):
    """A terminal; its width is in COLUMNS."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal without colors."""
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def visible(terminal: Terminal) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()


@pytest.mark.parametrize("width", [60, 80, 119, 300])
def test_answers_are_side_by_side(width: int, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_answers(QUESTION, BASE, ADAPTER, terminal)
    lines = visible(terminal)
    assert max(map(len, lines)) == min(width, MAX_WIDTH)
    assert any("base model" in line and "adapter" in line for line in lines)
    assert any("Restart the cluster" in line and "Cause: the container" in line for line in lines)
    shown = " ".join(" ".join(lines).split())
    assert all(word in shown for word in (*QUESTION.split(), "ticket.", "RB-101"))


def test_held_out_questions_have_tables_of_their_own(terminal: Terminal) -> None:
    samples = [Sample("Why is cart down?", "Ask the team.", "Runbook: RB-102"), Sample("[b]Tracker?", "", "RB-103")]
    print_answers(QUESTION, BASE, ADAPTER, terminal, samples)
    lines = visible(terminal)
    assert sum("base model" in line and "adapter" in line for line in lines) == 3
    assert max(map(len, lines)) == 80
    shown = [" ".join(line.split()) for line in lines]
    assert "Why is cart down?" in shown and "[b]Tracker?" in shown
    assert any("Ask the team." in line and "RB-102" in line for line in lines)


def test_a_long_word_is_folded(terminal: Terminal) -> None:
    print_answers("", "x" * 100, "y", terminal)
    assert "".join(visible(terminal)).count("x") == 100
    assert max(map(len, visible(terminal))) == 80


@pytest.mark.parametrize("variables", [{"COLUMNS": "59"}, {"TERM": "dumb"}])
def test_a_narrow_or_dumb_terminal_gets_lines(
    variables: dict[str, str], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    print_answers(QUESTION, BASE, ADAPTER, terminal)
    assert terminal.getvalue() == PLAIN


def test_a_pipe_gets_lines_even_if_colors_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipe = io.StringIO()
    print_answers(QUESTION, BASE, ADAPTER, pipe)
    assert pipe.getvalue() == PLAIN


def test_one_answer_is_a_line(terminal: Terminal) -> None:
    print_answers("", "", ADAPTER, terminal)
    assert terminal.getvalue() == f"\nadapter:    {ADAPTER}\n"


def test_a_question_without_answers_is_not_printed(terminal: Terminal) -> None:
    print_answers(QUESTION, "", "", terminal)
    assert not terminal.getvalue()


def test_markup_and_control_characters_are_text(terminal: Terminal) -> None:
    print_answers("[bold]", "[red]a\x1b[2J", "b :smile:", terminal)
    shown = terminal.getvalue()
    assert "[bold]" in shown and "[red]a\\x1b[2J" in shown and ":smile:" in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize("rows", [3, 1, 0, None])
def test_a_local_run_shows_two_held_out_questions(
    rows: int | None, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", terminal)
    report = tmp_path / "volumes" / "work" / "report"
    report.mkdir(parents=True)
    samples = [
        {"question": f"held-out {idx}?", "base_answer": "no", "adapter_answer": "yes", "reference": "yes"}
        for idx in range(rows or 0)
    ]
    (report / "evaluation.json").write_text("{" if rows is None else json.dumps({"samples": samples}))
    outputs = {"endpoint": "http://x", "answer": ADAPTER, "base-answer": BASE}
    status = RunStatus(name="x", phase="Succeeded", steps=[Step("rollout", phase="Succeeded", outputs=outputs)])
    assert run_command.print_result(Outcome(status, {}, tmp_path), "workspace.yaml") == 0
    assert terminal.getvalue().count("held-out ") == min(rows or 0, 2)


def test_a_local_run_shows_its_question(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question of the server is one of the evaluation by default, whose table would repeat it."""
    monkeypatch.setattr("sys.stdout", terminal)
    report = tmp_path / "volumes" / "work" / "report"
    report.mkdir(parents=True)
    samples = [{"question": text, "base_answer": "no", "adapter_answer": "yes"} for text in ("Why?", "How?")]
    (report / "evaluation.json").write_text(json.dumps({"samples": samples}))
    outputs = {"endpoint": "http://x", "answer": ADAPTER, "base-answer": BASE, "question": "Why?"}
    status = RunStatus(name="x", phase="Succeeded", steps=[Step("rollout", phase="Succeeded", outputs=outputs)])
    assert run_command.print_result(Outcome(status, {}, tmp_path), "workspace.yaml") == 0
    assert [terminal.getvalue().count(text) for text in ("Why?", "How?", "Restart the cluster")] == [1, 1, 1]
