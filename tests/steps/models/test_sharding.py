"""Training with a sharded base equals training in one process; with real processes and gloo."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import sharded_worker
import trainable_model
from trainable_model import curve
from tuning import losses, quick, small_model, start, wait_for_step, with_rows

from steps.models import sharding
from steps.models.adapter import CONFIG, WEIGHTS
from steps.runtime.errors import BadInput, InsufficientCapacity
from steps.tune import launcher
from steps.tune import step as tune
from steps.tune.layout import Layout

# In float32 and without dropout, one process and two differ only in the order of sums.
PLAIN: dict[str, Any] = {"dropout": 0.0, "max_steps": -1, "model_config": {"torch_dtype": "float32"}}
TOGETHER = {
    **PLAIN,
    "processes": 2,
    "sharding": "full",
    "batch_size": 2,
    "model_config": json.dumps(PLAIN["model_config"]),
}
STEPS = 54
EXACT = ("loss", "grad_norm", "learning_rate")


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.getbasetemp())


def adapter(work: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(work / "adapter" / WEIGHTS)


def assert_same(together: Path, alone: Path, tolerance: float = 1e-5) -> None:
    """Check that loss curves, gradient norms and adapters are equal."""
    for key in EXACT:
        assert [line[key] for line in curve(together)] == pytest.approx(
            [line[key] for line in curve(alone)], abs=tolerance, rel=100 * tolerance
        ), key
    sharded, expected = adapter(together), adapter(alone)
    assert sharded.keys() == expected.keys()
    for name, weight in sharded.items():
        assert weight.shape == expected[name].shape
        assert float((weight - expected[name]).abs().max()) < 100 * tolerance, name
    assert (together / "adapter" / CONFIG).read_text() == (alone / "adapter" / CONFIG).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_sharded_training_resumes_and_equals_one_process(method: str, tiny: Path, tmp_path: Path) -> None:
    """Two sharded processes are killed, stopped and killed again; one unsharded process completes the training."""
    alone, together = with_rows(tmp_path / "alone"), with_rows(tmp_path / "together")
    quick(alone, tiny, **PLAIN, method=method)
    assert len(losses(alone)) == STEPS

    killed = start(together, tiny, **TOGETHER, method=method)
    wait_for_step(killed, together, 14)
    killed.kill()
    out, err = killed.communicate()
    assert out.count("batch size 4, cpu (2 processes, 1 threads), sharded base weights\n") == 1, err

    stopped = start(together, tiny, **TOGETHER, method=method)
    # In the second epoch, which has another order of rows.
    wait_for_step(stopped, together, 24)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate()
    assert stopped.returncode == 143, err
    assert ", resuming from step " in out
    saved = len(curve(together))
    assert 22 < saved < STEPS
    # The checkpoint contains adapter and optimizer, but not the base.
    checkpoint = together / "checkpoints" / f"checkpoint-{saved}"
    assert (checkpoint / "optimizer.pt").exists() and (checkpoint / WEIGHTS).exists()
    assert not [file for file in checkpoint.iterdir() if file.name.startswith(("fsdp", "pytorch_model"))]

    again = start(together, tiny, **TOGETHER, method=method)
    wait_for_step(again, together, 36)
    again.kill()
    again.communicate()
    quick(together, tiny, **PLAIN, method=method)
    assert_same(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"gradient_checkpointing": True, "max_grad_norm": 0.05},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1},
    ],
    ids=["checkpointing and clipping", "gradient accumulation"],
)
def test_training_arguments(more: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    alone, together = with_rows(tmp_path / "alone"), with_rows(tmp_path / "together")
    arguments = {key: value for key, value in more.items() if key != "per_device_train_batch_size"}
    unsharded = {key: value for key, value in arguments.items() if "steps" not in key}
    quick(alone, tiny, **PLAIN | {"max_steps": 12, "training_arguments": unsharded})
    flags = {"batch_size": more.get("per_device_train_batch_size", 2), "training_arguments": arguments}
    quick(together, tiny, **PLAIN | {"max_steps": 12} | flags, processes=2, sharding="full")
    assert_same(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{"use_dora": True}, {"init_lora_weights": "pissa"}], ids=["dora", "pissa"])
def test_adapter_variants(lora: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    alone, together = with_rows(tmp_path / "alone"), with_rows(tmp_path / "together")
    flags = {**PLAIN, "max_steps": 6, "lora_config": lora}
    quick(alone, tiny, **flags)
    quick(together, tiny, **{**flags, "batch_size": 2}, processes=2, sharding="full")
    assert_same(together, alone, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "tied"), [("lora", True), ("qlora", False)])
def test_each_rank_holds_a_shard(method: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two processes has half of the layers' weights; tied embeddings are replicated."""
    directory = str(Path(sharded_worker.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [directory, os.environ.get("PYTHONPATH", "")])))
    model = trainable_model.make_model(tmp_path / "model", tie_word_embeddings=tied)
    settings = sharded_worker.Settings(work=tmp_path, model=str(model), method=method)
    result = launcher.run("sharded_worker", settings, Layout(2), sharded_worker.Result)
    assert result.layers * 2 == pytest.approx(result.all_layers, rel=0.05)
    assert result.embeddings * (1 if tied else 2) == pytest.approx(result.all_embeddings, rel=0.05)
    assert result.adapter == result.all_adapter
    assert result.loss == pytest.approx(result.unsharded_loss, abs=1e-5)


