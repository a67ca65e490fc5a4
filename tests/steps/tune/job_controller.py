"""Fake controllers of JobSets and Jobs, and kubelet: the pods of Jobs run until a test ends them."""

from __future__ import annotations

import copy
from typing import Any

from job_set_controller import NAME as JOB_SET_NAME
from job_set_controller import child_jobs
from kubernetes_server import KubernetesServer

Object = dict[str, Any]
NAMESPACE = "argotune"
JOB_NAME = "batch.kubernetes.io/job-name"


class JobController:
    """Creates the Jobs of each new JobSet and the pods of each new Job, and deletes those of a deleted one."""

    def __init__(self, cluster: KubernetesServer, phase: str = "Running") -> None:
        self.cluster, self.phase = cluster, phase
        self.created: list[Object] = []
        """All Jobs so far."""
        cluster.controllers.append(self.on_event)

    def on_event(self, event: str, document: Object) -> None:
        if document["kind"] == "JobSet" and event == "ADDED":
            for job in child_jobs(document):
                self.cluster.put(job)
        if document["kind"] != "Job":
            return
        if event == "ADDED":
            self.created.append(copy.deepcopy(document))
            for index in range(document["spec"]["completions"]):
                self._create_pod(document, index)
        elif event == "DELETED":
            for pod in self.pods(document["metadata"]["name"]):
                self.cluster.drop(pod)

    def groups(self) -> list[Object]:
        """Return the objects that trainings have created: JobSets, or Jobs of no JobSet."""
        return [
            document
            for plural in ("jobsets", "jobs")
            for document in self.cluster.all(plural)
            if JOB_SET_NAME not in document["metadata"].get("labels", {})
        ]

    def pods(self, job: str = "") -> list[Object]:
        """Return the pods of a Job, or of all Jobs."""
        owned = [pod for pod in self.cluster.all("pods") if JOB_NAME in pod["metadata"].get("labels", {})]
        return [pod for pod in owned if pod["metadata"]["labels"][JOB_NAME] == job or not job]

    def end_pod(self, code: int, message: str = "", reason: str = "Error") -> None:
        """End the first pod that runs."""
        pod = self.pods()[0]
        ended = {"exitCode": code, "reason": reason, "message": message}
        status = {"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"terminated": ended}}]}
        self.cluster.put({**pod, "status": status})

    def set_status(self, status: Object) -> None:
        """Set the status of the first pod."""
        self.cluster.put({**self.pods()[0], "status": status})

    def _create_pod(self, job: Object, index: int) -> None:
        template = copy.deepcopy(job["spec"]["template"])
        name = job["metadata"]["name"]
        template["metadata"]["labels"][JOB_NAME] = name
        template["metadata"] |= {"name": f"{name}-{index}-x", "namespace": NAMESPACE}
        self.cluster.put({"apiVersion": "v1", "kind": "Pod", **template, "status": {"phase": self.phase}})
