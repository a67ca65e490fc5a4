"""Scheduled runs."""

from __future__ import annotations

import time

import yaml
from installation import volume_claim
from real_cluster import Cluster, pods_of


def test_unchanged_data_ends_before_a_gpu_pod(cluster: Cluster, workspace):
    # A claim of its own: the gate compares a candidate with the adapter that another test left in a shared one.
    cluster.apply(volume_claim("scheduled"))
    output = {"volumeSource": {"persistentVolumeClaim": {"claimName": "scheduled"}}}
    file = workspace("scheduled", output=output, pipeline={"schedule": {"schedules": ["0 3 * * 0"]}})
    first = cluster.finish(cluster.submit(file))
    assert first["status"]["phase"] == "Succeeded"
    assert pods_of(first, "tune")
    second = cluster.finish(cluster.submit(file))
    assert second["status"]["phase"] == "Succeeded"
    assert pods_of(second, "check")
    assert not pods_of(second, "tune") and not pods_of(second, "provision")


def test_a_schedule_starts_no_second_run_during_the_first(cluster: Cluster, workspace):
    """Concurrency policy Forbid, with a run that waits for a node which does not exist."""
    nowhere = {"download": {"nodeSelector": {"argotune-test": "nowhere"}}}
    waiting = cluster.with_site("nowhere", lambda profile: profile["pods"].update(nowhere))
    file = workspace("minutely", pipeline={"schedule": {"schedules": ["* * * * *"]}})
    compiled = waiting.argotune("compile", str(file), "--as", "cron")
    assert yaml.safe_load(compiled)["spec"]["concurrencyPolicy"] == "Forbid"
    cluster.kubectl("apply", "--filename", "-", stdin=compiled)
    cron = yaml.safe_load(compiled)["metadata"]["name"]
    cluster.wait(f"cronworkflow/{cron}", "jsonpath={.status.active[0].name}")
    time.sleep(65)  # past the next minute, which is when the controller would start a second run
    runs = cluster.get("workflows", "", "--selector", f"workflows.argoproj.io/cron-workflow={cron}")["items"]
    cluster.kubectl("delete", "cronworkflow", cron)
    assert len(runs) == 1
