"""A run during a restart of the API server and of Argo's controller; `make test-cluster` runs this file alone."""

from __future__ import annotations

import os
import subprocess

import pytest
from real_cluster import Cluster, pods_of


def test_a_run_survives_a_restart_of_the_control_plane(cluster: Cluster, workspace):
    command = os.environ.get("ARGOTUNE_RESTART_CONTROL_PLANE")
    if not command:
        pytest.skip("ARGOTUNE_RESTART_CONTROL_PLANE is not set (CONTRIBUTING.md, Cluster tests)")
    run = cluster.submit(workspace("survivor"))
    cluster.wait_for_node(run, "download", "Running")
    subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=600)
    workflow = cluster.finish(run)
    assert workflow["status"]["phase"] == "Succeeded", cluster.argotune("status", run)
    # Argo's executor may fail to report to an API server that is stopping ("Error"); the step itself never fails.
    failed = [node for node in workflow["status"]["nodes"].values() if node["phase"] == "Failed"]
    assert not failed, [(node["displayName"], node.get("message")) for node in failed]
    assert len(pods_of(workflow, "tune")) == 1
