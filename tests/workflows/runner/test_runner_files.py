"""Files of a run: who can read them, and what happens where they cannot be written."""

from __future__ import annotations

import errno
import os
import stat
import time
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
    started = time.monotonic()
    outcome = runner.start(document(), tmp_path / "run", name="x")
    assert time.monotonic() - started < 20
    assert len(outcome.nodes["a"].attempts) == 1
    assert f"could not start: {os.strerror(number)}: /runs/x/attempt-1" in outcome.message


def test_a_directory_that_cannot_be_written_is_reported_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written: Not a directory"):
        runner.start(document(), tmp_path / "file" / "run", name="x", timing=QUICK)
