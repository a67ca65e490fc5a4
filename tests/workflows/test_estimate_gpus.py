"""Several GPUs: side by side where each holds the model, else its layers spread over them; and tune is told which."""

import pytest
from workspace_sample import GOOD, write

from workflows import estimate
from workflows.compile.dag import compile_workflow
from workflows.estimate import money
from workflows.resolve import plans

ONE, TWO = "Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4"
SMALL = "Standard_NV72ads_A10_v5"


@pytest.fixture(autouse=True)
def _no_site(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def plan(folder, *sets, text=GOOD):
    text = text[: text.index("inference:")] + text[text.index("pipeline:") :]
    [found] = plans(str(write(folder, text)), sets)
    return found


def flags_of_tune(found):
    [template] = [t for t in compile_workflow(found)["spec"]["templates"] if t["name"] == "tune"]
    words = template["container"]["args"]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_each_gpu_trains_with_rows_of_its_own(tmp_path):
    one, two = (estimate.estimate(plan(tmp_path, f"resource.instanceType={size}"), rows=1000) for size in (ONE, TWO))
    assert (two.training.processes, two.training.gpus) == (2, 1)
    assert two.time.tokens_per_second == pytest.approx(2 * money.SIDE_BY_SIDE * one.time.tokens_per_second)
    assert two.time.training_hours == pytest.approx(one.time.training_hours / (2 * money.SIDE_BY_SIDE))
    # All of the model on each, and the buffers in which gradients are added up.
    assert two.tuning.components() == one.tuning.components() | {"gradients": 2 * one.tuning.gradients}
    assert "rank 16, 2 GPUs side by side, checkpointing on)" in estimate.as_text(two)
    assert "--processes" not in flags_of_tune(plan(tmp_path, f"resource.instanceType={TWO}"))


def test_steps_of_two_have_twice_the_rows(tmp_path):
    found = [plan(tmp_path, f"resource.instanceType={size}", "tuning.maxSteps=100") for size in (ONE, TWO)]
    one, two = map(estimate.estimate, found)
    assert two.time.training_hours == pytest.approx(one.time.training_hours / money.SIDE_BY_SIDE)


def test_a_model_that_one_gpu_cannot_hold_is_spread(tmp_path):
    large = GOOD.replace("phi-3-mini-128k-instruct", "phi-4").replace("method: qlora", "method: lora")
    found = plan(tmp_path, f"resource.instanceType={SMALL}", "tuning.batchSize=1", text=large)
    whole = estimate.estimate(found)
    assert (whole.training.processes, whole.training.gpus) == (1, 2)
    assert whole.tuning_fits
    assert "layers spread over 2 GPUs" in estimate.as_text(whole)
    assert flags_of_tune(found)["--processes"] == "1"


def test_a_number_of_ones_own_is_kept(tmp_path):
    found = plan(tmp_path, f"resource.instanceType={TWO}", "tuning.processes=1")
    assert estimate.estimate(found).training.gpus == 2
    assert flags_of_tune(found)["--processes"] == "1"
