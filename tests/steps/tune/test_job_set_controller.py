"""The controller of JobSets of the cluster tests, on the fake cluster: Jobs, Service, status, policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_controller import NAMESPACE
from job_set_controller import JOB_SETS, NAME, RESTART, JobSetController, job_set_crd
from kubernetes_server import KubernetesServer
from test_node_pods import LAYOUT, own_pod

from steps.kubernetes import client as kubernetes_client
from steps.tune import node_job, node_job_set
from steps.tune.settings import Settings

Object = dict[str, Any]


@pytest.fixture
def controller(cluster: KubernetesServer) -> JobSetController:
    return JobSetController(kubernetes_client.connect(lambda seconds: None), NAMESPACE)


def job_set(**spec: Any) -> Object:
    pod = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    template = {"spec": {"parallelism": 2, "completions": 2, "template": pod}}
    replicated = [{"name": name, "replicas": 1, "template": template} for name in ("driver", "workers")]
    metadata = {"name": "training", "namespace": NAMESPACE}
    spec = {"replicatedJobs": replicated, **spec}
    return {"apiVersion": JOB_SETS.api_version, "kind": "JobSet", "metadata": metadata, "spec": spec}


def end(cluster: KubernetesServer, name: str, condition: str = "Failed", reason: str = "BackoffLimitExceeded") -> None:
    conditions = [{"type": condition, "status": "True", "reason": reason}]
    cluster.put({**jobs(cluster)[name], "status": {"conditions": conditions}})


def jobs(cluster: KubernetesServer) -> dict[str, Object]:
    return {job["metadata"]["name"]: job for job in cluster.all("jobs")}


def state(cluster: KubernetesServer) -> tuple[str, str, int]:
    """Return terminal state, reason and number of restarts."""
    [stored] = cluster.all("jobsets")
    status = stored.get("status", {})
    reason = next((one["reason"] for one in status.get("conditions", [])), "")
    return status.get("terminalState", ""), reason, status.get("restarts", 0)


def test_jobs_have_names_labels_and_an_owner_and_pods_a_name_in_dns(
    cluster: KubernetesServer, controller: JobSetController
) -> None:
    created = controller.cluster.create(JOB_SETS, job_set(network={"subdomain": "nodes"}))
    controller.reconcile()
    found = jobs(cluster)
    assert sorted(found) == ["training-driver-0", "training-workers-0"]
    own = found["training-workers-0"]
    labels, pod = own["metadata"]["labels"], own["spec"]["template"]
    assert (labels[NAME], labels["jobset.sigs.k8s.io/replicatedjob-name"], labels[RESTART]) == (
        "training", "workers", "0"
    )  # fmt: skip
    assert pod["metadata"]["labels"] == {"app": "x", **labels} and pod["spec"]["subdomain"] == "nodes"
    [owner] = own["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("JobSet", created["metadata"]["uid"], True)
    [service] = cluster.all("services")
    assert service["metadata"]["name"] == "nodes"
    assert (service["spec"]["clusterIP"], service["spec"]["selector"]) == ("None", {NAME: "training"})


def test_status_follows_the_jobs_until_all_are_complete(
    cluster: KubernetesServer, controller: JobSetController
) -> None:
    controller.cluster.create(JOB_SETS, job_set())
    controller.reconcile()
    cluster.put({**jobs(cluster)["training-workers-0"], "status": {"active": 2, "ready": 2}})
    end(cluster, "training-driver-0", "Complete", "CompletionsReached")
    controller.reconcile()
    [stored] = cluster.all("jobsets")
    workers, driver = (
        next(item for item in stored["status"]["replicatedJobsStatus"] if item["name"] == name)
        for name in ("workers", "driver")
    )
    assert (workers["active"], workers["ready"], workers["succeeded"]) == (1, 1, 0)
    assert (driver["active"], driver["succeeded"]) == (0, 1)
    assert state(cluster) == ("", "", 0)
    end(cluster, "training-workers-0", "Complete", "CompletionsReached")
    controller.reconcile()
    assert state(cluster) == ("Completed", "AllJobsCompleted", 0)


IGNORED = {"name": "x", "action": "RestartJobSetAndIgnoreMaxRestarts", "targetReplicatedJobs": ["driver"]}


@pytest.mark.parametrize(
    ("policy", "reason", "expected"),
    [
        (None, "BackoffLimitExceeded", ("Failed", "FailedJobs", 0)),
        ({}, "BackoffLimitExceeded", ("Failed", "ReachedMaxRestarts", 0)),
        ({"maxRestarts": 1}, "BackoffLimitExceeded", ("", "", 1)),
        (
            {"maxRestarts": 1, "rules": [{"name": "x", "action": "FailJobSet", "onJobFailureReasons": ["Other"]}]},
            "Other",
            ("Failed", "FailJobSetFailurePolicyAction", 0),
        ),
        (
            {"rules": [IGNORED]},
            "Other",
            ("Failed", "ReachedMaxRestarts", 0),
        ),
    ],
)  # fmt: skip
def test_a_failed_job_ends_or_restarts_the_set(
    cluster: KubernetesServer,
    controller: JobSetController,
    policy: Object | None,
    reason: str,
    expected: tuple[str, str, int],
) -> None:
    controller.cluster.create(JOB_SETS, job_set(**({"failurePolicy": policy} if policy is not None else {})))
    controller.reconcile()
    before = {name: job["metadata"]["uid"] for name, job in jobs(cluster).items()}
    end(cluster, "training-workers-0", reason=reason)
    for _ in range(3):
        controller.reconcile()
    assert state(cluster) == expected
    after = {name: job["metadata"]["uid"] for name, job in jobs(cluster).items()}
    if expected[2]:
        assert after.keys() == before.keys() and not set(after.values()) & set(before.values())
        assert {job["metadata"]["labels"][RESTART] for job in jobs(cluster).values()} == {"1"}
    else:
        assert sorted(after) == ["training-workers-0"], "the Job that ran is deleted"


@pytest.mark.parametrize("reason", ["PodFailurePolicy", "BackoffLimitExceeded"])
def test_a_job_set_of_argotune_has_no_restarts_and_no_service(
    cluster: KubernetesServer,
    controller: JobSetController,
    reason: str,
) -> None:
    settings = Settings(work=Path("/mnt/work"), nodes=3, model="m")
    job = node_job.build_job(own_pod(), "argotune-tune-1", "argotune-tune", settings, LAYOUT, 0, [])
    controller.cluster.create(JOB_SETS, node_job_set.build_job_set(job))
    controller.reconcile()
    name = node_job_set.job_name(JOB_SETS, "argotune-tune-1")
    assert list(jobs(cluster)) == [name] and not cluster.all("services")
    end(cluster, name, reason=reason)
    controller.reconcile()
    causes = {"PodFailurePolicy": "FailJobSetFailurePolicyAction", "BackoffLimitExceeded": "ReachedMaxRestarts"}
    assert state(cluster) == ("Failed", causes[reason], 0)
    assert not controller.errors


def test_the_crd_has_the_schema_without_references() -> None:
    crd = job_set_crd()
    [version] = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    assert "$ref" not in str(schema) and "$defs" not in str(schema)
    template = schema["properties"]["spec"]["properties"]["replicatedJobs"]["items"]["properties"]["template"]
    assert "podFailurePolicy" in template["properties"]["spec"]["properties"]
    assert {"conditions", "restarts", "terminalState"} <= schema["properties"]["status"]["properties"].keys()
