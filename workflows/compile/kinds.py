"""The kinds of Argo objects that a plan compiles to: a single run, a template of runs, or a schedule of runs.

All have the spec that ``dag.py`` compiles. Templates and schedules pass their labels and annotations (the title in the
UI) to their runs by ``workflowMetadata``, since Argo copies none from the object itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from workflows.compile.dag import compile_workflow
from workflows.errors import InvalidInput, Problem
from workflows.plan.model import Plan, Schedule

Document = dict[str, Any]
MAX_BYTES = 1 << 20
"""Largest object: etcd takes 1.5 MiB with the status, and a pod gets its template as a ConfigMap of 1 MiB."""


def compile_as(plan: Plan, kind: str = "workflow") -> Document:
    """Compile a plan to the Argo object of a kind: ``workflow``, ``template``, ``cluster-template`` or ``cron``.

    Raises:
        InvalidInput: ``cron`` for a Workspace without a schedule, or an object that Kubernetes does not store.
    """
    document = KINDS[kind](plan, compile_workflow(plan))
    size = len(json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass"))
    if size > MAX_BYTES:
        message = f"the {document['kind']} has {size:,} bytes; Kubernetes stores at most {MAX_BYTES:,}"
        fix = "use fewer or shorter URLs, or a volume or an image as input, and shorter texts"
        raise InvalidInput(Problem(message, f"Workspace {plan.name}", fix=fix))
    return document


def _workflow(plan: Plan, workflow: Document) -> Document:
    return workflow


def _template(plan: Plan, workflow: Document) -> Document:
    return _document(plan, workflow, "WorkflowTemplate", _spec(workflow))


def _cluster_template(plan: Plan, workflow: Document) -> Document:
    document = _document(plan, workflow, "ClusterWorkflowTemplate", _spec(workflow))
    document["metadata"].pop("namespace", None)
    return document


def _cron(plan: Plan, workflow: Document) -> Document:
    if plan.schedule is None:
        fix = 'add pipeline: {schedule: {schedules: ["0 3 * * 0"]}}, or use another kind'
        raise InvalidInput(Problem(f"Workspace {plan.name} has no schedule", "pipeline.schedule", fix=fix))
    spec = {**_schedule(plan.schedule), "workflowSpec": _spec(workflow)}
    return _document(plan, workflow, "CronWorkflow", spec)


KINDS: dict[str, Callable[[Plan, Document], Document]] = {
    "workflow": _workflow,
    "template": _template,
    "cluster-template": _cluster_template,
    "cron": _cron,
}


def _document(plan: Plan, workflow: Document, kind: str, spec: Document) -> Document:
    metadata = {key: value for key, value in workflow["metadata"].items() if key != "generateName"}
    metadata = {"name": plan.name, **metadata}
    return {"apiVersion": workflow["apiVersion"], "kind": kind, "metadata": metadata, "spec": spec}


def _spec(workflow: Document) -> Document:
    """Return the spec, with labels and annotations for the runs."""
    metadata = {key: workflow["metadata"][key] for key in ("annotations", "labels")}
    return {**workflow["spec"], "workflowMetadata": metadata}


def _schedule(schedule: Schedule) -> Document:
    """Return the fields of a CronWorkflow that Argo 3.6 and later have (4.0 removed ``schedule``)."""
    stop = schedule.stop_strategy
    return {
        "schedules": schedule.schedules,
        "timezone": schedule.timezone,
        "concurrencyPolicy": schedule.concurrency_policy,
        "startingDeadlineSeconds": schedule.starting_deadline_seconds,
        "successfulJobsHistoryLimit": schedule.successful_jobs_history_limit,
        "failedJobsHistoryLimit": schedule.failed_jobs_history_limit,
        **({"stopStrategy": {"expression": stop.expression}} if stop else {}),
        **({"suspend": True} if schedule.suspend else {}),
    }
