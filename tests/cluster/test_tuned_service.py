"""A tuned adapter from its submission to an answer through the Service, and a candidate that the gate rejects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_cluster import Cluster, pods_of
from served_model import Client
from workspaces import PRESET

NAME = "assistant"
ROLLOUT = {"runtime": "transformers", "question": "What is 1+1? One number."}


@pytest.fixture(scope="module")
def submitted(cluster: Cluster, registry: str, module_workspace) -> Callable[..., str]:
    """Return a function that submits a Workspace which tunes, pushes and serves; arguments change its pipeline."""

    def submit(**pipeline: Any) -> str:
        file: Path = module_workspace(
            NAME,
            output={"image": f"{registry}/team/{NAME}:1"},
            inference={"preset": PRESET},
            pipeline={"rollout": ROLLOUT, **pipeline},
        )
        return cluster.submit(file)

    return submit


@pytest.fixture(scope="module")
def run(cluster: Cluster, submitted) -> str:
    """A run whose rollout failed, since its account had no permissions, and was retried with them."""
    binding = cluster.get("rolebinding", "argotune-rollout")
    cluster.kubectl("delete", "rolebinding", "argotune-rollout")
    name = submitted()
    failed = cluster.finish(name)
    cluster.kubectl("apply", "--filename", "-", stdin=_applied(binding))
    assert failed["status"]["phase"] == "Failed", cluster.argotune("status", name)
    assert "argo/install/roles.yaml" in cluster.argotune("status", name)
    cluster.argo("retry", name)
    return name


def _applied(document: dict[str, Any]) -> str:
    metadata = {key: document["metadata"][key] for key in ("name", "labels")}
    return json.dumps({**document, "metadata": metadata})


def test_a_retried_run_runs_only_the_rollout_and_serves(cluster: Cluster, run: str):
    workflow = cluster.finish(run)
    assert workflow["status"]["phase"] == "Succeeded", cluster.argotune("status", run)
    assert [len(pods_of(workflow, step)) for step in ("tune", "evaluate", "package")] == [1, 1, 1]
    [rolled_out] = [node for node in pods_of(workflow, "rollout") if node["phase"] == "Succeeded"]
    assert rolled_out["startedAt"] > max(node["finishedAt"] for node in pods_of(workflow, "package"))
    [model] = Client(cluster, NAME, model=NAME, count=3).start().finish()
    assert model.startswith(f"{NAME}-")


def test_a_rejected_candidate_leaves_what_is_served(cluster: Cluster, run: str, submitted):
    cluster.finish(run)
    before = set(Client(cluster, NAME, model=NAME, count=3).start().finish())
    rejected = cluster.finish(submitted(evaluation={"samples": 1, "maxLossRatio": 0.01}))
    assert rejected["status"]["phase"] == "Succeeded"
    assert not pods_of(rejected, "rollout")
    assert set(Client(cluster, NAME, model=NAME, count=3).start().finish()) == before
