"""The GPU time of a run in its report, from the records of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from steps.report.formatting import DASH, format_percent
from steps.report.gpu_usage import CAUSES, GpuNodes, GpuUsage, split
from steps.report.report_data import ReportData
from steps.runtime import gpu_time
from steps.runtime.gpu_time import Attempt
from steps.runtime.pod import is_pod

LABELS = {
    gpu_time.TRAINING: "training",
    gpu_time.EVALUATING: "evaluating",
    gpu_time.LOADING: "loading: image pull, libraries, base model",
    "idle": "idle: between the GPU steps",
}


def read_nodes(values: Mapping[str, Any]) -> GpuNodes:
    """Return the nodes that a run pays for: none locally, and without a price if the values are damaged."""
    nodes = GpuNodes(usd_per_hour=None)
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        nodes = GpuNodes.from_values(values)
    # Trials share the local machine too, which is all nodes at once.
    return nodes if is_pod() else GpuNodes(shares=dict.fromkeys(("tune", "evaluate"), nodes.share("tune")))


def read_usage(attempts: Sequence[Attempt], nodes: GpuNodes, now: datetime | None = None) -> GpuUsage | None:
    """Return the GPU time of a run up to now; None if no GPU step has started.

    Args:
        attempts: all attempts of the GPU steps, by start.
        nodes: nodes of the run.
        now: current time.
    """
    if not attempts:
        return None
    busy = dict.fromkeys(gpu_time.CAUSES, 0.0)
    for attempt in attempts:
        for cause, seconds in attempt.seconds.items():
            busy[cause] += seconds * nodes.share(attempt.step)
    held = ((now or datetime.now(UTC)) - attempts[0].started).total_seconds()
    return split(nodes, busy, held)


def gpu_rows(data: ReportData) -> list[list[str]]:
    """Return the rows of the report's table; empty without GPU time."""
    usage = data.gpu
    if usage is None:
        return []
    rows = [
        [LABELS[cause], f"{usage.minutes(cause):.1f}", format_percent(usage.share(cause)), _usd(usage.usd(cause))]
        for cause in CAUSES
        if usage.seconds.get(cause)
    ]
    return [*rows, ["paid", f"{usage.minutes():.1f}", format_percent(1), _usd(usage.usd())]]


def _usd(usd: float | None) -> str:
    return DASH if usd is None else f"{usd:.2f}"
