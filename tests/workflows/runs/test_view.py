"""The view of a run: plain lines in a pipe, a table on a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from runner_documents import QUICK, dag, inputs, leaf, task, workflow

from workflows import runner
from workflows.runs.observer import Observer
from workflows.runs.progress_rate import ProgressRate
from workflows.runs.step import Step
from workflows.runs.view import LiveView, PlainView, choose_view

START = datetime(2026, 8, 21, 10, tzinfo=UTC)
SPEAK = "import sys; print('hello'); sys.exit(int(sys.argv[1]))"


def test_plain_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    document = workflow(
        dag(
            task("a", "speak"),
            task("b", "speak", depends="a", arguments={"code": "2"}),
            task("c", "speak", depends="b"),
        ),
        leaf("speak", SPEAK, "{{inputs.parameters.code}}", inputs=inputs(code="0")),
    )
    runner.start(document, tmp_path / "run", name="mine", observer=PlainView(stream), timing=QUICK)
    lines = [re.sub(r"after \d+s", "after 0s", line) for line in stream.getvalue().splitlines()]
    assert lines == [
        "mine: started",
        "a: Running",
        "[a] hello",
        "a: Succeeded after 0s",
        "b: Running",
        "[b] hello",
        "b: Failed after 0s: exit code 2: hello",
        "c: Omitted: its depends can't be met",
        "mine: Failed",
    ]
    stream.truncate(0)
    runner.resume(tmp_path / "run", observer=PlainView(stream), timing=QUICK)
    assert "mine: resumed, 1 steps already done" in stream.getvalue()
    assert "[a]" not in stream.getvalue()


def test_progress_lines_are_throttled() -> None:
    now = [0.0]
    stream = io.StringIO()
    view = PlainView(stream, clock=lambda: now[0])
    tune, download = Step("tune", phase="Running"), Step("download", phase="Running")
    for second in range(25):
        now[0] = float(second)
        view.on_log(tune, f"step {second}/100 loss 2.5")
        view.on_log(download, f"{second}%|###  |")
    view.on_log(tune, "saved a checkpoint")
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if line.startswith("[tune]")] == [
        "[tune] step 0/100 loss 2.5",
        "[tune] step 10/100 loss 2.5",
        "[tune] step 20/100 loss 2.5",
        "[tune] saved a checkpoint",
    ]
    assert sum(line.startswith("[download]") for line in lines) == 3


def test_the_table_shows_state_time_progress_and_the_last_line() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, no_color=True, highlight=False)
    view = LiveView(console)
    tune = Step("tune", phase="Running", started=START, finished=START + timedelta(seconds=3723))
    view.on_step_change(tune)
    view.on_log(tune, "loss " + "2" * 200)
    view.on_progress(tune, 25, 100)
    view.on_step_change(Step("download", phase="Succeeded", started=START, finished=START + timedelta(seconds=215)))
    view.on_step_change(Step("package", phase="Skipped", message="when 'fail == pass' is false"))
    with console.capture() as capture:
        console.print(view.table())
    rows = {row.split()[0]: row for row in re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).splitlines() if row.strip()}
    assert all(len(row.rstrip()) <= 100 for row in rows.values())
    assert "Running" in rows["tune"] and "62m" in rows["tune"] and "25/100" in rows["tune"]
    assert rows["tune"].rstrip().endswith("…")
    assert "Succeeded" in rows["download"] and "3m35s" in rows["download"]
    assert "when 'fail == pass' is false" in rows["package"]


def test_the_bar_shows_speed_and_remaining_time(monkeypatch) -> None:
    moments = iter([0.0, 10.0])
    monkeypatch.setattr("workflows.runs.view.ProgressRate", lambda: ProgressRate(lambda: next(moments)))
    view = LiveView(Console(file=io.StringIO()))
    tune = Step("tune", phase="Running")
    view.on_progress(tune, 0, 48)
    view.on_progress(tune, 12, 48)
    assert view._bar(tune) == "━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 12/48 1.2/s 30s left"


def test_the_view_depends_on_the_stream() -> None:
    assert isinstance(choose_view(io.StringIO()), PlainView)
    assert type(choose_view(io.StringIO(), quiet=True)) is Observer


RUN = """import json, sys; from pathlib import Path; from workflows import runner
from workflows.runs.view import choose_view
runner.start(json.loads(sys.argv[1]), Path(sys.argv[2]), name='x', observer=choose_view())"""
COLOR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


def command(folder: Path) -> list[str]:
    document = json.dumps(workflow(dag(task("say")), leaf("say", SPEAK, "0")))
    return [sys.executable, "-c", RUN, document, str(folder / "run")]


@pytest.mark.parametrize(("no_color", "has_colors"), [("1", False), ("", True)])
def test_a_terminal_gets_a_table_with_colors_unless_disabled(no_color: str, has_colors: bool, tmp_path: Path) -> None:
    reader, writer = pty.openpty()
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "90", "LINES": "24"}
    process = subprocess.Popen(command(tmp_path), stderr=writer, stdout=subprocess.PIPE, env=environment)
    os.close(writer)
    seen = b""
    try:
        while part := os.read(reader, 65536):
            seen += part
    except OSError:  # raised on Linux when the other end is closed
        pass
    out, _ = process.communicate(timeout=120)
    os.close(reader)
    assert process.returncode == 0
    assert out == b"", "standard output is for data"
    text = seen.decode()
    assert "TASK" in text and re.search(r"say\s+.*Succeeded", text)
    assert bool(COLOR.search(text)) == has_colors


def test_a_pipe_gets_plain_lines_even_if_colors_are_forced(tmp_path: Path) -> None:
    environment = os.environ | {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm"}
    result = subprocess.run(command(tmp_path), env=environment, capture_output=True, text=True, timeout=300)
    lines = [re.sub(r"after \d+s", "after 0s", line) for line in result.stderr.splitlines()]
    assert lines == ["x: started", "say: Running", "[say] hello", "say: Succeeded after 0s", "x: Succeeded"]
