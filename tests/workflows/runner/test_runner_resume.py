"""Runs that are killed, stopped or fail, and resume: with real runners, signals and orphans."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runner_documents import EXIT, PRINT, QUICK, dag, inputs, is_alive, leaf, log_of, task, wait_for, workflow, writer

from workflows import cli, runner
from workflows.commands import run as run_command
from workflows.errors import InvalidInput

DRIVER = Path(__file__).parents[1] / "runner_driver.py"

# Counts its starts, writes its process id, and continues when the file `go` exists.
HOLD = """import os, sys, time
folder = sys.argv[1]
def tell(name, text):
    path = os.path.join(folder, name)
    open(path + '.new', 'w').write(text); os.replace(path + '.new', path)
tell('start-%d' % len([f for f in os.listdir(folder) if f.startswith('start-') and '.' not in f]), str(os.getpid()))
while not os.path.exists(os.path.join(folder, 'go')): time.sleep(0.01)"""


class Runs:
    """Runners in separate processes."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "run"
        self.marks = tmp_path / "marks"
        self.marks.mkdir()
        self.document = tmp_path / "document.json"
        self.runners: list[subprocess.Popen[str]] = []

    def begin(self, document: dict[str, Any], grace: float = 5.0) -> subprocess.Popen[str]:
        self.document.write_text(json.dumps(document))
        return self._driver("start", grace)

    def resume(self) -> subprocess.Popen[str]:
        return self._driver("resume", 5.0)

    def _driver(self, verb: str, grace: float) -> subprocess.Popen[str]:
        words = [sys.executable, str(DRIVER), verb, str(self.folder), str(self.document), str(grace)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.runners.append(process)
        return process

    def held(self, number: int = 0) -> int:
        """Process id of the step that holds, once it has started for the ``number``-th time."""
        file = self.marks / f"start-{number}"
        wait_for(file.exists, f"the step to start for time {number}")
        return int(file.read_text())

    def let_go(self) -> None:
        (self.marks / "go").touch()

    def starts(self, name: str = "start-") -> int:
        return len([file for file in self.marks.iterdir() if file.name.startswith(name)])

    def phases(self) -> dict[str, str]:
        return {key: str(node.phase) for key, node in runner.read_state(self.folder).nodes.items()}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    for process in runs.runners:
        process.kill()
        process.communicate()
    for file in runs.marks.glob("start-*"):
        if file.read_text().isdecimal() and is_alive(int(file.read_text())):
            os.kill(int(file.read_text()), signal.SIGKILL)


def chain(runs: Runs, **options: Any) -> dict[str, Any]:
    """``before``, then ``hold``, which can be killed, then ``after``."""
    count = (
        "import sys, os; n = len(os.listdir(sys.argv[1])); open(os.path.join(sys.argv[1], sys.argv[2] + str(n)), 'w')"
    )
    counting = leaf("counting", count, str(runs.marks), "{{inputs.parameters.name}}-", inputs=inputs("name"))
    result = {"text": "{{tasks.value.outputs.parameters.out}}"}
    return workflow(
        dag(
            task("before", "counting", arguments={"name": "before"}),
            task("value", depends="before"),
            task("hold", depends="value"),
            task("after", depends="hold", arguments=result),
            task("skipped", "after", depends="hold", when="1 == 2", arguments=result),
        ),
        counting,
        writer("value", "kept"),
        leaf("hold", HOLD, str(runs.marks), **options.pop("hold", {})),
        leaf("after", PRINT, "{{inputs.parameters.text}}", inputs=inputs("text")),
        **options,
    )


def test_killed_runner_resumes_without_repeating_steps(runs: Runs) -> None:
    first = runs.begin(chain(runs))
    step = runs.held()
    first.kill()
    first.wait()
    wait_for(lambda: not is_alive(step), "the kernel to end the step with its runner")
    assert runs.phases()["hold"] == "Running"
    second = runs.resume()
    runs.held(1)
    runs.let_go()
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert runs.phases() == {
        "before": "Succeeded", "value": "Succeeded", "hold": "Succeeded", "after": "Succeeded", "skipped": "Skipped"
    }  # fmt: skip
    assert (runs.starts("before-"), runs.starts("start-")) == (1, 2)
    assert log_of(runs.folder, "after").strip() == "kept"
    attempts = runner.read_state(runs.folder).nodes["hold"].attempts
    assert [(str(a.phase), a.message) for a in attempts] == [("Failed", "the runner died"), ("Succeeded", "")]


def test_orphans_of_a_dead_runner_are_killed_first(runs: Runs) -> None:
    """A child of a step outlives the runner (the kernel ends only the step itself); resuming ends it, not a daemon."""
    both = """import subprocess, sys, os, time
def sleeper(name, **options):
    child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'], **options)
    open(os.path.join(sys.argv[1], name + '.new'), 'w').write(str(child.pid))
    os.replace(os.path.join(sys.argv[1], name + '.new'), os.path.join(sys.argv[1], name))
if not os.path.exists(os.path.join(sys.argv[1], 'start-child')):
    sleeper('start-child'); sleeper('start-daemon', start_new_session=True)
    time.sleep(600)"""
    first = runs.begin(workflow(dag(task("a")), leaf("a", both, str(runs.marks))))
    wait_for((runs.marks / "start-daemon").exists, "the daemon")
    child, daemon = (int((runs.marks / f"start-{name}").read_text()) for name in ("child", "daemon"))
    first.kill()
    first.wait()
    assert is_alive(child)
    second = runs.resume()
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert not is_alive(child)
    assert is_alive(daemon)


def test_a_killed_step_is_a_failed_attempt(runs: Runs) -> None:
    expression = "asInt(lastRetry.exitCode) == 137"
    first = runs.begin(chain(runs, hold={"retryStrategy": {"limit": "1", "expression": expression}}))
    os.kill(runs.held(), signal.SIGKILL)
    runs.held(1)
    runs.let_go()
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 0, out
    attempts = runner.read_state(runs.folder).nodes["hold"].attempts
    assert [attempt.exit_code for attempt in attempts] == [137, 0]
    assert attempts[0].message == "exit code 137 (killed)"


def test_ctrl_c_ends_the_step_runs_the_exit_handler_and_can_resume(runs: Runs) -> None:
    main = chain(runs, onExit="bye")
    main["spec"]["templates"].append(leaf("bye", PRINT, "{{workflow.status}}"))
    first = runs.begin(main)
    step = runs.held()
    first.send_signal(signal.SIGINT)
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 5, out
    assert "Cancelled" in out and "stopped by SIGINT" in out and str(runs.folder) in out
    assert not is_alive(step)
    state = runner.read_state(runs.folder)
    assert (state.phase, str(state.nodes["hold"].phase)) == ("Cancelled", "Failed")
    assert log_of(runs.folder, "onExit").strip() == "Failed"
    second = runs.resume()
    runs.held(1)
    runs.let_go()
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert runs.starts("before-") == 1
    assert log_of(runs.folder, "onExit", 2).strip() == "Succeeded", "the exit handler runs again, for the new end"


def test_step_that_exits_0_on_sigterm_runs_again(runs: Runs) -> None:
    polite = "import signal, sys; signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))\n" + HOLD
    first = runs.begin(workflow(dag(task("a")), leaf("a", polite, str(runs.marks))))
    runs.held()
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=120)
    assert first.returncode == 5
    assert runs.phases() == {"a": "Failed"}


