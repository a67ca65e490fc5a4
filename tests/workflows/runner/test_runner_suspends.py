"""Local approvals: answered by a parameter, on a terminal, on resume, or not at all."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from runner_documents import EXIT, PRINT, QUICK, dag, leaf, task, workflow

from workflows import runner
from workflows.argo.phase import Phase
from workflows.errors import InvalidInput


def asking(name: str = "approve", **fields: Any) -> dict[str, Any]:
    """Return an approval as the compiler writes it."""
    parameter = {"name": name, "enum": ["YES", "NO"], "default": "NO", "description": "Serve it?"}
    supplied = {"name": name, "valueFrom": {"supplied": {}}}
    return {
        "name": "approval",
        "inputs": {"parameters": [parameter]},
        "outputs": {"parameters": [supplied]},
        "suspend": {},
        **fields,
    }


def document() -> dict[str, Any]:
    when = "{{tasks.approval.outputs.parameters.approve}} == YES"
    return workflow(
        dag(task("before"), task("approval", depends="before"), task("go", depends="approval.Succeeded", when=when)),
        leaf("before", PRINT, "x"),
        leaf("go", PRINT, "went"),
        asking(),
    )


@pytest.mark.parametrize(("answer", "then"), [("YES", Phase.SUCCEEDED), ("NO", Phase.SKIPPED)])
def test_answer_passed_as_parameter(tmp_path: Path, answer: str, then: Phase) -> None:
    outcome = runner.start(document(), tmp_path / "r", name="r", parameters={"approve": answer}, timing=QUICK)
    assert outcome.phase is Phase.SUCCEEDED
    assert outcome.outputs["approval"] == {"approve": answer}
    assert outcome.nodes["go"].phase is then


def test_without_terminal_the_node_fails_with_a_fix(tmp_path: Path) -> None:
    outcome = runner.start(document(), tmp_path / "r", name="r", timing=QUICK)
    assert outcome.phase is Phase.FAILED
    assert outcome.message == "approval failed: no terminal to answer `approve` (YES or NO)"
    assert outcome.fix == "pass the answer: -p approve=YES or -p approve=NO"
    assert outcome.nodes["go"].phase is Phase.OMITTED


def test_resumed_run_uses_the_answer_and_keeps_completed_nodes(tmp_path: Path) -> None:
    before = runner.start(document(), tmp_path / "r", name="r", timing=QUICK)
    outcome = runner.resume(tmp_path / "r", document=document(), answers={"approve": "YES"}, timing=QUICK)
    assert outcome.phase is Phase.SUCCEEDED
    assert outcome.nodes["go"].phase is Phase.SUCCEEDED
    assert outcome.nodes["before"] == before.nodes["before"]
    assert runner.read_state(tmp_path / "r").parameters == {"approve": "YES"}


@pytest.mark.parametrize(
    ("given", "words"),
    [({"approve": "yes"}, "`yes` is not one of YES, NO"), ({"aprove": "YES"}, "unknown parameter `aprove`")],
)
def test_invalid_answer_is_rejected_before_the_run(tmp_path: Path, given: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        runner.start(document(), tmp_path / "r", name="r", parameters=given, timing=QUICK)
    assert not (tmp_path / "r").exists()


def test_resume_accepts_only_answers(tmp_path: Path) -> None:
    own = document()
    own["spec"]["arguments"]["parameters"] = [{"name": "epochs", "value": "1"}]
    runner.start(own, tmp_path / "r", name="r", timing=QUICK)
    with pytest.raises(InvalidInput, match="-p epochs: changed since the run was started"):
        runner.resume(tmp_path / "r", answers={"epochs": "2"}, timing=QUICK)
    with pytest.raises(InvalidInput, match="no suspend template has the parameter `epoch`"):
        runner.resume(tmp_path / "r", answers={"epochs": "1", "epoch": "1"}, timing=QUICK)


def test_suspend_without_outputs_is_answered_by_its_name(tmp_path: Path) -> None:
    plain = workflow(
        dag(task("pause"), task("go", depends="pause")), {"name": "pause", "suspend": {}}, leaf("go", PRINT)
    )
    assert runner.start(plain, tmp_path / "a", name="a", timing=QUICK).phase is Phase.FAILED
    outcome = runner.start(plain, tmp_path / "b", name="b", parameters={"pause": "YES"}, timing=QUICK)
    assert outcome.nodes["go"].phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (asking(retryStrategy={"limit": 1}), "retryStrategy.*only on containers"),
        (asking(timeout="1h"), "`timeout` is not allowed on suspend"),
        (asking(inputs={}), "the options of the answer are missing"),
        (
            asking(outputs={"parameters": [{"name": "approve", "valueFrom": {"path": "/x"}}]}),
            "must be `supplied`",
        ),
    ],
    ids=["retry", "timeout", "no input", "no supply"],
)
def test_invalid_suspend_is_rejected(template: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        runner.check(workflow(dag(task("approval")), template))


class Terminal:
    """``argotune run`` with a terminal as its input and output."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        file = folder / "workflow.json"
        file.write_text(json.dumps(content))
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "workflows.cli", "run", file, "--name", "r", "--runs-dir", folder / "runs"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.shown = ""
        self.state = folder / "runs" / "r" / "state.json"

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 300
        while text not in self.shown:
            assert time.monotonic() < until, self.shown
            self.read()

    def type(self, line: str) -> None:
        self.shown = ""
        os.write(self.master, f"{line}\n".encode())

    def finish(self) -> int:
        while self.read():
            pass
        return self.process.wait(timeout=300)

    def read(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def nodes(self) -> dict[str, Any]:
        nodes: dict[str, Any] = json.loads(self.state.read_text())["nodes"]
        return nodes


@pytest.fixture
def terminal(tmp_path: Path) -> Any:
    opened = Terminal(tmp_path, document())
    yield opened
    opened.process.kill()
    opened.process.wait()
    os.close(opened.master)


def test_terminal_prompts_until_the_answer_is_valid(terminal: Terminal) -> None:
    terminal.wait_for("Serve it?")
    terminal.wait_for("approve (YES or NO): ")
    terminal.type("perhaps")
    terminal.wait_for("answer YES or NO: ")
    terminal.type("YES")
    assert terminal.finish() == 0
    assert terminal.nodes()["go"]["phase"] == "Succeeded"


def test_answer_no_fails_the_gate(terminal: Terminal) -> None:
    terminal.wait_for("approve (YES or NO): ")
    terminal.type("NO")
    assert terminal.finish() == 3
    assert terminal.nodes()["go"]["phase"] == "Skipped"
    assert "the answer was NO" in terminal.shown


def test_interrupted_prompt_ends_the_run_and_repeats_on_resume(terminal: Terminal) -> None:
    terminal.wait_for("approve (YES or NO): ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.finish() == 5
    folder = terminal.state.parent
    outcome = runner.resume(folder, answers={"approve": "YES"}, timing=QUICK)
    assert outcome.nodes["go"].phase is Phase.SUCCEEDED


def test_time_limit_ends_the_prompt(tmp_path: Path) -> None:
    opened = Terminal(tmp_path, document() | {"spec": document()["spec"] | {"activeDeadlineSeconds": 1}})
    assert opened.finish() == 6
    assert opened.nodes()["go"]["phase"] != "Succeeded"
    os.close(opened.master)


def test_other_tasks_run_during_the_prompt(tmp_path: Path) -> None:
    parallel = workflow(dag(task("approval"), task("fails"), dag_fail_fast=False), leaf("fails", EXIT, "0"), asking())
    outcome = runner.start(parallel, tmp_path / "r", name="r", timing=QUICK)
    assert outcome.nodes["fails"].phase is Phase.SUCCEEDED
    assert outcome.failed == "approval"
