"""Tune and evaluate with a separate dataset folder give the same adapter as with the default folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import trainable_model
from tuning import quick, settings, small_model, with_rows

from steps.check import step as check
from steps.evaluate.settings import Settings as EvaluateSettings
from steps.evaluate.step import evaluate
from steps.runtime.errors import BadInput
from steps.tune.step import outputs_intact


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("base")


def test_other_dataset_folder_gives_the_same_adapter_and_evaluation(base: Path) -> None:
    model, shared = small_model(base), with_rows(base / "shared", 20)
    trainable_model.write_rows(shared / "dataset" / "eval.parquet", trainable_model.chat_rows(25)[20:])
    apart = base / "shared" / "candidates" / "a"
    default, elsewhere = quick(shared, model), quick(apart, model, dataset=shared / "dataset")
    assert elsewhere.adapter_digest == default.adapter_digest
    assert outputs_intact(settings(apart, model), elsewhere)
    results = [
        evaluate(EvaluateSettings(work=work, dataset=shared / "dataset", model=str(model), samples=0))
        for work in (shared, apart)
    ]
    assert results[0] == results[1]
    assert (apart / "report" / "evaluation.json").is_file()
    assert not (apart / "dataset").exists()


def test_missing_rows_are_reported_with_their_path(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"elsewhere/train\.parquet"):
        quick(tmp_path, tmp_path, dataset=tmp_path / "elsewhere")


def test_dataset_path_does_not_change_the_adapter(tmp_path: Path) -> None:
    digests = {
        check.compute_settings_digest(check.Settings(work=tmp_path, preset="phi-4", dataset=dataset))
        for dataset in (None, tmp_path / "a")
    }
    assert len(digests) == 1
