"""The JobSet with the Job of the other nodes, for clusters that manage and queue trainings as JobSets.

https://jobset.sigs.k8s.io. It adds neither restarts nor a network: the first node restarts all nodes, with
smaller batches if one was out of memory, and is found by its address.
"""

from __future__ import annotations

from steps.kubernetes import access_reviews
from steps.kubernetes.client import Kind, KubernetesClient
from steps.kubernetes.errors import Forbidden
from steps.runtime.errors import BadInput
from steps.tune.node_job import Document
from steps.tune.settings import JobKind

JOBS = Kind("batch/v1", "jobs")
JOB_SETS = Kind("jobset.x-k8s.io/v1alpha2", "jobsets")
NAMES = {JOBS: "Job", JOB_SETS: "JobSet"}
REPLICATED_JOB = "nodes"
POLICY_REASON = "PodFailurePolicy"
"""Reason of a Job that failed by its podFailurePolicy: an exit code of ``node_job.FINAL_CODES``."""


def choose_kind(cluster: KubernetesClient, job_kind: JobKind) -> Kind:
    """Return the kind of the object with the pods of the other nodes.

    Raises:
        BadInput: A JobSet is required, but not installed.
    """
    if job_kind == "job":
        return JOBS
    if cluster.has_kind(JOB_SETS) and (job_kind == "jobset" or _is_allowed(cluster)):
        return JOB_SETS
    if job_kind == "jobset":
        raise not_installed()
    return JOBS


def _is_allowed(cluster: KubernetesClient) -> bool:
    """Return False if the account has no role for JobSets, as where argo/install is from before they were used."""
    try:
        if access_reviews.is_allowed(cluster, "create", JOB_SETS):
            return True
    except Forbidden:
        pass  # a cluster whose accounts cannot review their permissions
    print("tune: the account may not use JobSets, so the other nodes get a Job (argo/install/roles.yaml)", flush=True)
    return False


def not_installed() -> BadInput:
    """Return the error of a cluster without JobSet."""
    return BadInput(
        f"the cluster has no {JOB_SETS.qualified} ({JOB_SETS.api_version}), which pipeline.tune.jobKind requires",
        "install JobSet (https://jobset.sigs.k8s.io), or set jobKind: auto",
    )


def build_job_set(job: Document) -> Document:
    """Return the JobSet with a Job: owner, name and labels are those of the Job."""
    spec = dict(job["spec"])
    ttl = spec.pop("ttlSecondsAfterFinished")
    # The Job maps exit codes to a reason, which is all that a rule of a JobSet can match.
    final = {"name": "final", "action": "FailJobSet", "onJobFailureReasons": [POLICY_REASON]}
    return {
        "apiVersion": JOB_SETS.api_version,
        "kind": NAMES[JOB_SETS],
        "metadata": job["metadata"],
        "spec": {
            "replicatedJobs": [{"name": REPLICATED_JOB, "replicas": 1, "template": {"spec": spec}}],
            # No headless Service: all nodes get the address of the first.
            "network": {"enableDNSHostnames": False},
            "failurePolicy": {"maxRestarts": 0, "rules": [final]},
            "ttlSecondsAfterFinished": ttl,
        },
    }


def job_name(kind: Kind, name: str) -> str:
    """Return the name of the Job that has the pods; a JobSet's controller adds that of the replicated Job and 0."""
    return f"{name}-{REPLICATED_JOB}-0" if kind == JOB_SETS else name
