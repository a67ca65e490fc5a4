"""Progress of a step in a pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from steps.runtime import progress
from steps.tune.checkpoints import Checkpoint


def test_progress_in_a_pod_is_in_percent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Argo adds the units of all pods: bytes of a download would hide the steps of a training."""
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "progress"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    for done, total, text in ((0, 7, "0/100"), (1_999, 2_000, "99/100"), (8, 7, "100/100"), (3, 10**12, "0/100")):
        progress.report(done, total)
        assert (tmp_path / "progress").read_text() == f"{text}\n"


def test_a_resumed_training_begins_at_its_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "progress"))
    checkpoint = Checkpoint(tmp_path, 30, False)
    checkpoint.report_progress()
    assert not (tmp_path / "progress").exists(), "a damaged checkpoint is reported elsewhere"
    (tmp_path / "trainer_state.json").write_text('{"max_steps": 40}')
    checkpoint.report_progress()
    assert (tmp_path / "progress").read_text() == "30/40\n"
