"""A run that reaches its budget ends with a checkpoint, and a retry with a larger budget continues from it."""

from __future__ import annotations

import json

from real_cluster import Cluster, pods_of
from small_pods import read_work

HOURS = 0.02
"""More than it takes to load the model, and less than the training takes."""


def test_a_budget_ends_the_run_with_its_checkpoint(unlimited: Cluster, registry: str, workspace):
    output = {"image": f"{registry}/team/limited:1"}
    run = unlimited.submit(workspace("limited", output=output, max_steps=1000, pipeline={"budget": {"hours": HOURS}}))
    workflow = unlimited.finish(run)
    assert workflow["status"]["phase"] == "Failed"
    [tune] = pods_of(workflow, "tune")  # a run without a budget left is not retried
    assert tune["phase"] == "Failed"
    status = unlimited.argotune("status", run)
    assert f"the budget of {HOURS} hours of GPU time (pipeline.budget) is used up: step " in status
    assert "argo retry NAME -p budget-hours=HOURS" in status
    [(file, text)] = read_work(unlimited, run, "checkpoints/checkpoint-*/complete.json").items()
    assert not json.loads(text)["finished"]
    step = file.split("/")[1].removeprefix("checkpoint-")

    unlimited.argo("retry", run, "-p", "budget-hours=1")
    unlimited.wait_for_node(run, "tune", "Running")
    unlimited.wait_for_line(unlimited.pod_of(run, "tune"), f"resuming from step {step}")
    unlimited.argo("terminate", run)
