"""The GPU time of a run in its report, from the records of its steps and the plan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from steps.provision.node_providers import CREATING_PROVIDERS
from steps.report.formatting import DASH, format_percent
from steps.report.gpu_usage import CAUSES, GpuNodes, GpuUsage, split
from steps.report.report_data import ReportData, number
from steps.runtime import gpu_time
from steps.runtime.pod import is_pod

LABELS = {
    gpu_time.TRAINING: "training",
    gpu_time.EVALUATING: "evaluating",
    gpu_time.LOADING: "loading: image pull, libraries, base model",
    "idle": "idle: between the GPU steps",
}


def read_usage(work: Path, setting: Callable[[str], str], now: datetime | None = None) -> GpuUsage | None:
    """Return the GPU time of a run up to now; None if no GPU step has started.

    Args:
        work: work folder of the run.
        setting: value of the plan at a path.
        now: current time.
    """
    attempts = gpu_time.read(work)
    if not attempts:
        return None
    busy = {cause: gpu_time.sum_seconds(attempts, cause) for cause in gpu_time.CAUSES}
    held = ((now or datetime.now(UTC)) - attempts[0].started).total_seconds()
    return split(_nodes(setting), busy, held)


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


def _nodes(setting: Callable[[str], str]) -> GpuNodes:
    if not is_pod():
        return GpuNodes()
    count = number(setting("resource.count")) or 1
    created = setting("nodes.provider") in CREATING_PROVIDERS and bool(setting("resource.instanceType"))
    price = number(setting("resource.usdPerHour"))
    return GpuNodes(int((number(setting("resource.gpus")) or 0) * count), price * count if price else None, created)


def _usd(usd: float | None) -> str:
    return DASH if usd is None else f"{usd:.2f}"
