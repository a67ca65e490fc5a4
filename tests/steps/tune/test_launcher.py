"""Several processes end as one: in the words of the one that failed, with its exit code, and with nobody left."""

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

GIB = 80.0


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(light_worker.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])))


def run(work: Path, *fates: str) -> Result:
    return launcher.run("light_worker", Settings(work=work, fates=list(fates)), len(fates), Result)


def nobody_is_left(work: Path) -> bool:
    def runs(process: int) -> bool:
        try:
            return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(runs(int(file.read_text())) for file in work.glob("*.pid"))


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_result_is_that_of_the_first(tmp_path: Path) -> None:
    assert run(tmp_path, "ends", "ends", "ends") == Result(oom_retries=0, told="by 0")
    assert len(list(tmp_path.glob("0-*.pid"))) == 3


@pytest.mark.parametrize(
    ("fates", "kind", "told"),
    [
        (["waits", "bad input"], BadInput, "the loss is not a number"),
        (["bad input", "waits"], BadInput, "the loss is not a number"),
        (["loses another", "is killed"], StepError, "process 2 of 2 was killed"),
        (["waits", "aborts"], StepError, "ended by signal 6: watchdog: a collective took too long"),
        (["loses another", "waits"], StepError, "unexpected RuntimeError at light_worker.py:"),
    ],
)
def test_it_fails_as_the_first_cause_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fates: list[str], kind: type[StepError], told: str
) -> None:
    monkeypatch.setattr(launcher, "DOUBT_SECONDS", 1.5)
    with pytest.raises(StepError) as caught:
        run(tmp_path, *fates)
    assert type(caught.value) is kind
    assert told in caught.value.message
    assert caught.value.fix
    assert nobody_is_left(tmp_path)


def test_all_begin_anew_with_less_when_one_is_short_of_memory(tmp_path: Path) -> None:
    assert run(tmp_path, "ends", "is short of memory").oom_retries == 2
    assert sorted(file.stem for file in tmp_path.glob("*.pid")) == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]


PARENT = """
import sys
from pathlib import Path
from light_worker import Result, Settings
from steps.runtime import entrypoint
from steps.tune import launcher
run = lambda given: launcher.run("light_worker", given, len(given.fates), Result)
sys.argv = ["light", "--work", sys.argv[1], "--fates", sys.argv[2]]
entrypoint.main(Settings, run)
"""


def start(work: Path, fates: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PARENT, str(work), fates]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list(work.glob("*.pid"))) == 2 or parent.poll() is not None)
    return parent


def test_sigterm_is_handed_on(tmp_path: Path) -> None:
    parent = start(tmp_path, '["waits", "waits"]')
    parent.terminate()
    out, err = parent.communicate()
    assert parent.returncode == 143, err
    assert (out, err) == ("", "")
    assert nobody_is_left(tmp_path)


def test_nobody_outlives_a_step_that_is_killed(tmp_path: Path) -> None:
    parent = start(tmp_path, '["waits", "waits"]')
    parent.kill()
    parent.communicate()
    wait_until(lambda: nobody_is_left(tmp_path))


def test_a_failure_is_told_once(tmp_path: Path) -> None:
    parent = start(tmp_path, '["bad input", "bad input"]')
    out, err = parent.communicate()
    assert parent.returncode == errors.BadInput.exit_code
    assert (out, err) == ("", "error: the loss is not a number\n  fix: lower it\n")


@pytest.mark.parametrize(("wanted", "gpus", "cuda", "count"), [
    (0, 4, True, 4), (0, 0, True, 1), (0, 2, False, 1), (2, 4, True, 2), (1, 4, True, 1), (3, 0, False, 3),
])  # fmt: skip
def test_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int, gpus: int, cuda: bool, count: int
) -> None:
    monkeypatch.setattr(machine, "_gpus", lambda: (machine.Gpu("A100", GIB),) * gpus)
    monkeypatch.setattr(machine, "is_torch_built_with_cuda", lambda: cuda)
    assert launcher.count(wanted, tmp_path) == count


def test_more_processes_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_gpus", lambda: (machine.Gpu("A100", GIB),) * 2)
    monkeypatch.setattr(machine, "is_torch_built_with_cuda", lambda: True)
    with pytest.raises(BadInput, match="4 processes are wanted, and there are 2 GPUs"):
        launcher.count(4, tmp_path)
