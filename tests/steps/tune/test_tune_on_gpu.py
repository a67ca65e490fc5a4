"""Training on a CUDA device: same curve as on a CPU, precision, out-of-memory back-off, resume, measurement."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainable_model import curve
from tuning import losses, quick, start, wait_for_step, with_rows

from steps.models.model import prepare_libraries
from steps.tune import oom_backoff, rehearsal, training_config, unsupported_arguments
from steps.tune.settings import Settings, TrainingOptions
from steps.tune_bench.step import GPU_TYPES, OLD_GPU_TYPES

pytestmark = pytest.mark.gpu
FLOAT32: dict[str, Any] = {"dropout": 0.0, "model_config": {"torch_dtype": "float32"}}


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_loss_curve_is_that_of_a_cpu(
    tiny: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {**FLOAT32, "method": method, "max_steps": 8}
    words = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in flags.items()}
    gpu, cpu = with_rows(tmp_path / "gpu"), with_rows(tmp_path / "cpu")
    out, err = start(gpu, tiny, **words).communicate()
    assert "cuda (" in out, err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out, err = start(cpu, tiny, **words).communicate()
    assert "cpu (" in out, err
    assert losses(gpu) == pytest.approx(losses(cpu), abs=2e-2)


def test_packed_and_padded_batches_have_the_same_loss(tiny: Path, tmp_path: Path) -> None:
    free, padded = with_rows(tmp_path / "free"), with_rows(tmp_path / "padded")
    quick(free, tiny, **FLOAT32, training_arguments={"train_sampling_strategy": "random", "padding_free": True})
    quick(padded, tiny, **FLOAT32, training_arguments={"train_sampling_strategy": "random"})
    assert losses(free) == pytest.approx(losses(padded), abs=1e-2)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_each_precision_trains(tiny: Path, tmp_path: Path, precision: str) -> None:
    import torch

    if precision != "fp16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip(f"{precision} needs compute capability 8.0")
    quick(with_rows(tmp_path), tiny, dropout=0.0, training_arguments={precision: True})
    assert all(0 < line["memory_gib"] <= line["memory_reserved_gib"] for line in curve(tmp_path))
    assert len(losses(tmp_path)) == 4


def test_defaults_of_the_trainer_are_those_of_a_gpu(tmp_path: Path) -> None:
    import torch

    prepare_libraries()
    config = training_config.check(TrainingOptions(), ())
    arguments = training_config.trainer_config(config, tmp_path, "cuda", 8)
    is_bfloat16 = torch.cuda.get_device_capability() >= (8, 0)
    assert (arguments.bf16, arguments.fp16) == (is_bfloat16, not is_bfloat16)
    assert arguments.dataloader_pin_memory and not arguments.use_cpu


def test_settings_of_gpus_are_rehearsed_on_it() -> None:
    prepare_libraries()
    arguments = {"fp16": True, "optim": "paged_adamw_8bit", "activation_offloading": True}
    assert unsupported_arguments.requires_gpu(arguments, "cuda") == {}
    assert rehearsal.find_errors(TrainingOptions(training_arguments=arguments), "cuda") == []


def test_out_of_memory_turns_on_checkpointing(capsys: pytest.CaptureFixture[str]) -> None:
    """CUDA's own error, and the memory of the failed attempt is free for the next one."""
    import torch

    prepare_libraries()
    config = training_config.check(Settings(work=Path("work"), batch_size=4), ())
    attempts: list[Any] = []

    def train(attempt: training_config.TrainingConfig) -> str:
        attempts.append(attempt.arguments.get(oom_backoff.CHECKPOINTING))
        if len(attempts) == 1:
            torch.empty(torch.cuda.get_device_properties(0).total_memory, dtype=torch.float32, device="cuda")
        return "trained"

    assert oom_backoff.with_oom_backoff(config, "qlora", train) == "trained"
    assert attempts == [None, True]
    assert torch.cuda.memory_allocated() < 2**30
    assert "out of memory; retrying with gradient_checkpointing" in capsys.readouterr().out


def test_a_killed_training_resumes_on_the_gpu(tiny: Path, tmp_path: Path) -> None:
    undisturbed, killed = with_rows(tmp_path / "undisturbed"), with_rows(tmp_path / "killed")
    _, err = start(undisturbed, tiny, dropout=0.0).communicate()
    assert losses(undisturbed), err
    first = start(killed, tiny, dropout=0.0)
    wait_for_step(first, killed, 20)
    first.kill()
    first.communicate()
    out, err = start(killed, tiny, dropout=0.0).communicate()
    assert ", resuming from step " in out, err
    assert losses(killed) == pytest.approx(losses(undisturbed), abs=2e-2)


@pytest.mark.gpu(2)
def test_ranks_reduce_their_flags_over_nccl(tiny: Path, tmp_path: Path) -> None:
    """A budget ends both ranks after the same step."""
    stopped = start(with_rows(tmp_path), tiny, dropout=0.0, batch_size=2, processes=2, budget_hours=0.0001)
    _, err = stopped.communicate()
    assert stopped.returncode == 6, err


def test_the_types_of_a_gpu_are_measured(tiny: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "steps.tune_bench", f"--work={tmp_path}", f"--model={tiny}", "--seconds=1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results" / "tune_bench.json").read_text())["result"]
    assert result["device"].startswith("cuda (")
    assert tuple(speed["dtype"] for speed in result["speeds"]) in (GPU_TYPES, OLD_GPU_TYPES)
    assert all(speed["memory_gib"] > 0 for speed in result["speeds"])