def test_second_ctrl_c_kills_immediately(runs: Runs) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, lambda *a: open(sys.argv[1] + '/asked', 'w').close())\n"
    document = workflow(
        dag(task("a")),
        leaf("a", "import sys\n" + stubborn + HOLD, str(runs.marks)),
        leaf("bye", PRINT, "x"),
        onExit="bye",
    )
    first = runs.begin(document, grace=600.0)
    step = runs.held()
    first.send_signal(signal.SIGINT)
    wait_for((runs.marks / "asked").exists, "the step to be asked")
    assert is_alive(step)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=120)
    assert first.returncode == 5
    assert not is_alive(step)
    assert runs.phases() == {"a": "Failed"}, "no exit handler after the second"


def test_run_directory_is_locked(runs: Runs) -> None:
    first = runs.begin(chain(runs))
    runs.held()
    with pytest.raises(InvalidInput, match="another argotune process"):
        runner.resume(runs.folder, timing=QUICK)
    runs.let_go()
    first.communicate(timeout=120)
    assert first.returncode == 0


# Fails until the file it is given is there.
NEEDS = "import os, sys; open(sys.argv[2], 'a').write('x'); sys.exit(0 if os.path.exists(sys.argv[1]) else 1)"


def needing(tmp_path: Path, **options: Any) -> dict[str, Any]:
    return workflow(
        dag(task("a"), task("b", depends="a"), task("c", depends="b"), **options),
        writer("a", "1"),
        leaf("b", NEEDS, str(tmp_path / "needed"), str(tmp_path / "tries"), retryStrategy={"limit": 1}),
        leaf("c", PRINT, "done {{workflow.parameters.p}}"),
        parameters={"p": "0"},
    )


