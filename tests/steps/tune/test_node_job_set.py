"""The JobSet of a training: its choice, and its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from closed_schema import close
from job_controller import NAMESPACE
from jsonschema import Draft202012Validator
from kubernetes_server import KubernetesServer
from test_node_pods import LAYOUT, own_pod

from steps.kubernetes import client as kubernetes_client
from steps.runtime.errors import BadInput
from steps.tune import node_job, node_job_set
from steps.tune.node_job_set import JOB_SETS, JOBS, choose_kind
from steps.tune.settings import JobKind, Settings

REVIEWS = "selfsubjectaccessreviews"
DATA = Path(__file__).parents[2] / "data" / "jobset"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads((DATA / "jobset-crd.json").read_text())
    close(schema)
    return Draft202012Validator(schema)


@pytest.fixture
def job() -> dict[str, Any]:
    settings = Settings(work=Path("/mnt/work"), nodes=3, model="m")
    return node_job.build_job(own_pod(), "argotune-tune-1", "argotune-tune", settings, LAYOUT, 0, [])


def test_a_job_set_is_valid(validator: Draft202012Validator, job: dict[str, Any]) -> None:
    document = node_job_set.build_job_set(job)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []
    document["spec"]["failurePolicy"]["rules"][0]["exitCodes"] = [2]
    document["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"] = "2"
    assert len(list(validator.iter_errors(document))) == 2


def test_exit_codes_that_no_restart_changes_fail_the_job_set(job: dict[str, Any]) -> None:
    """Rules of a JobSet match the reason of its Job, which that of the Job derives from exit codes."""
    spec = node_job_set.build_job_set(job)["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (replicated,) = spec["replicatedJobs"]
    (codes,) = replicated["template"]["spec"]["podFailurePolicy"]["rules"]
    assert codes["action"] == "FailJob" and codes["onExitCodes"]["values"] == [2, 3, 4, 5, 6]
    assert spec["failurePolicy"]["maxRestarts"] == replicated["template"]["spec"]["backoffLimit"] == 0


def test_names_are_short_enough_for_their_pods(job: dict[str, Any]) -> None:
    """Names of Jobs have at most 63 characters; those of their pods get an index and a suffix."""
    longest = node_job_set.job_name(JOB_SETS, f"argotune-tune-{'f' * 10}-{'f' * 6}")
    assert len(f"{longest}-999-abcde") <= 63


@pytest.mark.parametrize(
    ("job_kind", "installed", "expected"),
    [("auto", True, JOB_SETS), ("auto", False, JOBS), ("job", True, JOBS), ("jobset", True, JOB_SETS)],
)
def test_the_kind_is_chosen_by_setting_and_discovery(
    cluster: KubernetesServer, job_kind: JobKind, installed: bool, expected: Any
) -> None:
    if not installed:
        cluster.without("jobset.x-k8s.io")
    client = kubernetes_client.connect(lambda seconds: None)
    assert client.namespace == NAMESPACE
    assert choose_kind(client, job_kind) == expected
    assert all(call.verb == "discover" or call.resource == REVIEWS for call in cluster.calls)


@pytest.mark.parametrize("denied", ["jobsets", REVIEWS])
def test_an_account_without_the_role_gets_a_job_unless_a_job_set_is_required(
    cluster: KubernetesServer, denied: str
) -> None:
    cluster.forbidden.add(("create", denied))
    client = kubernetes_client.connect(lambda seconds: None)
    assert choose_kind(client, "auto") == JOBS
    assert choose_kind(client, "jobset") == JOB_SETS


def test_a_required_job_set_must_be_installed(cluster: KubernetesServer) -> None:
    cluster.without("jobset.x-k8s.io")
    with pytest.raises(BadInput, match=r"the cluster has no jobsets\.jobset\.x-k8s\.io") as caught:
        choose_kind(kubernetes_client.connect(lambda seconds: None), "jobset")
    assert "set jobKind: auto" in caught.value.fix


def test_discovery_survives_an_api_server_that_restarts(cluster: KubernetesServer) -> None:
    cluster.faults.fail("500", 1)
    waits: list[float] = []
    assert choose_kind(kubernetes_client.connect(waits.append), "auto") == JOB_SETS
    assert len(waits) == 1
