"""GPU time of a run, from the times of its steps: what it paid for, by cause, and the price."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from steps.report.gpu_usage import GpuNodes, GpuUsage, split
from steps.runtime.gpu_time import EVALUATING, LOADING, TRAINING
from steps.runtime.json_text import number
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
        return GpuNodes.from_values(json.loads(str(annotations.get(NODES))))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def usage(run: RunStatus, moment: datetime) -> GpuUsage | None:
    """Return the GPU time of a run up to a moment; None if it is unknown, or no GPU step has started."""
    if run.gpu_nodes is None:
        return None
    busy = dict.fromkeys((TRAINING, EVALUATING, LOADING), 0.0)
    for name, (cause, output) in STEPS.items():
        share = run.gpu_nodes.share(name)
        for step in run.steps:
            if _name(step) != name or not step.started or not step.attempts:
                continue
            if (seconds := number(step.outputs.get(output))) is not None:
                busy[cause] += share * seconds
                busy[LOADING] += share * (number(step.outputs.get(LOAD_SECONDS)) or 0.0)
            elif step.phase != "Pending":
                # A step that runs or has failed has no outputs: its whole time counts for its work.
                busy[cause] += share * _seconds(step.started, step.finished or moment)
    held = _held_seconds(run, moment) if run.gpu_nodes.are_created else 0.0
    return split(run.gpu_nodes, busy, held) if held or any(busy.values()) else None


def _name(step: Step) -> str:
    """Return the name of a step without that of its fan-out and its item."""
    return re.sub(r"\(.*\)", "", step.key).rpartition(".")[2]


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