def test_resumed_run_gets_all_its_retries_again(tmp_path: Path) -> None:
    outcome = runner.start(needing(tmp_path), tmp_path / "run", name="x", parameters={"p": "5"}, timing=QUICK)
    assert (outcome.phase, len(outcome.nodes["b"].attempts)) == ("Failed", 2)
    outcome = runner.resume(tmp_path / "run", timing=QUICK)
    assert (outcome.phase, len(outcome.nodes["b"].attempts)) == ("Failed", 4)
    (tmp_path / "needed").touch()
    outcome = runner.resume(tmp_path / "run", timing=QUICK)
    assert (outcome.phase, outcome.message, len(outcome.nodes["a"].attempts)) == ("Succeeded", "", 1)
    assert (tmp_path / "tries").read_text() == "x" * 5
    assert log_of(tmp_path / "run", "c").strip() == "done 5", "the parameters of the start are kept"


def test_command_resumes_a_run_of_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not with one whose own name only begins alike."""

    def command(prefix: str, *flags: str) -> int:
        document = {**needing(tmp_path), "metadata": {"generateName": prefix}}
        (tmp_path / "workflow.json").write_text(json.dumps(document))
        return cli.main(["run", str(tmp_path / "workflow.json"), "--runs-dir", str(tmp_path / "runs"), *flags])

    assert command("tuned-", "--name", "mine") == 1
    assert command("tuned-more-", "--name", "tuned-more-x") == 1
    assert command("tuned-", "--resume", "--name", "tuned-more-x") == 2
    capsys.readouterr()
    (tmp_path / "needed").touch()
    assert command("tuned-", "--resume") == 0
    assert f"resuming {tmp_path / 'runs' / 'mine'}" in capsys.readouterr().err
    assert command("tuned-", "--resume") == 2


def test_finished_run_repeats_nothing(tmp_path: Path) -> None:
    (tmp_path / "needed").touch()
    first = runner.start(needing(tmp_path), tmp_path / "run", name="x", timing=QUICK)
    again = runner.resume(tmp_path / "run", document=needing(tmp_path), timing=QUICK)
    assert again.phase == "Succeeded"
    assert again.outputs == first.outputs
    assert (tmp_path / "tries").read_text() == "x"


def test_handled_failure_is_not_repeated_after_success(tmp_path: Path) -> None:
    document = workflow(
        dag(task("a"), task("b", depends="a.Failed")), leaf("a", EXIT, "1"), leaf("b", PRINT, "handled")
    )
    assert runner.start(document, tmp_path / "run", name="x", timing=QUICK).phase == "Succeeded"
    again = runner.resume(tmp_path / "run", timing=QUICK)
    assert (again.phase, len(again.nodes["a"].attempts), str(again.nodes["a"].phase)) == ("Succeeded", 1, "Failed")


def test_changed_document_is_rejected_with_its_paths(tmp_path: Path) -> None:
    document = needing(tmp_path)
    runner.start(document, tmp_path / "run", name="x", parameters={"p": "5"}, timing=QUICK)
    other = copy.deepcopy(document)
    other["metadata"]["generateName"] = "renamed-"
    other["spec"]["templates"][2]["container"]["args"][0] = "/elsewhere"
    other["spec"]["templates"][0]["dag"]["tasks"][2]["when"] = "1 == 1"
    with pytest.raises(InvalidInput) as caught:
        runner.resume(tmp_path / "run", document=other, timing=QUICK)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.templates[main].dag.tasks[c].when",
        "spec.templates[b].container.args[0]",
    ]
    assert runner.resume(tmp_path / "run", document=document, timing=QUICK).phase == "Failed"


LIST = """import os, sys
n = os.path.getsize(sys.argv[2]) if os.path.exists(sys.argv[2]) else 0
open(sys.argv[2], 'a').write('x')
open(sys.argv[1], 'w').write('["x%d", "same"]' % n)
sys.exit(1 - n)"""


def test_task_with_changed_inputs_runs_again(tmp_path: Path) -> None:
    """Kept is what succeeded with these inputs; here the first item has become another one."""
    document = workflow(
        dag(
            task("list"),
            task(
                "fan",
                depends="list.Succeeded || list.Failed",
                withParam="{{tasks.list.outputs.parameters.out}}",
                arguments={"i": "{{item}}"},
            ),
            task("end", "bad", depends="fan"),
        ),
        writer("list", ""),
        leaf("fan", PRINT, "{{inputs.parameters.i}}", inputs=inputs("i")),
        leaf("bad", EXIT, "1"),
    )
    # Fails the first time, and gives another list the second time.
    container = document["spec"]["templates"][1]["container"]
    container["command"][-1], container["args"] = LIST, [container["args"][0], str(tmp_path / "n")]
    first = runner.start(document, tmp_path / "run", name="x", timing=QUICK)
    assert (first.nodes["list"].phase, first.nodes["fan"].phase) == ("Failed", "Succeeded")
    again = runner.resume(tmp_path / "run", timing=QUICK)
    assert [len(again.nodes[key].attempts) for key in ("list", "fan.0", "fan.1")] == [2, 2, 1]
    assert log_of(tmp_path / "run", "fan.0", 2).strip() == "x1"


def test_no_run_in_directory(tmp_path: Path) -> None:
    for look in (runner.read_state, runner.resume):
        with pytest.raises(InvalidInput, match="no run in this directory"):
            look(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_unreadable_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "workflow.json").write_text("{}")
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(InvalidInput, match="cannot read the run"):
        runner.resume(tmp_path)


def test_interrupted_exit_handler_keeps_its_nodes_after_success(tmp_path: Path) -> None:
    bye = dag(task("release", "a"), task("report", "b", depends="release"), name="bye")
    document = needing(tmp_path)
    document["spec"]["templates"] = [dag(task("m", "c")), *document["spec"]["templates"][1:], bye]
    document["spec"]["onExit"] = "bye"
    first = runner.start(document, tmp_path / "run", name="x", timing=QUICK)
    assert (first.phase, first.failed) == ("Failed", "onExit.report")
    (tmp_path / "needed").touch()
    again = runner.resume(tmp_path / "run", timing=QUICK)
    assert again.phase == "Succeeded"
    assert len(again.nodes["onExit.release"].attempts) == 1


def test_a_runner_killed_in_the_exit_handler_resumes_it(runs: Runs) -> None:
    bye = dag(task("release", "hold"), task("report", depends="release"), name="bye")
    report = leaf("report", PRINT, "{{workflow.status}}")
    document = workflow(dag(task("a")), writer("a", "1"), leaf("hold", HOLD, str(runs.marks)), report, bye)
    document["spec"]["onExit"] = "bye"
    first = runs.begin(document)
    runs.held()
    first.kill()
    first.wait()
    state = runner.read_state(runs.folder)
    assert (state.phase, state.main) == ("Running", "Succeeded")
    assert run_command._unfinished(runs.folder.parent, "", run_command._prefix(document), "x.yaml") == runs.folder
    runs.let_go()
    outcome = runner.resume(runs.folder, timing=QUICK)
    assert outcome.phase == "Succeeded"
    assert {key: len(node.attempts) for key, node in outcome.nodes.items() if node.type == "Container"} == {
        "a": 1,
        "onExit.release": 2,
        "onExit.report": 1,
    }
    assert log_of(runs.folder, "onExit.report").strip() == "Succeeded"
    assert runner.read_state(runs.folder).finished_at
