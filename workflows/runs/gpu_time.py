"""GPU time of a run, from the times of its steps: what it paid for, by cause, and the price."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from steps.report.gpu_usage import GpuNodes, GpuUsage, split
from steps.report.report_data import number
from steps.runtime.gpu_time import EVALUATING, LOADING, TRAINING
from workflows.runs.status import RunStatus
from workflows.runs.step import Step

NODES = "argotune.dev/gpu-nodes"
"""Annotation of a Workflow with its GPUs, their price, and whether the run creates them."""
STEPS = {"tune": (TRAINING, "train-seconds"), "evaluate": (EVALUATING, "evaluate-seconds")}
"""Cause of the GPU steps, and the output with its seconds."""
LOAD_SECONDS = "load-seconds"


def nodes_from_annotations(annotations: Mapping[str, Any]) -> GpuNodes | None:
    """Return the nodes that a Workflow pays for; None if its annotation is absent or damaged."""
    try:
        values = json.loads(str(annotations.get(NODES)))
        gpus, usd = number(values["gpus"]), values["usdPerHour"]
        return GpuNodes(int(gpus or 0), None if usd is None else number(usd), values["created"] is True)
    except (ValueError, KeyError, TypeError):
        return None


def usage(run: RunStatus, moment: datetime) -> GpuUsage | None:
    """Return the GPU time of a run up to a moment; None if it is unknown, or no GPU step has started."""
    if run.gpu_nodes is None:
        return None
    busy = dict.fromkeys((TRAINING, EVALUATING, LOADING), 0.0)
    for step in run.steps:
        cause, output = STEPS.get(step.key.rpartition(".")[2].partition("(")[0], ("", ""))
        if cause and step.started and step.attempts:
            measured = number(step.outputs.get(output))
            # A step that runs or has failed has no outputs: its whole time counts for its work.
            busy[cause] += _seconds(step.started, step.finished or moment) if measured is None else measured
            busy[LOADING] += number(step.outputs.get(LOAD_SECONDS)) or 0.0
    held = _held_seconds(run, moment) if run.gpu_nodes.are_created else 0.0
    return split(run.gpu_nodes, busy, held) if held or any(busy.values()) else None


def _held_seconds(run: RunStatus, moment: datetime) -> float:
    """Return how long the run has had the nodes that it created: from the end of provision to that of release."""
    provision, release = run.step("provision"), run.step("release")
    if provision is None or provision.phase != "Succeeded" or provision.finished is None:
        return 0.0
    return _seconds(provision.finished, _end(release) or run.finished or moment)


def _end(release: Step | None) -> datetime | None:
    return release.finished if release else None


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())
