"""Plans on several GPUs: data-parallel, sharded, or with the layers placed on all GPUs; and the flags of tune."""

from dataclasses import replace

import pytest
from workspace_sample import GOOD, write

import presets
from workflows import estimate
from workflows.compile.dag import compile_workflow
from workflows.errors import InvalidInput
from workflows.estimate import cost, memory, shapes
from workflows.load_plans import load_plans

ONE, TWO = "Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4"
SMALL = "Standard_NV72ads_A10_v5"


@pytest.fixture(autouse=True)
def _no_site(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def plan(folder, *sets, text=GOOD):
    text = text[: text.index("inference:")] + text[text.index("pipeline:") :]
    [plan] = load_plans(str(write(folder, text)), sets)
    return plan


def flags_of_tune(found):
    [template] = [t for t in compile_workflow(found)["spec"]["templates"] if t["name"] == "tune"]
    args = template["container"]["args"]
    return dict(zip(args[::2], args[1::2], strict=True))


def test_each_gpu_trains_on_separate_rows(tmp_path):
    one, two = (estimate.estimate(plan(tmp_path, f"resource.instanceType={size}"), rows=1000) for size in (ONE, TWO))
    assert (two.training.processes, two.training.gpus) == (2, 1)
    assert two.time.tokens_per_second == pytest.approx(2 * cost.DATA_PARALLEL_EFFICIENCY * one.time.tokens_per_second)
    assert two.time.training_hours == pytest.approx(one.time.training_hours / (2 * cost.DATA_PARALLEL_EFFICIENCY))
    # Each has the whole model, and buffers for accumulating gradients.
    assert two.tuning.components() == one.tuning.components() | {"gradients": 2 * one.tuning.gradients}
    assert "rank 16, 2 data-parallel GPUs, checkpointing on)" in estimate.as_text(two)
    assert "--processes" not in flags_of_tune(plan(tmp_path, f"resource.instanceType={TWO}"))


def test_two_gpus_double_the_rows_per_step(tmp_path):
    found = [plan(tmp_path, f"resource.instanceType={size}", "tuning.maxSteps=100") for size in (ONE, TWO)]
    one, two = map(estimate.estimate, found)
    assert two.time.training_hours == pytest.approx(one.time.training_hours / cost.DATA_PARALLEL_EFFICIENCY)


LARGE = GOOD.replace("phi-3-mini-128k-instruct", "phi-4").replace("method: qlora", "method: lora")


def test_model_too_large_for_one_gpu_is_sharded(tmp_path):
    found = plan(tmp_path, f"resource.instanceType={SMALL}", "tuning.batchSize=1", text=LARGE)
    sharded = estimate.estimate(found, rows=1000)
    assert (sharded.training.processes, sharded.training.gpus, sharded.training.sharded) == (2, 1, True)
    assert sharded.tuning_fits
    assert "rank 16, 2 data-parallel GPUs, sharded weights, checkpointing on)" in estimate.as_text(sharded)
    flags = flags_of_tune(found)
    assert flags["--sharding"] == "full" and "--processes" not in flags
    # Compared with replicated weights: half of them, and the layers gathered at a time.
    replicated = estimate.estimate(plan(tmp_path, f"resource.instanceType={TWO}", "tuning.batchSize=1", text=LARGE))
    assert replicated.training.processes == 2 and not replicated.training.sharded
    layers = 3 * 2 * (5120 * (7680 + 5120) + 3 * 5120 * 17920) / memory.GIB
    assert sharded.tuning.weights == pytest.approx(replicated.tuning.weights / 2 + layers)
    assert sharded.tuning.components() == replicated.tuning.components() | {
        "weights": sharded.tuning.weights,
        "gradients": replicated.tuning.gradients / 2,
    }


def test_quantization_constants_are_not_sharded(tmp_path):
    sets = (f"resource.instanceType={TWO}", "tuning.sharding=full")
    found = plan(tmp_path, *sets, text=LARGE.replace("method: lora", "method: qlora"))
    sharded, model = estimate.estimate(found), shapes.of(presets.model("phi-4"))
    replicated = memory.tuning(model, replace(sharded.training, sharded=False))
    packed, constants = model.linear_parameters / 2, model.linear_parameters * memory.DOUBLE_QUANTIZATION_BYTES
    # The output head is more than three layers in 4 bits.
    weights = (packed + 2 * model.other_parameters) / 2 + constants + 160 * 1088 + 2 * model.embedding_parameters
    assert sharded.tuning.weights == pytest.approx(weights / memory.GIB)
    assert sharded.tuning.total < replicated.total
    assert flags_of_tune(found)["--sharding"] == "full"


def test_sharded_model_waits_for_communication(tmp_path):
    replicated, sharded = (
        estimate.estimate(plan(tmp_path, f"resource.instanceType={TWO}", f"tuning.sharding={mode}"), rows=1000)
        for mode in ("none", "full")
    )
    batch = replicated.training.tokens
    gathered = memory.weights_sent(shapes.of(presets.model("phi-3-mini-128k-instruct")), sharded.training) / memory.GIB
    one = [batch / (each.time.tokens_per_second / 2 / cost.DATA_PARALLEL_EFFICIENCY) for each in (replicated, sharded)]
    assert one[1] - one[0] == pytest.approx(2 * gathered / cost.GATHERED_GIB_PER_SECOND)


@pytest.mark.parametrize(
    ("sets", "method"),
    [
        (["tuning.sharding=none"], "lora"),
        # Shares would fit, activations of a replicated batch in each process would not.
        (["tuning.maxLength=8192"], "lora"),
        (['tuning.quantizationConfig={"load_in_8bit": true}', "tuning.maxLength=16384"], "qlora"),
    ],
)
def test_model_that_is_not_sharded_is_placed_on_all_gpus(tmp_path, sets, method):
    text = LARGE.replace("method: lora", f"method: {method}")
    found = plan(tmp_path, f"resource.instanceType={SMALL}", "tuning.batchSize=1", *sets, text=text)
    replicated = estimate.estimate(found)
    assert (replicated.training.processes, replicated.training.gpus, replicated.training.sharded) == (1, 2, False)
    assert replicated.tuning_fits
    assert "layers placed on 2 GPUs" in estimate.as_text(replicated)
    assert flags_of_tune(found)["--processes"] == "1"


def test_explicit_number_of_processes_is_used(tmp_path):
    found = plan(tmp_path, f"resource.instanceType={TWO}", "tuning.processes=1")
    assert estimate.estimate(found).training.gpus == 2
    assert flags_of_tune(found)["--processes"] == "1"


def test_unsupported_sharding_is_reported(tmp_path, capsys):
    with pytest.raises(InvalidInput, match=r"pipeline\.tune\.sharding: FSDP shards .* not load_in_8bit"):
        plan(tmp_path, "tuning.sharding=full", 'tuning.quantizationConfig={"load_in_8bit": true}')
    plan(tmp_path, "tuning.sharding=full", "tuning.processes=1")
    assert "pipeline.tune.sharding: has no effect with one process" in capsys.readouterr().err
