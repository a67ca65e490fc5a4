"""Evaluation, provision and dryrun with a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import trainable_model
from tuning import tuned

from steps.dryrun import step as dryrun
from steps.dryrun.settings import Settings as DryrunSettings
from steps.evaluate.settings import Settings as EvaluateSettings
from steps.evaluate.step import evaluate
from steps.provision.settings import Settings as ProvisionSettings
from steps.provision.step import provision

pytestmark = pytest.mark.gpu


def test_adapter_and_base_are_evaluated(tmp_path: Path) -> None:
    model = trainable_model.make_model(tmp_path / "model")
    work = tuned(tmp_path / "work", model, trainable_model.chat_rows(60)[50:])
    result = evaluate(EvaluateSettings(work=work, model=str(model), max_length=128, max_new_tokens=24))
    assert result.adapter_loss < result.base_loss
    assert result.verdict == "pass"


def test_the_run_is_planned_for_the_gpu(tmp_path: Path) -> None:
    assert provision(ProvisionSettings(work=tmp_path)).device == "cuda"
    assert dryrun._device(DryrunSettings(work=tmp_path)) == "cuda"
