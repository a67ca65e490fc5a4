"""Tuning on several nodes: the pods of an Indexed Job or a JobSet train with the pod of tune, over gloo on CPUs.

A cluster without JobSet gets its CRD, and tests/job_set_controller.py plays its controller.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from job_set_controller import NAME as JOB_SET
from job_set_controller import JobSetController, job_set_crd
from real_cluster import Cluster
from small_pods import read_work

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.pod_policy import QUEUE_LABEL
from steps.tune.node_job import FIRST, GROUP_LABEL
from steps.tune.node_job_set import JOB_SETS, REPLICATED_JOB

STEPS = 10
TRAINING = {"save_steps": 1, "logging_steps": 1}
# Losses in bfloat16 differ more between batches.
EXACT = ("--set", "tuning.method=lora", "--set", 'tuning.modelConfig={"torch_dtype": "float32"}')
OTHERS = f"{GROUP_LABEL},{GROUP_LABEL}!={FIRST}"
"""Label selector of Jobs of trainings, and of their pods."""


@pytest.fixture(scope="module")
def job_sets(unlimited: Cluster) -> Iterator[JobSetController | None]:
    """The controller of JobSets, if this test plays it; None where JobSet is installed."""
    with unlimited.custom_resource(job_set_crd()) as is_added:
        if not is_added:
            yield None
            return
        controller = JobSetController(kubernetes_client.connect(), unlimited.namespace)
        with controller.running():
            yield controller


@pytest.fixture(params=["job", "jobset"])
def job_kind(request: pytest.FixtureRequest) -> str:
    """The kind of the object with the other nodes."""
    if request.param == "jobset":
        request.getfixturevalue("job_sets")
    return str(request.param)


@pytest.fixture
def submitted(unlimited: Cluster, registry: str, workspace, job_kind: str):
    """Return a function that submits a run on two nodes."""

    def submit(name: str, *flags: str, max_steps: int = STEPS) -> str:
        name = f"{name}-{job_kind}"
        fields = run_fields(registry, name, nodes=2, tune={"jobKind": job_kind})
        return unlimited.submit(workspace(name, max_steps=max_steps, training=TRAINING, **fields), *EXACT, *flags)

    return submit


@pytest.fixture(scope="module")
def curve_of_one_node(unlimited: Cluster, registry: str, module_workspace) -> list[float]:
    """The loss of each step of a run on one node."""
    # It waits for approval, and so keeps its volume.
    fields = run_fields(registry, "one-node", nodes=1, approval=True)
    run = unlimited.submit(module_workspace("one-node", max_steps=STEPS, training=TRAINING, **fields), *EXACT)
    curve = losses(unlimited, run)
    unlimited.argo("terminate", run)
    return curve


def run_fields(registry: str, name: str, nodes: int, **pipeline: Any) -> dict[str, Any]:
    """Return the fields of a Workspace that tunes on a number of nodes."""
    resource = {"count": nodes, "labelSelector": {"matchLabels": {"kubernetes.io/os": "linux"}}}
    return {"resource": resource, "output": {"image": f"{registry}/team/{name}:1"}, "pipeline": pipeline}


def plural(job_kind: str) -> str:
    """Return the name of a kind for kubectl."""
    return JOB_SETS.qualified if job_kind == "jobset" else "jobs"


class WatchedJobs:
    """The Jobs or JobSets of trainings, from their creation to their deletion."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.existing: set[str] = set()
        self.most = 0
        """Largest number of them at one time; those being deleted do not count."""

    def add(self, event: dict[str, Any]) -> None:
        """Take an event of ``kubectl get --output-watch-events``."""
        metadata = event["object"]["metadata"]
        name, is_gone = metadata["name"], event["type"] == "DELETED" or "deletionTimestamp" in metadata
        if name not in self.names:
            self.names.append(name)
        self.existing = self.existing - {name} if is_gone else self.existing | {name}
        self.most = max(self.most, len(self.existing))


@contextmanager
def watch_jobs(cluster: Cluster, folder: Path, kind: str) -> Iterator[WatchedJobs]:
    """Watch the Jobs or JobSets of trainings until the context ends."""
    file, jobs = folder / "jobs.json", WatchedJobs()
    command = ["kubectl", "--kubeconfig", cluster.kubeconfig, "--namespace", cluster.namespace, "get", kind]
    flags = ["--selector", GROUP_LABEL, "--watch", "--output-watch-events", "--output", "json"]
    with file.open("w") as output, subprocess.Popen([*command, *flags], stdout=output) as process:
        try:
            yield jobs
        finally:
            process.kill()
    for line in file.read_text().splitlines():
        jobs.add(json.loads(line))


def other_pods(cluster: Cluster) -> list[str]:
    """Return the names of the pods of the other nodes."""
    return [pod["metadata"]["name"] for pod in cluster.get("pods", "", "--selector", OTHERS)["items"]]