@pytest.mark.slow
def test_a_model_too_large_for_a_gpu_is_sharded(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = launcher.run

    def fails_unsharded(worker: str, settings: tune.Settings, *more: Any, **options: Any) -> Any:
        if settings.sharding == "none":
            raise InsufficientCapacity("out of memory with a per-device batch size of 1")
        return run(worker, settings, *more, **options)

    alone, together = with_rows(tmp_path / "alone"), with_rows(tmp_path / "together")
    flags = {**PLAIN, "max_steps": 4}
    quick(alone, tiny, **flags)
    monkeypatch.setattr(launcher, "count", lambda *_: 2)
    monkeypatch.setattr(launcher, "run", fails_unsharded)
    quick(together, tiny, **{**flags, "batch_size": 2})
    assert "sharding its weights among 2 processes (same training steps)\n" in capsys.readouterr().out
    assert_same(together, alone)
    with pytest.raises(InsufficientCapacity):
        quick(with_rows(tmp_path / "whole"), tiny, **flags, processes=2, sharding="none")


@pytest.mark.parametrize(
    ("requested", "shardable", "expected"),
    [
        ("auto", True, ["none", "full"]),
        ("auto", False, ["none"]),
        ("none", True, ["none"]),
        ("full", True, ["full"]),
    ],
)
def test_strategies(requested: sharding.Sharding, shardable: bool, expected: list[str]) -> None:
    assert sharding.strategies(requested, shardable=shardable) == expected


def test_8_bit_weights_cannot_be_sharded(tiny: Path, tmp_path: Path) -> None:
    eight = {"load_in_8bit": True, "load_in_4bit": False}
    assert not sharding.can_shard(eight) and sharding.can_shard({"load_in_8bit": "false"})
    with pytest.raises(BadInput, match="sharding full: FSDP shards 4-bit and 16-bit weights, but not load_in_8bit"):
        quick(with_rows(tmp_path / "work"), tiny, sharding="full", processes=1, quantization_config=eight)


@pytest.mark.gpu(2)
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_two_gpus_shard_a_model(method: str, tmp_path: Path) -> None:
    """With GPU settings (bfloat16, NCCL), sharding gives the loss curve of replicas in less memory."""
    # Layers have 50 MB in bfloat16; the rest is small.
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 8}
    model = trainable_model.make_model(tmp_path / "model", **sizes, initializer_range=0.02)
    lines = {}
    for strategy in ("none", "full"):
        work = with_rows(tmp_path / strategy)
        flags = {"method": method, "dropout": 0.0, "batch_size": 2, "max_steps": 8, "learning_rate": 1e-3}
        out, err = start(work, model, **flags, processes=2, sharding=strategy).communicate()
        assert "batch size 4, cuda (2 x " in out, err
        lines[strategy] = curve(work)
    replicated, sharded = lines["none"], lines["full"]
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in sharded] == pytest.approx([line[key] for line in replicated], abs=2e-2, rel=2e-2)
    weights = {"lora": 0.8, "qlora": 0.2}[method]
    memory = max(line["memory_gib"] for line in replicated)
    assert max(line["memory_gib"] for line in sharded) < memory - 0.2 * weights


@pytest.mark.gpu(2)
def test_two_gpus_resume_a_sharded_training(tiny: Path, tmp_path: Path) -> None:
    flags = {"dropout": 0.0, "batch_size": 2, "processes": 2, "sharding": "full"}
    undisturbed, killed = with_rows(tmp_path / "undisturbed"), with_rows(tmp_path / "killed")
    out, err = start(undisturbed, tiny, **flags).communicate()
    assert len(losses(undisturbed)) == STEPS, err
    first = start(killed, tiny, **flags)
    wait_for_step(first, killed, 20)
    first.kill()
    first.communicate()
    out, err = start(killed, tiny, **flags).communicate()
    assert ", resuming from step " in out, err
    assert losses(killed) == pytest.approx(losses(undisturbed), abs=2e-2)
