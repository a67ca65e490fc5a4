"""A search on one node: its trials train at the same time, and the best adapter is packaged."""

from __future__ import annotations

from typing import Any

from real_cluster import Cluster, pods_of

RATES = ["0.002", "1e-09"]


def values(node: dict[str, Any], kind: str) -> dict[str, str]:
    """Return the parameters of a node; ``kind`` is ``inputs`` or ``outputs``."""
    parameters = (node.get(kind) or {}).get("parameters") or []
    return {parameter["name"]: parameter.get("value", "") for parameter in parameters}


def test_the_best_of_two_trials_is_packaged(unlimited: Cluster, registry: str, workspace):
    search = {"parallel": 2, "parameters": {"learningRate": [float(rate) for rate in RATES]}}
    output = {"image": f"{registry}/team/searched:1"}
    file = workspace("searched", output=output, pipeline={"search": search})
    run = unlimited.submit(file, "--set", "resource.gpus=2")
    workflow = unlimited.finish(run)
    assert workflow["status"]["phase"] == "Succeeded", unlimited.argotune("status", run)

    digests = {
        values(node, "inputs")["learning-rate"]: values(node, "outputs")["adapter-digest"]
        for node in pods_of(workflow, "tune")
    }
    assert sorted(digests) == sorted(RATES)
    losses = {
        values(node, "inputs")["candidate"]: float(values(node, "outputs")["adapter-loss"])
        for node in pods_of(workflow, "evaluate")
    }
    [promoted] = [values(node, "outputs") for node in pods_of(workflow, "promote")]
    assert promoted["candidate"] == min(losses, key=lambda name: losses[name]) == "trial-1"
    assert promoted["adapter-digest"] == digests[RATES[0]]
    [packaged] = pods_of(workflow, "package")
    assert values(packaged, "inputs")["adapter-digest"] == promoted["adapter-digest"]
    assert values(packaged, "outputs")["image-digest"].startswith("sha256:")
