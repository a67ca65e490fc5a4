"""Each Workspace of ``tests/data/cases/training_arguments`` is rejected with field and fix, or trained as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trainable_model

from steps.dryrun.step import dryrun
from steps.runtime.errors import BadInput
from steps.tune.step import tune
from workflows.compile import settings
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.plan.model import Plan

CASES = Path(__file__).parent / "data" / "cases" / "training_arguments"
BY_VALIDATE = {
    "apollo": "optim",
    "bothbf": "fp16",
    "epochs0": "num_train_epochs",
    "galore": "optim",
    "list": "report_to",
    "lrneg": "learning_rate",
    "neg-steps": "max_steps",
    "optim-bad": "optim",
    "save0": "save_steps",
    "sched-bad": "lr_scheduler_type",
    "schedulefree": "optim",
    "tb": "report_to",
    "zero-batch": "per_device_train_batch_size",
}
"""Rejected when the file is read: the key."""
BY_LIBRARY = {"eos": "eos_token", "minlr": "lr_scheduler_type", "pad": "pad_token"}
"""Rejected by the dry run, on each device."""
ON_A_CPU = {"fp16": "fp16", "offload": "activation_offloading", "tf32": "tf32"}
"""Rejected by the dry run if there is no GPU."""
TRAINED = (
    "adafactor", "ademamix", "bnb8", "fused", "gckw", "labelsm", "liger", "lion", "lossdft", "lrstr", "neftune",
    "packing", "paged", "paged8", "workers",
)  # fmt: skip


@pytest.fixture(autouse=True)
def outside_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(trainable_model.make_model(tmp_path_factory.mktemp("model")))


def plan(name: str) -> Plan:
    [loaded] = load_plans(str(CASES / f"{name}.yaml"))
    return loaded


def test_every_case_has_an_expectation() -> None:
    expected = [*BY_VALIDATE, *BY_LIBRARY, *ON_A_CPU, *TRAINED, "seqlen"]
    assert sorted(expected) == sorted(file.stem for file in CASES.glob("*.yaml"))


@pytest.mark.parametrize(("name", "key"), BY_VALIDATE.items())
def test_rejected_by_validate_with_line_field_and_fix(name: str, key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(name)
    [problem] = caught.value.problems
    assert problem.path == f"training_config.TrainingArguments.{key}"
    assert problem.line and problem.fix


def test_rows_that_no_gpu_memory_holds_are_rejected() -> None:
    with pytest.raises(InvalidInput, match=r"tuning needs .* GiB of GPU memory(.|\n)*max_length"):
        plan("seqlen")


@pytest.mark.parametrize(("name", "key"), [*BY_LIBRARY.items(), *ON_A_CPU.items()])
def test_rejected_by_the_dry_run(name: str, key: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = settings.dryrun(plan(name)).model_copy(update={"model": model})
    with pytest.raises(BadInput, match=rf"^training_arguments\.{key}: ") as caught:
        dryrun(checked)
    assert caught.value.fix
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    if name in ON_A_CPU:
        assert "cuda" in dryrun(checked).summary  # the A10 of the Workspace
    else:
        with pytest.raises(BadInput, match=key):
            dryrun(checked)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_as_written(name: str, model: str, tmp_path: Path) -> None:
    compiled = settings.tune(plan(name)).model_copy(update={"model": model, "work": tmp_path})
    trainable_model.write_rows(tmp_path / "dataset" / "train.parquet", trainable_model.chat_rows(8))
    assert tune(compiled.model_copy(update={"max_length": 64})).steps == 2
    assert len(trainable_model.curve(tmp_path)) == 2
    used = vars(_training_arguments(tmp_path / "checkpoints" / "checkpoint-2"))
    for key, value in compiled.training_arguments.items():
        if key != "use_liger_kernel":  # without effect on a CPU, as the log says
            assert getattr(used[key], "value", used[key]) == value


def _training_arguments(checkpoint: Path) -> Any:
    import torch

    return torch.load(checkpoint / "training_args.bin", weights_only=False)
