"""A small controller of JobSets, for clusters that have their CRD and not their controller.

It behaves as JobSet documents (https://jobset.sigs.k8s.io/docs/concepts, commit 08dfbdfd): child Jobs
JOBSET-REPLICATEDJOB-INDEX with its labels, a headless Service, restarts by recreation, failure and success policy, and
status. It omits what argotune does not use: dependsOn, exclusive placement, suspension, in-place restarts, TTL.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import custom_resources

from steps.kubernetes.client import Kind, KubernetesClient
from steps.kubernetes.errors import AlreadyExists
from steps.runtime.errors import StepError

Object = dict[str, Any]
JOB_SETS = Kind("jobset.x-k8s.io/v1alpha2", "jobsets")
JOBS = Kind("batch/v1", "jobs")
SERVICES = Kind("v1", "services")
PREFIX = "jobset.sigs.k8s.io"
NAME = f"{PREFIX}/jobset-name"
REPLICATED_JOB = f"{PREFIX}/replicatedjob-name"
RESTART = f"{PREFIX}/restart-attempt"
POLL_SECONDS = 1.0
DATA = Path(__file__).parent / "data" / "jobset"


class JobSetController:
    """Reconciles the JobSets of a namespace."""

    def __init__(self, cluster: KubernetesClient, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.seen: dict[str, Object] = {}
        """Last state of each JobSet by name, also of deleted ones."""
        self.errors: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Reconcile in a thread until the context ends."""
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(300)

    def reconcile(self) -> None:
        """Bring each JobSet one step further."""
        for job_set in self.cluster.list(JOB_SETS, self.namespace):
            name = job_set["metadata"]["name"]
            if "deletionTimestamp" not in job_set["metadata"]:
                self.seen[name] = job_set
                self._reconcile(job_set)

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(POLL_SECONDS):
            try:
                self.reconcile()
            except StepError as error:  # it follows in the next round
                self.errors.append(error.message)

    def _reconcile(self, job_set: Object) -> None:
        status: Object = copy.deepcopy(job_set.get("status") or {})
        restarts = int(status.get("restarts", 0))
        jobs = self._jobs(job_set)
        current = [job for job in jobs if job["metadata"]["labels"].get(RESTART) == str(restarts)]
        old = [job for job in jobs if job not in current]
        status["replicatedJobsStatus"] = [
            _replicated_status(item["name"], current) for item in job_set["spec"]["replicatedJobs"]
        ]
        if status.get("terminalState"):
            old += [job for job in current if _condition(job) is None]
        elif failed := [job for job in current if _condition(job) == "Failed"]:
            _apply_failure_policy(job_set, status, failed)
        elif _has_succeeded(job_set, current):
            _finish(status, "Completed", "AllJobsCompleted", "jobset completed successfully")
        else:
            self._create(job_set, restarts, jobs)
        for job in old:
            self.cluster.delete(JOBS, job["metadata"]["name"], self.namespace, policy="Foreground")
        if status != job_set.get("status"):
            name = job_set["metadata"]["name"]
            body = {"restarts": restarts, "restartsCountTowardsMax": 0, **status}
            self.cluster.patch(JOB_SETS, name, {"status": body}, self.namespace, subresource="status")

    def _jobs(self, job_set: Object) -> list[Object]:
        """Return the child Jobs, also those of earlier attempts that are being deleted."""
        name, uid = job_set["metadata"]["name"], job_set["metadata"]["uid"]
        jobs = self.cluster.list(JOBS, self.namespace, labels=f"{NAME}={name}")
        return [job for job in jobs if any(owner["uid"] == uid for owner in job["metadata"]["ownerReferences"])]

    def _create(self, job_set: Object, restarts: int, existing: Sequence[Object]) -> None:
        """Create the headless Service and the missing Jobs; one of an earlier attempt is deleted first."""
        names = {job["metadata"]["name"] for job in existing}
        missing = [job for job in child_jobs(job_set, restarts) if job["metadata"]["name"] not in names]
        objects = [(SERVICES, service) for service in headless_services(job_set) if not existing]
        for kind, body in [*objects, *((JOBS, job) for job in missing)]:
            try:
                self.cluster.create(kind, body, self.namespace)
            except AlreadyExists:
                continue


def job_set_crd() -> Object:
    """Return the CustomResourceDefinition of JobSets; its schema is JobSet's (tests/data/jobset)."""
    schema, status = (json.loads((DATA / f"jobset-{part}.json").read_text()) for part in ("crd", "status"))
    return custom_resources.definition(JOB_SETS, "JobSet", schema, status)


def child_jobs(job_set: Object, restarts: int = 0) -> list[Object]:
    """Return the Jobs of an attempt."""
    name, namespace = job_set["metadata"]["name"], job_set["metadata"].get("namespace", "default")
    jobs = []
    for replicated in job_set["spec"]["replicatedJobs"]:
        for index in range(int(replicated.get("replicas", 1))):
            template = copy.deepcopy(replicated["template"])
            own = f"{name}-{replicated['name']}-{index}"
            keys = {
                NAME: name,
                REPLICATED_JOB: replicated["name"],
                RESTART: str(restarts),
                f"{PREFIX}/replicatedjob-replicas": str(replicated.get("replicas", 1)),
                f"{PREFIX}/job-index": str(index),
                f"{PREFIX}/job-key": hashlib.sha1(f"{namespace}/{own}".encode()).hexdigest(),
            }
            pod = template["spec"]["template"]
            for metadata in (template.setdefault("metadata", {}), pod.setdefault("metadata", {})):
                for field in ("labels", "annotations"):
                    metadata[field] = {**(metadata.get(field) or {}), **keys}
            if subdomain := _subdomain(job_set):
                pod["spec"]["subdomain"] = subdomain
            metadata = {"name": own, "namespace": namespace, "ownerReferences": [_owner(job_set)]}
            spec = {**template["spec"], "suspend": False}
            jobs.append(
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": {**template["metadata"], **metadata},
                    "spec": spec,
                }
            )
    return jobs


