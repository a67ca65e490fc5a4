"""The pods of the other nodes of a training: created for each attempt, watched, and deleted after it.

The step's own pod is node 0. It keeps the work volume, which only one node can mount, and logs, reports progress and
fails as for a single node. A retry of the step first deletes what the lost attempt has left.
"""

from __future__ import annotations

import secrets
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.claims import CLAIMS
from steps.kubernetes.client import PODS, Document
from steps.kubernetes.errors import AlreadyExists
from steps.runtime import errors, files, termination
from steps.runtime.errors import StepError
from steps.runtime.pod import namespace_flag
from steps.runtime.retry import RetryPolicy
from steps.tune import node_job, node_job_set
from steps.tune.launcher import TERMINATED, Failure
from steps.tune.layout import Layout, NodeLost, NodeOutOfMemory, NodesUnavailable
from steps.tune.node_job import FIRST, GROUP_LABEL, JOB_LABEL
from steps.tune.node_job_set import JOB_SETS, JOBS, NAMES
from steps.tune.settings import Settings

POLL_SECONDS = 5.0
START_TIMEOUT_SECONDS = 1800.0
"""Time until all pods run: the nodes exist, but a large image is pulled first."""
GRACE = timedelta(seconds=30)
"""Time that the kubelet needs to report a pod as ended, after its grace period."""
KILLED = 137
FINAL_REASONS = ("InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull")
MANY_NODES = {"ReadWriteMany", "ReadOnlyMany"}
ERRORS: dict[int, type[StepError]] = {
    kind.exit_code: kind
    for kind in (errors.BadInput, errors.GateFailed, errors.InsufficientCapacity, errors.TimeLimit)
}


class NodePods:
    """The other nodes; ``OtherNodes`` of the launcher."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        # All nodes have the same number of processes, also if their instance types differ.
        self.settings = settings.model_copy(update={"processes": layout.processes})
        self.cluster = kubernetes_client.connect()
        # A poll that waits would hide the failure of a rank: the next one follows soon.
        self.polls = self.cluster.with_retry(RetryPolicy(max_attempts=1))
        self.own = self._read_own_pod()
        self.group = _group(self.own, settings)
        self.kind = node_job_set.choose_kind(self.cluster, settings.job_kind)
        self.kind_name = NAMES[self.kind]
        self.job = self.warning = ""
        self.polled = self.started = 0.0
        self.are_running = self.have_run = False

    def start(self, layout: Layout, oom_retries: int) -> None:
        """Create the Job or JobSet of an attempt; first delete those of earlier ones, also of a lost pod of the step.

        Raises:
            BadInput: The service account has no permission, or the object is rejected.
            StepError: The API server does not respond.
        """
        self._delete_jobs()
        shared = [claim for claim in node_job.claims(self.own) if self._is_shared(claim)]
        self.job = f"{self.group}-{secrets.token_hex(3)}"
        body = node_job.build_job(self.own, self.job, self.group, self.settings, layout, oom_retries, shared)
        if self.kind == JOB_SETS:
            body = node_job_set.build_job_set(body)
        with suppress(AlreadyExists):  # the response to an earlier attempt was lost: no other object has this name
            self.cluster.create(self.kind, body)
        self.started, self.are_running = time.monotonic(), False
        print(f"created {self.kind_name} {self.job}: {layout.nodes - 1} more nodes", flush=True)

    def stop(self) -> None:
        """Delete the Job or JobSet, and with it its pods."""
        try:
            self._delete_jobs()
        except StepError as error:
            # Its pods end without rank 0, and Kubernetes deletes it together with this pod.
            print(f"warning: {error.message}", flush=True)

    def failure(self) -> Failure | None:
        """Return the failure of a pod, the cause of all before its consequences; None while the API is unavailable."""
        now = time.monotonic()
        if not self.job or now - self.polled < POLL_SECONDS:
            return None
        self.polled = now
        try:
            job_name = node_job_set.job_name(self.kind, self.job)
            pods = self.polls.list(PODS, labels=f"{JOB_LABEL}={job_name}")
            jobs = self.polls.list(self.kind, labels=f"{GROUP_LABEL}={self.group}")
        except StepError as error:  # a training does not end because of the API server
            if error.message != self.warning:  # once, not for each poll
                print(f"warning: {error.message}", flush=True)
            self.warning = error.message
            return None
        self.warning = ""
        found = [failure for pod in pods if (failure := _pod_failure(pod))]
        if found:
            return min(found, key=_precedence)
        job = next((job for job in jobs if job["metadata"]["name"] == self.job), None)
        if job is None or _has_failed(job):
            return Failure(NodeLost(f"the pods of {self.kind_name} {self.job} are gone"))
        return None if self.are_running else self._start_failure(pods, now)

    def _start_failure(self, pods: list[Document], now: float) -> Failure | None:
        """Return a failure if the pods cannot start, or do not in time."""
        waiting = [pod for pod in pods if (pod.get("status") or {}).get("phase") in (None, "Pending")]
        expected = self.settings.nodes - 1
        if len(pods) >= expected and not waiting:
            self.are_running = self.have_run = True
            print("all nodes are running", flush=True)
            return None
        name, reason, is_final = next(
            ((pod["metadata"]["name"], *_waiting_reason(pod)) for pod in waiting), ("", "", 0)
        )
        if is_final:
            fix = f"see kubectl describe pod {name}{namespace_flag(self.cluster.namespace)}"
            return Failure(StepError(f"pod {name} cannot start: {reason}", fix))
        if now - self.started < START_TIMEOUT_SECONDS:
            return None
        what = f"pod {name} is pending: {reason}" if waiting else self._missing(len(pods), expected)
        minutes = f"{START_TIMEOUT_SECONDS / 60:.0f} minutes"
        message = f"not all nodes run after {minutes}: {what}"
        if self.have_run:  # a lost node has no replacement yet
            return Failure(NodeLost(message))
        fix = "check quotas and free GPUs, or set a lower resource.count"
        return Failure(NodesUnavailable(message, fix))

    def _missing(self, pods: int, expected: int) -> str:
        controller = "; is its controller running?" if self.kind == JOB_SETS and not pods else ""
        return f"{self.kind_name} {self.job} has {pods} of {expected} pods{controller}"

    def _delete_jobs(self) -> None:
        # An earlier attempt can have created a Job, before JobSet was installed.
        for kind in dict.fromkeys((self.kind, JOBS)):
            for job in self.cluster.list(kind, labels=f"{GROUP_LABEL}={self.group}"):
                self.cluster.delete(kind, job["metadata"]["name"])
        self.job = ""

    def _is_shared(self, claim: str) -> bool:
        found: Document = self.cluster.get(CLAIMS, claim) or {}
        return bool(MANY_NODES & set((found.get("spec") or {}).get("accessModes") or []))

    def _read_own_pod(self) -> Document:
        name = socket.gethostname()  # at most 63 characters of the pod's name
        labeled = self.cluster.list(PODS, labels=f"{GROUP_LABEL}={FIRST}")
        pods = [pod for pod in labeled if pod["metadata"]["name"][:63].rstrip("-.") == name]
        if not pods:
            raise StepError(f"pod {name} not found", "remove hostname and hostNetwork from the pods of tune")
        return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def _group(own: Document, settings: Settings) -> str:
    """Return a name that all attempts of a training have in common, and no other training."""
    metadata = own["metadata"]
    workflow = [owner["uid"] for owner in metadata.get("ownerReferences") or []] or [metadata["uid"]]
    return f"argotune-tune-{files.sha256_text(f'{workflow[0]} {settings.work}').removeprefix('sha256:')[:10]}"


def _pod_failure(pod: Document) -> Failure | None:
    """Return the failure of a pod; None while it runs, and after it has succeeded."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        ended: dict[str, Any] = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return _from_exit_code(name, ended)
    if status.get("phase") == "Failed" or _is_overdue(pod):
        return Failure(NodeLost(f"pod {name} was lost: {status.get('message') or status.get('reason') or 'deleted'}"))
    return None


