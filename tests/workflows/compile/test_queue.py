"""``pipeline.queue``: Kueue's label on GPU pods only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plan_samples import PLANS, compiled, planned
from workspace_sample import GOOD, write

from workflows.errors import InvalidInput
from workflows.load_plans import load_plans

LABEL = "kueue.x-k8s.io/queue-name"


def templates(values: dict[str, Any]) -> dict[str, Any]:
    return {template["name"]: template for template in compiled(values)["spec"]["templates"]}


def test_only_gpu_pods_have_the_label() -> None:
    queued = templates(PLANS["everything"] | {"queue": "team-a"})
    labels = {name: template.get("metadata", {}).get("labels", {}) for name, template in queued.items()}
    assert {name for name, own in labels.items() if own.get(LABEL) == "team-a"} == {"tune", "evaluate"}
    assert labels["tune"]["argotune.dev/keep-log"] == "true"
    words = queued["rollout"]["container"]["args"]
    assert words[words.index("--queue") + 1] == "team-a"
    cpu = compiled(PLANS["everything"] | {"queue": "team-a", "resource.gpus": 0})
    assert LABEL not in json.dumps(cpu)


def test_waiting_in_the_queue_does_not_count() -> None:
    """Argo's timeout includes the time for which a pod is Pending; the deadline of its pod does not."""
    queued = templates(PLANS["everything"] | {"queue": "team-a", "tuning.timeout": "2h"})
    assert (queued["tune"]["activeDeadlineSeconds"], "timeout" in queued["tune"]) == (7200, False)
    assert queued["download"]["timeout"] == "12h"
    assert templates(PLANS["everything"])["tune"]["timeout"] == "24h"


def test_a_site_sets_the_queue_of_all_runs(tmp_path: Path) -> None:
    assert planned(tmp_path, "queue: gpus").queue == "gpus"
    [plan] = load_plans(str(write(tmp_path, GOOD)), ["queue=mine"], str(tmp_path / "site.yaml"))
    assert plan.queue == "mine"


def test_a_run_with_a_queue_creates_no_nodes(tmp_path: Path) -> None:
    site = "nodes: {provider: karpenter, nodeClass: default}\nqueue: gpus"
    with pytest.raises(InvalidInput) as caught:
        planned(tmp_path, site)
    [problem] = caught.value.problems
    assert problem.path == "pipeline.queue"
    assert "nodes.provider karpenter: nodes are paid before Kueue admits pods" in problem.message
    assert "nodes.provider: autoscaler" in problem.fix


def test_the_servers_have_the_label() -> None:
    from steps.rollout.service_pod import build_pod
    from steps.rollout.settings import Settings

    values: dict[str, Any] = {"work": "/w", "name": "phi", "model": "m", "queue": "team-a"}
    assert build_pod(Settings(**values), {})["metadata"]["labels"][LABEL] == "team-a"
    assert LABEL not in build_pod(Settings(**values, gpus=0), {})["metadata"]["labels"]
    template = {"metadata": {"labels": {"app": "mine"}}, "spec": {"containers": [{"name": "own", "image": "x"}]}}
    own = build_pod(Settings(**values, template=template), {})["metadata"]["labels"]
    assert own == {LABEL: "team-a", "app": "mine"}
