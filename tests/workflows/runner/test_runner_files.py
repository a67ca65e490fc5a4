"""Files of a run: who can read them, and what happens where they cannot be written."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from runner_documents import PRINT, QUICK, dag, leaf, task, workflow

from workflows import runner
from workflows.errors import InvalidInput
from workflows.runner import pod_runner


def document() -> dict[str, Any]:
    retry = {"limit": 3, "retryPolicy": "Always", "backoff": {"duration": "60"}}
    return workflow(dag(task("a")), leaf("a", PRINT, "x", retryStrategy=retry))


def with_claim() -> dict[str, Any]:
    claim = {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
    return workflow(dag(task("a")), leaf("a", PRINT, "x"), volumes=[claim])


def test_only_the_owner_can_read_document_and_state(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        runner.start(document(), tmp_path / "run", name="x", timing=QUICK)
    finally:
        os.umask(old)
    for name in ("workflow.json", "state.json"):
        assert stat.S_IMODE((tmp_path / "run" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.E2BIG])
def test_errors_of_the_disk_are_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def prepare(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "/runs/x/attempt-1")

    monkeypatch.setattr(pod_runner, "prepare", prepare)
    outcome = runner.start(document(), tmp_path / "run", name="x", timing=QUICK)
    assert len(outcome.nodes["a"].attempts) == 1
    assert f"could not start: {os.strerror(number)}: /runs/x/attempt-1" in outcome.message


def test_directories_that_cannot_be_written_are_reported_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(InvalidInput) as caught:
        runner.start(with_claim(), tmp_path / "file" / "run", name="x", timing=QUICK)
    assert [(problem.path, problem.message.partition(":")[0]) for problem in caught.value.problems] == [
        (str(tmp_path / "file" / "run"), "cannot be written"),
        (str(tmp_path / "file" / "home"), "cannot be written"),
        ("", "no directory for temporary files"),
    ]
    assert all(problem.fix for problem in caught.value.problems)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_home_is_reported_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARGOTUNE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/sys")  # no user can create files there
    with pytest.raises(InvalidInput, match=r"/proc/sys/.argotune: cannot be written: .*\n +fix: set ARGOTUNE_HOME"):
        runner.start(with_claim(), tmp_path / "run", name="x", timing=QUICK)
    runner.start(with_claim(), tmp_path / "run", name="x", timing=QUICK, volumes={"models": tmp_path})


def test_a_full_disk_is_reported_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InvalidInput, match=r"run: cannot be written: No space left on device"):
        runner.start(document(), tmp_path / "run", name="x", timing=QUICK)
    assert not list(tmp_path.iterdir())