def delete(cluster: Cluster, pod: str) -> None:
    cluster.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


def losses(cluster: Cluster, run: str) -> list[float]:
    """Return the loss of each step, as soon as tune has succeeded: Argo deletes the volume with the end of the run."""
    cluster.wait_for_node(run, "tune", "Succeeded")
    [curve] = read_work(cluster, run, "report/train.jsonl").values()
    return [json.loads(line)["loss"] for line in curve.splitlines()]


def test_two_nodes_train_as_one_although_both_are_lost(
    unlimited: Cluster, curve_of_one_node: list[float], submitted, tmp_path: Path, job_kind: str
):
    """First the pod of the other node, then that of tune."""
    with watch_jobs(unlimited, tmp_path, plural(job_kind)) as jobs:
        two = submitted("two-nodes")
        unlimited.wait_for_node(two, "tune", "Running")
        tune = unlimited.pod_of(two, "tune")
        unlimited.wait_for_line(tune, "step 2/")
        [other] = other_pods(unlimited)
        delete(unlimited, other)
        unlimited.wait_for_line(tune, "restarting all nodes from the last checkpoint")
        unlimited.wait_for_line(tune, "resuming from step")
        [replaced] = other_pods(unlimited)
        assert replaced != other
        delete(unlimited, tune)
        curve = losses(unlimited, two)
        log = unlimited.argotune("logs", two, "--step", "tune")
        phase = unlimited.finish(two)["status"]["phase"]
    assert phase == "Succeeded", unlimited.argotune("status", two)
    assert "resuming from step" in log
    assert len(curve) == STEPS
    assert curve == pytest.approx(curve_of_one_node, abs=1e-3)
    assert len(jobs.names) == 3 and jobs.most == 1, jobs.names
    assert not jobs.existing and not other_pods(unlimited)


def test_a_stop_deletes_the_job(unlimited: Cluster, submitted, job_kind: str):
    run = submitted("stopped-nodes", "--set", "queue=team-a", max_steps=1000)
    unlimited.wait_for_node(run, "tune", "Running")
    tune = unlimited.pod_of(run, "tune")
    unlimited.wait_for_line(tune, "all nodes are running")
    [group] = unlimited.get(plural(job_kind), "", "--selector", OTHERS)["items"]
    [job] = unlimited.get("jobs", "", "--selector", OTHERS if job_kind == "job" else JOB_SET)["items"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert [owner["name"] for owner in group["metadata"]["ownerReferences"]] == [tune]
    assert group["metadata"]["labels"][QUEUE_LABEL] == "team-a"
    unlimited.wait_for_line(tune, "step 1/")
    unlimited.argotune("stop", "--cluster", run)
    assert unlimited.finish(run)["status"]["phase"] == "Failed"
    left = unlimited.get(plural(job_kind), "", "--selector", OTHERS)["items"]
    assert not left, (unlimited.argotune("logs", run, "--step", "tune"), left)
    unlimited.wait("pods", "delete", "--selector", OTHERS)
    checkpoints = read_work(unlimited, run, "checkpoints/*/complete.json")
    assert checkpoints, "the last step is saved"


@pytest.mark.parametrize("job_kind", ["jobset"], indirect=True)
def test_a_job_set_reports_its_job_and_how_it_ends(unlimited: Cluster, submitted, job_sets: JobSetController | None):
    """Its status is what the API server has stored; a lost pod fails it, and its restart is left to tune."""
    run = submitted("job-set-status")
    unlimited.wait_for_node(run, "tune", "Running")
    tune = unlimited.pod_of(run, "tune")
    unlimited.wait_for_line(tune, "step 2/")
    [first] = unlimited.get(JOB_SETS.qualified, "", "--selector", GROUP_LABEL)["items"]
    name = first["metadata"]["name"]
    [job] = unlimited.get("jobs", "", "--selector", f"{JOB_SET}={name}")["items"]
    assert job["metadata"]["name"] == f"{name}-{REPLICATED_JOB}-0"
    [status] = first["status"]["replicatedJobsStatus"]
    assert (status["name"], status["active"], status["failed"]) == (REPLICATED_JOB, 1, 0)
    assert not unlimited.get("services", "", "--selector", JOB_SET)["items"], "nodes are found by address"
    [other] = other_pods(unlimited)
    delete(unlimited, other)
    unlimited.wait_for_line(tune, "resuming from step")
    assert unlimited.finish(run)["status"]["phase"] == "Succeeded", unlimited.argotune("status", run)
    assert not unlimited.get(JOB_SETS.qualified, "", "--selector", GROUP_LABEL)["items"]
    if job_sets:
        assert not any(one["status"].get("restarts") for one in job_sets.seen.values() if "status" in one)
