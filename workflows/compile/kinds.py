"""The kinds of Argo objects that a plan becomes: one run, a template to start runs from, or a schedule of runs.

All have the spec that ``dag.py`` compiles. The objects that make runs hand their labels and annotations (the title in
the UI) on by ``workflowMetadata``, since Argo copies none from the object itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workflows.compile.dag import compile_workflow
from workflows.errors import InvalidInput, Problem
from workflows.plan.model import Plan, Schedule

Document = dict[str, Any]


def compile_as(plan: Plan, kind: str = "workflow") -> Document:
    """Compile a plan to the Argo object of a kind: ``workflow``, ``template``, ``cluster-template`` or ``cron``.

    Raises:
        InvalidInput: ``cron`` is asked for, and the Workspace has no schedule.
    """
    return KINDS[kind](plan, compile_workflow(plan))


def _workflow(plan: Plan, workflow: Document) -> Document:
    return workflow


def _template(plan: Plan, workflow: Document) -> Document:
    return _named(plan, workflow, "WorkflowTemplate", _handing_on(workflow))


def _cluster_template(plan: Plan, workflow: Document) -> Document:
    document = _named(plan, workflow, "ClusterWorkflowTemplate", _handing_on(workflow))
    document["metadata"].pop("namespace", None)
    return document


def _cron(plan: Plan, workflow: Document) -> Document:
    if plan.schedule is None:
        fix = 'add pipeline: {schedule: {schedules: ["0 3 * * 0"]}}, or take another kind'
        raise InvalidInput(Problem(f"Workspace {plan.name} has no schedule", "pipeline.schedule", fix=fix))
    spec = {**_times(plan.schedule), "workflowSpec": _handing_on(workflow)}
    return _named(plan, workflow, "CronWorkflow", spec)


KINDS: dict[str, Callable[[Plan, Document], Document]] = {
    "workflow": _workflow,
    "template": _template,
    "cluster-template": _cluster_template,
    "cron": _cron,
}


def _named(plan: Plan, workflow: Document, kind: str, spec: Document) -> Document:
    metadata = {key: value for key, value in workflow["metadata"].items() if key != "generateName"}
    metadata = {"name": plan.name, **metadata}
    return {"apiVersion": workflow["apiVersion"], "kind": kind, "metadata": metadata, "spec": spec}


def _handing_on(workflow: Document) -> Document:
    handed_on = {key: workflow["metadata"][key] for key in ("annotations", "labels")}
    return {**workflow["spec"], "workflowMetadata": handed_on}


def _times(schedule: Schedule) -> Document:
    """The fields of a CronWorkflow; only those that Argo 3.6 has too (``schedule`` is gone from 4.0 on)."""
    stop = schedule.stop_strategy.expression
    return {
        "schedules": schedule.schedules,
        "timezone": schedule.timezone,
        "concurrencyPolicy": schedule.concurrency_policy,
        "startingDeadlineSeconds": schedule.starting_deadline_seconds,
        "successfulJobsHistoryLimit": schedule.successful_jobs_history_limit,
        "failedJobsHistoryLimit": schedule.failed_jobs_history_limit,
        **({"stopStrategy": {"expression": stop}} if stop else {}),
        **({"suspend": True} if schedule.suspend else {}),
    }