def _is_overdue(pod: Document) -> bool:
    """Return True if a deleted pod has not ended in its grace period, in which it saves a checkpoint."""
    deadline = pod["metadata"].get("deletionTimestamp")
    return bool(deadline) and datetime.now(UTC) > datetime.fromisoformat(deadline) + GRACE


def _from_exit_code(pod: str, ended: Document) -> Failure:
    code = int(ended["exitCode"])
    message, fix = termination.parse(str(ended.get("message") or ""))
    message = f"pod {pod}: {message or f'exited with code {code}'}"
    if code == NodeOutOfMemory.exit_code:
        return Failure(None)
    if ended.get("reason") == "OOMKilled":
        return Failure(NodesUnavailable(f"pod {pod} exceeded its memory limit", "raise the limit in pods.tune"))
    if code in (NodeLost.exit_code, KILLED, TERMINATED):
        return Failure(NodeLost(message), is_root_cause=code != NodeLost.exit_code)
    return Failure(ERRORS.get(code, StepError)(message, fix or f"see kubectl logs {pod}{namespace_flag()}"))


def _precedence(failure: Failure) -> int:
    """Return the rank of a failure: errors that fail the step, then lack of memory, then lost nodes."""
    if failure.error is None:
        return 1
    if not isinstance(failure.error, NodeLost):
        return 0
    return 2 if failure.is_root_cause else 3


def _has_failed(job: Document) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Failed" and one["status"] == "True" for one in conditions)


def _waiting_reason(pod: Document) -> tuple[str, bool]:
    """Return why a pod does not run, and True if waiting longer does not help."""
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if reason := waiting.get("reason"):
            return f"{reason}: {waiting.get('message', '')}", reason in FINAL_REASONS
    scheduled = [one for one in status.get("conditions") or [] if one["type"] == "PodScheduled"]
    return next((str(one.get("message") or one.get("reason") or "") for one in scheduled), "not scheduled yet"), False
