"""The launcher fails with the error and exit code of the first rank that fails, and leaves no process behind."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import light_worker
import psutil
import pytest
from light_worker import Result, Settings

from steps.runtime import errors, machine
from steps.runtime.errors import BadInput, StepError
from steps.tune import launcher
from steps.tune.layout import Layout

GIB = 80.0


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = str(Path(light_worker.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [directory, os.environ.get("PYTHONPATH", "")])))


def run(work: Path, *actions: str) -> Result:
    return launcher.run("light_worker", Settings(work=work, actions=list(actions)), Layout(len(actions)), Result)


def all_exited(work: Path) -> bool:
    def is_running(process: int) -> bool:
        try:
            return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(is_running(int(file.read_text())) for file in work.glob("*.pid"))


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_result_is_that_of_rank_zero(tmp_path: Path) -> None:
    assert run(tmp_path, "return", "return", "return") == Result(oom_retries=0, from_rank=0)
    assert len(list(tmp_path.glob("0-*.pid"))) == 3


@pytest.mark.parametrize(
    ("actions", "kind", "message"),
    [
        (["wait", "bad input"], BadInput, "the loss is not finite"),
        (["bad input", "wait"], BadInput, "the loss is not finite"),
        (
            ["lose connection", "be killed"],
            StepError,
            "rank 1 of 2 was killed by SIGKILL (possibly out of memory)",
        ),
        (["wait", "abort"], StepError, "rank 1 of 2 was killed by SIGABRT: watchdog: a collective took too long"),
        (["wait", "exit"], StepError, "rank 1 of 2 exited with code 7"),
        (["lose connection", "wait"], StepError, "unexpected RuntimeError at light_worker.py:"),
    ],
)
def test_it_fails_with_the_root_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actions: list[str], kind: type[StepError], message: str
) -> None:
    # Short only where no root cause follows.
    monkeypatch.setattr(launcher, "ROOT_CAUSE_TIMEOUT_SECONDS", 1 if actions == ["lose connection", "wait"] else 120)
    with pytest.raises(StepError) as caught:
        run(tmp_path, *actions)
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert caught.value.fix
    assert all_exited(tmp_path)


def test_all_ranks_restart_if_one_is_out_of_memory(tmp_path: Path) -> None:
    assert run(tmp_path, "return", "run out of memory").oom_retries == 2
    assert sorted(file.stem for file in tmp_path.glob("*.pid")) == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]


PARENT = """
import sys
from pathlib import Path
from light_worker import Result, Settings
from steps.runtime import entrypoint
from steps.tune import launcher
from steps.tune.layout import Layout
run = lambda settings: launcher.run("light_worker", settings, Layout(len(settings.actions)), Result)
sys.argv = ["light", "--work", sys.argv[1], "--actions", sys.argv[2]]
entrypoint.main(Settings, run)
"""


def start(work: Path, actions: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PARENT, str(work), actions]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list(work.glob("*.pid"))) == 2 or parent.poll() is not None)
    return parent


def test_sigterm_is_forwarded(tmp_path: Path) -> None:
    parent = start(tmp_path, '["wait", "wait"]')
    parent.terminate()
    out, err = parent.communicate()
    assert parent.returncode == 143, err
    assert (out, err) == ("", "")
    assert all_exited(tmp_path)


def test_no_rank_outlives_a_killed_launcher(tmp_path: Path) -> None:
    parent = start(tmp_path, '["wait", "wait"]')
    parent.kill()
    parent.communicate()
    wait_until(lambda: all_exited(tmp_path))


def test_a_failure_is_reported_once(tmp_path: Path) -> None:
    parent = start(tmp_path, '["bad input", "bad input"]')
    out, err = parent.communicate()
    assert parent.returncode == errors.BadInput.exit_code
    assert (out, err) == ("", "error: the loss is not finite\n  fix: lower the learning rate\n")


@pytest.mark.parametrize(("requested", "gpus", "cuda", "count"), [
    (0, 4, True, 4), (0, 0, True, 1), (0, 2, False, 1), (2, 4, True, 2), (1, 4, True, 1), (3, 0, False, 3),
])  # fmt: skip
def test_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requested: int, gpus: int, cuda: bool, count: int
) -> None:
    monkeypatch.setattr(machine, "_gpus", lambda: (machine.Gpu("A100", GIB),) * gpus)
    monkeypatch.setattr(machine, "is_torch_built_with_cuda", lambda: cuda)
    assert launcher.count(requested, tmp_path) == count


def test_more_processes_than_gpus_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_gpus", lambda: (machine.Gpu("A100", GIB),) * 2)
    monkeypatch.setattr(machine, "is_torch_built_with_cuda", lambda: True)
    with pytest.raises(BadInput, match=r"processes=4 exceeds the number of GPUs \(2\)"):
        launcher.count(4, tmp_path)