def headless_services(job_set: Object) -> list[Object]:
    """Return the Service by which pods find each other; none without DNS names."""
    subdomain = _subdomain(job_set)
    if not subdomain:
        return []
    network = job_set["spec"].get("network") or {}
    spec = {
        "clusterIP": "None",
        "selector": {NAME: job_set["metadata"]["name"]},
        "publishNotReadyAddresses": network.get("publishNotReadyAddresses", True),
    }
    metadata = {"name": subdomain, "namespace": job_set["metadata"]["namespace"], "ownerReferences": [_owner(job_set)]}
    return [{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}]


def _subdomain(job_set: Object) -> str:
    network = job_set["spec"].get("network") or {}
    if not network.get("enableDNSHostnames", True):
        return ""
    return str(network.get("subdomain") or job_set["metadata"]["name"])


def _owner(job_set: Object) -> Object:
    owner = {"apiVersion": job_set["apiVersion"], "kind": "JobSet", "name": job_set["metadata"]["name"]}
    return {**owner, "uid": job_set["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}


def _condition(job: Object) -> str | None:
    """Return ``Complete`` or ``Failed``; None while a Job runs."""
    return next((one["type"] for one in _true_conditions(job) if one["type"] in ("Complete", "Failed")), None)


def _replicated_status(name: str, jobs: Sequence[Object]) -> Object:
    """Return the numbers of Jobs of a replicated Job; one is ready if all its pods are, or have succeeded."""
    own = [job for job in jobs if job["metadata"]["labels"][REPLICATED_JOB] == name]
    result = {"name": name, "ready": 0, "succeeded": 0, "failed": 0, "active": 0, "suspended": 0}
    for job in own:
        condition, status = _condition(job), job.get("status") or {}
        if condition:
            result["succeeded" if condition == "Complete" else "failed"] += 1
            continue
        done = int(status.get("ready") or 0) + int(status.get("succeeded") or 0)
        result["ready"] += done >= int(job["spec"].get("parallelism", 1))
        result["active"] += int(status.get("active") or 0) > 0
    return result


def _true_conditions(job: Object) -> list[Object]:
    conditions = (job.get("status") or {}).get("conditions") or []
    return [one for one in conditions if one["status"] == "True"]


def _has_succeeded(job_set: Object, jobs: Sequence[Object]) -> bool:
    """Return True if the Jobs of the success policy are complete: all, or any of them."""
    policy = job_set["spec"].get("successPolicy") or {}
    replicated = job_set["spec"]["replicatedJobs"]
    targets = policy.get("targetReplicatedJobs") or [one["name"] for one in replicated]
    expected = sum(int(one.get("replicas", 1)) for one in replicated if one["name"] in targets)
    complete = [
        job for job in jobs if _condition(job) == "Complete" and job["metadata"]["labels"][REPLICATED_JOB] in targets
    ]
    return len(complete) >= (1 if policy.get("operator") == "Any" else expected)


def _apply_failure_policy(job_set: Object, status: Object, failed: Sequence[Object]) -> None:
    """Fail the JobSet, or begin a restart: by the first rule that matches, or else ``RestartJobSet``."""
    policy, first = job_set["spec"].get("failurePolicy"), failed[0]["metadata"]["name"]
    if policy is None:
        message = "jobset failed due to one or more job failures"
        return _finish(status, "Failed", "FailedJobs", f"{message} (first failed job: {first})")
    rules = policy.get("rules") or []
    matches = ((rule, job) for rule in rules for job in failed if _matches(rule, job))
    rule, job = next(matches, ({"action": "RestartJobSet"}, failed[0]))
    action, first = rule["action"], job["metadata"]["name"]
    counted = int(status.get("restartsCountTowardsMax", 0))
    if action == "FailJobSet":
        message = "jobset failed due to FailJobSet failure policy action"
        return _finish(status, "Failed", "FailJobSetFailurePolicyAction", f"{message} (first failed job: {first})")
    if action == "RestartJobSet" and counted >= int(policy.get("maxRestarts", 0)):
        message = "jobset failed due to reaching max number of restarts"
        return _finish(status, "Failed", "ReachedMaxRestarts", f"{message} (first failed job: {first})")
    assert action in ("RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"), f"{action} is not implemented"
    status["restarts"] = int(status.get("restarts", 0)) + 1
    status["restartsCountTowardsMax"] = counted + (action == "RestartJobSet")
    return None


def _matches(rule: Object, job: Object) -> bool:
    reasons = [one.get("reason") for one in _true_conditions(job) if one["type"] == "Failed"]
    expected, targets = rule.get("onJobFailureReasons"), rule.get("targetReplicatedJobs")
    is_reason = not expected or any(reason in expected for reason in reasons)
    return is_reason and (not targets or job["metadata"]["labels"][REPLICATED_JOB] in targets)


def _finish(status: Object, state: str, reason: str, message: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    condition = {"type": state, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
    status["conditions"] = [*(status.get("conditions") or []), condition]
    status["terminalState"] = state
