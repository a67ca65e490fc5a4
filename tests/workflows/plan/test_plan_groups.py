"""Servers on several nodes: what cannot be combined with them, what rollout gets, and what the estimate counts."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from workspace_sample import GOOD, INFERENCE_PRESET, write

from workflows import estimate
from workflows.compile.dag import compile_workflow
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.plan.model import Plan

ALONE = f"""apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: served
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector:
    matchLabels:
      apps: served
{INFERENCE_PRESET}"""
CUSTOM = ALONE.replace(
    INFERENCE_PRESET,
    "inference:\n  template:\n    spec:\n      containers:\n"
    "        - name: own\n          image: registry.example.com/own:1\n",
)
REJECTED = {
    "pipeline.rollout.canary": "rollout.canary=10",
    "pipeline.rollout.gateway": "rollout.gateway=web/front",
    "pipeline.rollout.maxReplicas": "rollout.maxReplicas=4",
    "pipeline.rollout.runtime": "rollout.runtime=transformers",
    "pipeline.rollout.replicas": "rollout.replicas=2",
}
STATEFUL = "rollout.groupKind=statefulset"
COMBINATIONS = [fields for size in range(1, 6) for fields in itertools.combinations(sorted(REJECTED), size)]
ONE, TWO = "Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4"


@pytest.fixture(autouse=True)
def _no_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def plan(folder: Path, *sets: str, text: str = GOOD) -> Plan:
    [plan] = load_plans(str(write(folder, text)), sets)
    return plan


def rejected(folder: Path, *sets: str, text: str = GOOD) -> list[str]:
    """Return the fields that are rejected, each once."""
    with pytest.raises(InvalidInput) as caught:
        plan(folder, *sets, text=text)
    problems = caught.value.problems
    assert all(problem.fix and "nodes" in problem.message for problem in problems)
    return [problem.path for problem in problems]


@pytest.mark.parametrize(
    "fields",
    [fields for size in range(1, 6) for fields in itertools.combinations(sorted(REJECTED), size)],
    ids="+".join,
)
def test_each_field_that_several_nodes_exclude_is_named(tmp_path: Path, fields: tuple[str, ...]) -> None:
    sets = [REJECTED[field] for field in fields]
    assert sorted(rejected(tmp_path, "rollout.nodes=3", STATEFUL, *sets)) == list(fields)
    plan(tmp_path, *sets)


def test_a_custom_pod_has_one_node(tmp_path: Path) -> None:
    assert rejected(tmp_path, "rollout.nodes=3", "rollout.canary=10", text=CUSTOM) == [
        "pipeline.rollout.canary",
        "inference.template",
    ]


def test_several_servers_need_no_other_group_kind(tmp_path: Path) -> None:
    for kind in ("auto", "leaderworkerset"):
        found = plan(tmp_path, "rollout.nodes=3", "rollout.replicas=2", f"rollout.groupKind={kind}")
        assert found.rollout and (found.rollout.nodes, found.rollout.replicas) == (3, 2)


def test_rollout_gets_nodes_and_kind(tmp_path: Path) -> None:
    def flags(*sets: str) -> dict[str, str]:
        templates = compile_workflow(plan(tmp_path, *sets))["spec"]["templates"]
        [args] = [one["container"]["args"] for one in templates if one["name"] == "rollout"]
        return dict(zip(args[::2], args[1::2], strict=True))

    one, three = flags(), flags("rollout.nodes=3", STATEFUL)
    assert three.items() - one.items() >= {("--nodes", "3"), ("--group-kind", "statefulset")}
    assert one.keys() == three.keys() - {"--nodes", "--group-kind"}


def test_the_weights_are_split_over_nodes_and_their_gpus(tmp_path: Path) -> None:
    one = estimate.estimate(plan(tmp_path, f"resource.instanceType={ONE}", text=ALONE), rows=1000)
    nodes = (f"resource.instanceType={TWO}", "rollout.nodes=3")
    three = estimate.estimate(plan(tmp_path, *nodes, text=ALONE), rows=1000)
    assert one.serving and three.serving
    assert three.serving.weights == pytest.approx(one.serving.weights / 6)
    assert (one.nodes, three.nodes) == (1, 3)
    text = estimate.as_text(three)
    assert "on each of 3 nodes, pipeline parallel" in text and "3 nodes" in text
    assert "pipeline parallel" not in estimate.as_text(one)


def test_the_price_of_serving_counts_all_nodes(tmp_path: Path) -> None:
    one, three = (
        estimate.as_dict(estimate.estimate(plan(tmp_path, f"rollout.nodes={nodes}", text=ALONE), rows=1000))
        for nodes in (1, 3)
    )
    assert one["usdPerHour"] and three["usdPerHour"] == pytest.approx(3 * one["usdPerHour"])


def test_the_price_of_a_run_counts_only_the_nodes_of_its_training(tmp_path: Path) -> None:
    """Servers outlive the run."""
    found = estimate.estimate(plan(tmp_path, "rollout.nodes=3"), rows=1000)
    assert found.nodes == 1
