"""Plans on several nodes: what tune gets, and what the other nodes buy."""

import pytest
from test_estimate_gpus import ONE, TWO, flags_of_tune, plan

from workflows import estimate
from workflows.compile.dag import compile_workflow
from workflows.estimate import cost


@pytest.fixture(autouse=True)
def _no_site(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def estimated(folder, nodes, *sets, size=ONE):
    return estimate.estimate(
        plan(folder, f"resource.instanceType={size}", f"resource.count={nodes}", *sets), rows=1000
    )


def test_tune_on_two_nodes_creates_the_other(tmp_path):
    one, two = plan(tmp_path), plan(tmp_path, "resource.count=2")
    assert flags_of_tune(two) == flags_of_tune(one) | {"--nodes": "2"}
    [tune] = [t for t in compile_workflow(two)["spec"]["templates"] if t["name"] == "tune"]
    assert tune["serviceAccountName"] == "argotune-tune"
    assert tune["metadata"]["labels"]["argotune.dev/tune"] == "first"
    [tune] = [t for t in compile_workflow(one)["spec"]["templates"] if t["name"] == "tune"]
    assert "serviceAccountName" not in tune and "argotune.dev/tune" not in str(tune)
    custom = plan(tmp_path, "resource.count=2", 'serviceAccounts={"tune": "mine"}')
    [tune] = [t for t in compile_workflow(custom)["spec"]["templates"] if t["name"] == "tune"]
    assert tune["serviceAccountName"] == "mine"


@pytest.mark.parametrize("size", [ONE, TWO])
def test_large_batches_pay(tmp_path, size):
    sets = ("tuning.batchSize=16", "tuning.maxLength=4096")
    one, two, four = (estimated(tmp_path, nodes, *sets, size=size) for nodes in (1, 2, 4))
    assert one.time.speedup == 1 and 1.5 < two.time.speedup < 2 and two.time.speedup < four.time.speedup < 4
    assert two.time.training_hours == pytest.approx(one.time.training_hours / two.time.speedup)
    text = estimate.as_text(two)
    assert "times the speed of one node" in text and "does not pay" not in text
    assert "times the speed" not in estimate.as_text(one)


def test_small_batches_do_not_pay(tmp_path):
    four = estimated(tmp_path, 4, "tuning.batchSize=1", "tuning.maxLength=256")
    assert four.time.speedup / 4 < cost.MIN_SPEEDUP_PER_NODE
    assert "does not pay; write count: 1, or train with larger batches" in estimate.as_text(four)


def test_accumulated_batches_are_split_first(tmp_path):
    """Nodes that take over accumulation keep the batches of the GPU, and so its throughput."""
    accumulated = estimated(tmp_path, 2, 'tuning.trainingArguments={"gradient_accumulation_steps": 8}')
    plain = estimated(tmp_path, 2, "tuning.batchSize=4")
    assert accumulated.time.speedup > plain.time.speedup
