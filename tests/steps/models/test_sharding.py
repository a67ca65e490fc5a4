"""Processes that each hold a share of the base train as one does that holds all of it; real processes, over gloo."""

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

# In float32, and without dropout: then nothing but the order of sums tells one process from two.
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
    """One curve, to the gradient, and one adapter: PEFT's names and shapes, and the same weights."""
    for key in EXACT:
        assert [line[key] for line in curve(together)] == pytest.approx(
            [line[key] for line in curve(alone)], abs=tolerance, rel=100 * tolerance
        ), key
    ours, other = adapter(together), adapter(alone)
    assert ours.keys() == other.keys()
    for name, weight in ours.items():
        assert weight.shape == other[name].shape
        assert float((weight - other[name]).abs().max()) < 100 * tolerance, name
    assert (together / "adapter" / CONFIG).read_text() == (alone / "adapter" / CONFIG).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_it_trains_as_one_does_whatever_happens(method: str, tiny: Path, tmp_path: Path) -> None:
    """One process that holds all, against two that divide it: killed, stopped, then one process that goes on."""
    alone, together = with_rows(tmp_path / "alone"), with_rows(tmp_path / "together")
    quick(alone, tiny, **PLAIN, method=method)
    assert len(losses(alone)) == STEPS

    killed = start(together, tiny, **TOGETHER, method=method)
    wait_for_step(killed, together, 14)
    killed.kill()
    out, err = killed.communicate()
    assert out.count("4 a step, cpu (2 processes, 1 threads), each with a share of the weights\n") == 1, err

    stopped = start(together, tiny, **TOGETHER, method=method)
    # In the second epoch, whose order is another.
    wait_for_step(stopped, together, 24)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate()
    assert stopped.returncode == 143, err
    assert ", going on from step " in out
    saved = len(curve(together))
    assert 22 < saved < STEPS
    # A checkpoint is that of any training: adapter, optimizer, no base.
    kept = together / "checkpoints" / f"checkpoint-{saved}"
    assert (kept / "optimizer.pt").exists() and (kept / WEIGHTS).exists()
    assert not [file for file in kept.iterdir() if "fsdp" in file.name or file.name.startswith("pytorch_model")]

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
    ids=["recomputed and clipped", "in pieces"],
)
def test_ways_to_train(more: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    alone, together = with_rows(tmp_path / "alone"), with_rows(tmp_path / "together")
    pieces = more.pop("per_device_train_batch_size", 2)
    flags = {**PLAIN, "max_steps": 12, "training_arguments": {k: v for k, v in more.items() if "steps" not in k}}
    quick(alone, tiny, **flags)
    quick(
        together,
        tiny,
        **{**flags, "training_arguments": more, "batch_size": pieces},
        processes=2,
        sharding="full",
    )
    assert_same(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{"use_dora": True}, {"init_lora_weights": "pissa"}], ids=["dora", "pissa"])
def test_kinds_of_adapters(lora: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    alone, together = with_rows(tmp_path / "alone"), with_rows(tmp_path / "together")
    flags = {**PLAIN, "max_steps": 6, "lora_config": lora}
    quick(alone, tiny, **flags)
    quick(together, tiny, **{**flags, "batch_size": 2}, processes=2, sharding="full")
    assert_same(together, alone, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "tied"), [("lora", True), ("qlora", False)])
def test_each_holds_its_share(method: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes each has half of the layers' weights; a matrix that is input and output is whole."""
    here = str(Path(sharded_worker.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])))
    model = trainable_model.make_model(tmp_path / "model", tie_word_embeddings=tied)
    given = sharded_worker.Settings(work=tmp_path, model=str(model), method=method)
    held = launcher.run("sharded_worker", given, 2, sharded_worker.Result)
    assert held.layers * 2 == pytest.approx(held.all_layers, rel=0.05)
    assert held.words * (1 if tied else 2) == pytest.approx(held.all_words, rel=0.05)
    assert held.adapter == held.all_adapter
    assert held.loss == pytest.approx(held.loss_of_whole, abs=1e-5)


