"""Dry run of a training: what a library rejects is reported with field and fix, before anything is downloaded."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuning import small_model

from steps.dryrun.settings import Settings
from steps.dryrun.step import dryrun
from steps.runtime.errors import BadInput


@pytest.fixture(autouse=True)
def outside_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture(autouse=True)
def determinism() -> Iterator[None]:
    """Undo ``full_determinism``, which is a setting of the process."""
    import torch

    yield
    torch.use_deterministic_algorithms(False)


def run(**values: Any) -> str:
    return dryrun(Settings(work=Path(), **values)).summary


def arguments(**values: Any) -> dict[str, Any]:
    return {"training_arguments": values}


def error_of(**values: Any) -> BadInput:
    with pytest.raises(BadInput) as caught:
        run(**values)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    "values",
    [
        {},
        arguments(bf16=False),
        arguments(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.1}),
        arguments(optim="adamw_8bit"),
        arguments(optim_args="alpha=4", optim="ademamix"),
        arguments(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}),
        arguments(warmup_steps=0.5, save_strategy="epoch", packing=True),
        arguments(full_determinism=True, neftune_noise_alpha=5),
        {"lora_config": {"use_dora": True, "layers_to_transform": [3, 4], "modules_to_save": ["lm_head"]}},
        {"method": "lora", "target_modules": ["qkv_proj"], "max_steps": 7, "rank": 64},
        {"objective": "dpo", "training_arguments": {"optim": "sgd"}},
        {"quantization_config": {"load_in_8bit": True}},
    ],
    ids=range(12),
)
def test_settings_that_the_libraries_accept(values: dict[str, Any]) -> None:
    assert "accept" in run(**values)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        (arguments(lr_scheduler_type="warmup_stable_decay"), "lr_scheduler_type", "num_decay_steps"),
        (arguments(lr_scheduler_kwargs={"bogus": 1}), "lr_scheduler_kwargs", "bogus"),
        (
            arguments(lr_scheduler_type="constant", lr_scheduler_kwargs={"min_lr": 1}),
            "lr_scheduler_kwargs",
            "has no effect",
        ),
        (arguments(optim_args="bogus=1"), "optim_args", "has no effect"),
        (arguments(optim="sgd", optim_args="bogus"), "optim_args", ""),
        (arguments(optim="galore_adamw"), "optim", "not installed"),
        (arguments(optim="nothing"), "optim", "nothing"),
        (
            arguments(gradient_checkpointing=True, gradient_checkpointing_kwargs={"bogus": 1}),
            "gradient_checkpointing_kwargs",
            "bogus",
        ),
        (arguments(loss_type="nothing"), "loss_type", "nothing"),
        (arguments(dataloader_num_workers=-1), "dataloader_num_workers", ""),
        (arguments(save_steps=0.3, adam_beta1=2.0), "adam_beta1", "beta"),
        (arguments(fp16=True), "fp16", "GPU"),
        (arguments(tf32=True), "tf32", "GPU"),
        (arguments(activation_offloading=True), "activation_offloading", "GPU"),
    ],
    ids=range(14),
)
def test_what_a_library_rejects_is_an_error_of_its_field(values: dict[str, Any], field: str, words: str) -> None:
    error = error_of(**values)
    assert error.message.startswith(f"training_arguments.{field}: ")
    assert words in error.message and len(error.message) < 400
    assert error.exit_code == 2


@pytest.mark.parametrize("key", ["fp16", "tf32", "activation_offloading"])
def test_a_pod_checks_for_the_gpu_of_the_plan(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert "cuda" in run(gpus=1, **arguments(**{key: True}))
    assert key in error_of(gpus=0, **arguments(**{key: True})).message


def test_all_errors_are_reported_at_once() -> None:
    error = error_of(
        quantization_config={"bnb_4bit_compute_dtype": "float99"},
        lora_config={"layers_pattern": "h"},
        training_arguments={"optim": "galore_adamw", "fp16": True, "lr_scheduler_kwargs": {"bogus": 1}},
    )
    for field in (
        "quantization_config.bnb_4bit_compute_dtype",
        "lora_config.layers_pattern",
        "training_arguments.optim",
        "training_arguments.fp16",
        "training_arguments.lr_scheduler_kwargs",
    ):
        assert f"{field}: " in error.message


@pytest.mark.parametrize("key", ["eos_token", "pad_token"])
def test_tokens_must_be_in_the_vocabulary(key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = str(small_model(tmp_path_factory.getbasetemp()))
    assert "accept" in run(model=model, **arguments(**{key: "<|im_end|>"}))
    error = error_of(model=model, **arguments(**{key: "<|eot_id|>"}))
    assert error.message == f"training_arguments.{key}: the base model's tokenizer has no token '<|eot_id|>'"


def test_tokens_are_not_checked_without_a_hub(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "accept" in run(model="owner/nothing", **arguments(eos_token="</s>"))
    assert "were not checked" in capsys.readouterr().out


def test_the_exit_code_is_that_of_bad_input(tmp_path: Path) -> None:
    flags = ["--work", str(tmp_path), "--training-arguments", json.dumps({"optim": "galore_adamw"})]
    done = subprocess.run([sys.executable, "-m", "steps.dryrun", *flags], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "error: training_arguments.optim: " in done.stderr and "fix: " in done.stderr
    assert "Traceback" not in done.stderr
