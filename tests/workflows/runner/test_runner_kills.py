"""A runner that is killed before each of its writes, renames and processes, exit handler included, and resumed."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_table
import pytest
from fault_table import Row
from faults import fork
from runner_documents import QUICK, dag, leaf, task, workflow, writer

from steps.runtime import files
from workflows import cli, runner
from workflows.commands import ls
from workflows.runner.outcome import Outcome

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "subprocess.Popen")
COPY = "import sys; open(sys.argv[1], 'w').write(' '.join(sys.argv[2:]))"


def document() -> dict[str, Any]:
    """Two steps, and an exit handler of two that writes the report from their output."""
    mounts = {"volumeMounts": [{"name": "work", "mountPath": "/mnt/work"}]}
    result = {"text": "{{tasks.download.outputs.parameters.out}}"}
    text = {"parameters": [{"name": "text"}]}
    return workflow(
        dag(task("download"), task("tune", depends="download", arguments=result)),
        dag(task("release"), task("report", depends="release"), name="exit"),
        writer("download", "rows"),
        leaf("tune", COPY, "/mnt/work/adapter", "{{inputs.parameters.text}}", inputs=text, container=mounts),
        writer("release", "nothing"),
        leaf("report", COPY, "/mnt/work/report", "{{workflow.status}}", container=mounts),
        onExit="exit",
    )


def kill_at(number: int, folder: Path, action: Callable[[], object]) -> int:
    """Run ``action`` in a process that is killed before its ``number``-th write; return the writes before that."""
    counter = folder.parent / "writes"

    def alone() -> int:
        counted = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal counted
            if event not in EVENTS or not _is_write(event, arguments, folder):
                return
            counted += 1
            if counted == number:
                os.kill(os.getpid(), signal.SIGKILL)

        files._cleaned.clear()
        sys.addaudithook(count)
        action()
        counter.write_text(str(counted))
        return 0

    counter.unlink(missing_ok=True)
    code = os.waitstatus_to_exitcode(os.waitpid(fork(alone), 0)[1])
    assert code == (-signal.SIGKILL if not counter.exists() else 0)
    return int(counter.read_text()) if counter.exists() else number - 1


def _is_write(event: str, arguments: tuple[Any, ...], folder: Path) -> bool:
    if event == "subprocess.Popen":
        return True
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return False
    return str(arguments[0]).startswith(str(folder))


def start(folder: Path) -> Outcome:
    return runner.start(document(), folder, name="killed", timing=QUICK)


def resume(folder: Path) -> Outcome:
    files._cleaned.clear()
    return runner.resume(folder, timing=QUICK) if (folder / "state.json").exists() else start(folder)


def check(folder: Path, finished: set[str], outcome: Outcome) -> None:
    """Check a resumed run; ``finished`` are the steps that had succeeded before the kill."""
    assert (outcome.phase, outcome.message) == ("Succeeded", "")
    assert {str(node.phase) for node in outcome.nodes.values()} == {"Succeeded"}
    assert (folder / "volumes" / "work" / "adapter").read_text() == "rows"
    assert (folder / "volumes" / "work" / "report").read_text() == "Succeeded"
    for key in finished:
        assert len(outcome.nodes[key].attempts) <= 1, f"{key} was repeated"
    assert not list(folder.rglob("*.partial"))


def succeeded(folder: Path) -> set[str]:
    if not (folder / "state.json").exists():
        return set()
    return {key for key, node in runner.read_state(folder).nodes.items() if node.phase == "Succeeded"}


def kill_and_resume(tmp_path: Path, step: int) -> None:
    """Kill a run before every ``step``-th of its writes, each time in a new directory, and resume it."""
    num_writes = kill_at(0, tmp_path / "undisturbed", lambda: start(tmp_path / "undisturbed"))
    killed_in_exit_handler = 0
    for number in range(1, num_writes + 1, step):
        folder = tmp_path / str(number)
        assert kill_at(number, folder, lambda folder=folder: start(folder)) == number - 1
        finished = succeeded(folder)
        killed_in_exit_handler += "tune" in finished
        check(folder, finished, resume(folder))
    assert killed_in_exit_handler * step > num_writes // 3 > 30
    outcome = "resumes with --resume to the same end; finished steps are not repeated"
    calls = ("a write, rename or start of a step", "the same in the exit handler")
    fault_table.check("Local runner: kills", [Row("argotune run", call, "killed", outcome) for call in calls])


def test_a_runner_killed_at_some_writes_resumes_to_the_same_end(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, step=6)


@pytest.mark.slow
def test_a_runner_killed_at_any_write_resumes_to_the_same_end(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, step=1)


def test_a_disk_that_fails_during_a_run_is_reported_without_a_retry(tmp_path: Path) -> None:
    """From a write on, all writes fail; when they work again, the run resumes."""
    rows = []
    for number, first in zip((errno.ENOSPC, errno.EROFS, errno.EIO, errno.ENOSPC), (3, 30, 60, 100), strict=True):
        folder = tmp_path / str(first)
        report = tmp_path / "report"
        code = on_failing_disk(folder, first, number, report)
        assert code == 1, report.read_text()
        assert "fix: " in report.read_text() and str(folder) in report.read_text()
        assert "unexpected" not in report.read_text()
        finished = succeeded(folder)
        check(folder, finished, resume(folder))
        rows.append(
            Row("argotune run", "all writes", os.strerror(number).lower(), "reported with path; resumes later")
        )
    fault_table.check("Local runner: disk", rows)


def on_failing_disk(folder: Path, first: int, number: int, report: Path) -> int:
    """Start a run whose writes fail from the ``first`` on; return the exit code of the command line."""

    def command(args: object) -> int:
        start(folder)
        return 0

    def alone() -> int:
        counted = 0

        def fail(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal counted
            if event in EVENTS and event != "subprocess.Popen" and _is_write(event, arguments, folder):
                counted += 1
                if counted >= first:
                    raise OSError(number, os.strerror(number), arguments[0])

        files._cleaned.clear()
        sys.stderr = report.open("w")
        ls.run = command  # type: ignore[assignment]
        sys.addaudithook(fail)
        return cli.main(["ls"])

    return os.waitstatus_to_exitcode(os.waitpid(fork(alone), 0)[1])