@pytest.mark.slow
def test_what_a_gpu_cannot_hold_is_divided(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = launcher.run

    def too_large_as_a_whole(worker: str, given: tune.Settings, *more: Any) -> Any:
        if given.sharding == "none":
            raise InsufficientCapacity(
                "the device's memory is too small for this training, even with one row at a time"
            )
        return run(worker, given, *more)

    alone, together = with_rows(tmp_path / "alone"), with_rows(tmp_path / "together")
    flags = {**PLAIN, "max_steps": 4}
    quick(alone, tiny, **flags)
    monkeypatch.setattr(tune.launcher, "count", lambda *_: 2)
    monkeypatch.setattr(tune.launcher, "run", too_large_as_a_whole)
    quick(together, tiny, **{**flags, "batch_size": 2})
    assert "going on with its weights divided among 2 processes: the same steps\n" in capsys.readouterr().out
    assert_same(together, alone)
    with pytest.raises(InsufficientCapacity):
        quick(with_rows(tmp_path / "whole"), tiny, **flags, processes=2, sharding="none")


@pytest.mark.parametrize(
    ("wanted", "divisible", "ways"),
    [
        ("auto", True, ["none", "full"]),
        ("auto", False, ["none"]),
        ("none", True, ["none"]),
        ("full", True, ["full"]),
    ],
)
def test_ways_to_hold_the_base(wanted: sharding.Sharding, divisible: bool, ways: list[str]) -> None:
    assert sharding.strategies(wanted, shardable=divisible) == ways


def test_weights_of_8_bits_are_not_divided(tiny: Path, tmp_path: Path) -> None:
    eight = {"load_in_8bit": True, "load_in_4bit": False}
    assert not sharding.can_shard(eight) and sharding.can_shard({"load_in_8bit": "false"})
    with pytest.raises(BadInput, match="sharding full: FSDP divides weights of 4 and of 16 bits, not those of"):
        quick(with_rows(tmp_path / "work"), tiny, sharding="full", processes=1, quantization_config=eight)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_two_gpus_divide_a_model(method: str, tmp_path: Path) -> None:
    """With the settings of a GPU (bfloat16, NCCL): the curve is that of two which hold all of it, in less memory."""
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    # Layers of 50 MB in bfloat16, beside which the rest is small.
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 8}
    model = trainable_model.make_model(tmp_path / "model", **sizes, initializer_range=0.02)
    lines = {}
    for way in ("none", "full"):
        work = with_rows(tmp_path / way)
        flags = {"method": method, "dropout": 0.0, "batch_size": 2, "max_steps": 8, "learning_rate": 1e-3}
        out, err = start(work, model, **flags, processes=2, sharding=way).communicate()
        assert "4 a step, cuda (2 x " in out, err
        lines[way] = curve(work)
    whole, divided = lines["none"], lines["full"]
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in divided] == pytest.approx([line[key] for line in whole], abs=2e-2, rel=2e-2)
    weights = {"lora": 0.8, "qlora": 0.2}[method]
    assert max(line["memory_gib"] for line in divided) < max(line["memory_gib"] for line in whole) - 0.2 * weights


@pytest.mark.gpu
def test_two_gpus_go_on_with_a_divided_model(tiny: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    flags = {"dropout": 0.0, "batch_size": 2, "processes": 2, "sharding": "full"}
    undisturbed, killed = with_rows(tmp_path / "undisturbed"), with_rows(tmp_path / "killed")
    out, err = start(undisturbed, tiny, **flags).communicate()
    assert len(losses(undisturbed)) == STEPS, err
    first = start(killed, tiny, **flags)
    wait_for_step(first, killed, 20)
    first.kill()
    first.communicate()
    out, err = start(killed, tiny, **flags).communicate()
    assert ", going on from step " in out, err
    assert losses(killed) == pytest.approx(losses(undisturbed), abs=2e-2)
