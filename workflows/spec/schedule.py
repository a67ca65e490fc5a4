"""``pipeline.schedule``: when a Workspace is tuned again. Its fields are those of Argo's CronWorkflow since 3.6."""

from __future__ import annotations

import functools
import re
import zoneinfo
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from workflows.argo import cron
from workflows.spec.fields import Fields

MAX_NAME_LENGTH = 52
"""Longest name of a CronWorkflow: Argo appends a timestamp to it for each run."""


def _cron(text: str) -> str:
    if cron.zone(text):
        raise ValueError(f"{text!r} contains a time zone; set pipeline.schedule.timezone instead")
    try:
        cron.check(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a cron schedule such as 0 3 * * 0 or @daily: {error}") from None
    return text


def _timezone(name: str) -> str:
    zones = _zones()
    # Without a time zone database every name is accepted.
    if zones and name not in zones:
        raise ValueError(f"{name!r} is not a time zone such as Etc/UTC or Europe/Paris")
    return name


@functools.cache
def _zones() -> set[str]:
    return zoneinfo.available_timezones()


def _stop_expression(text: str) -> str:
    if _USUAL_STOP.fullmatch(text):
        return text
    # Imported on demand: building the parser takes a tenth of the compile time.
    from workflows.argo import expressions

    try:
        names = expressions.variables_of(expressions.parse_expression(text))
    except expressions.ExpressionError as error:
        raise ValueError(f"{error}; write an expression such as {_STOP_EXAMPLE}") from None
    unknown = [name for name in names if name not in ("cronworkflow.failed", "cronworkflow.succeeded")]
    if unknown or not names:
        message = f"unknown variable {', '.join(unknown)}" if unknown else f"{text!r} has no variable"
        raise ValueError(f"{message}; write an expression such as {_STOP_EXAMPLE}")
    return text


def _not_empty(schedules: list[str]) -> list[str]:
    if not schedules:
        raise ValueError('must list at least one schedule, such as ["0 3 * * 0"]')
    return schedules


_STOP_EXAMPLE = "cronworkflow.failed >= 3"
_USUAL_STOP = re.compile(r"cronworkflow\.(failed|succeeded) (>=|>|==) [0-9]{1,9}")

Cron = Annotated[str, AfterValidator(_cron)]
Schedules = Annotated[list[Cron], AfterValidator(_not_empty)]
Timezone = Annotated[str, AfterValidator(_timezone)]
StopExpression = Annotated[str, AfterValidator(_stop_expression)]
Seconds = Annotated[int, Field(ge=0, le=7 * 86400)]
History = Annotated[int, Field(ge=0, le=1000)]


class PipelineStopStrategy(Fields):
    """Condition that stops the schedule."""

    expression: StopExpression
    """Condition over ``cronworkflow.failed`` and ``cronworkflow.succeeded``, which count runs."""


class PipelineSchedule(Fields):
    """Schedule of the runs. A run with unchanged data and settings ends before it requests a GPU."""

    schedules: Schedules
    """Cron schedules of five fields, such as ``0 3 * * 0``, or ``@daily`` and the like."""
    timezone: Timezone = "Etc/UTC"
    """IANA name of the time zone of the schedules."""
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Forbid"
    """Policy for a run that is due while the previous one is active: Allow both, Forbid the new one, or Replace the
    active one."""
    starting_deadline_seconds: Seconds = 3600
    """Maximum delay of a missed run (for example after an outage of Argo's controller)."""
    successful_jobs_history_limit: History = 3
    """Number of successful runs to retain."""
    failed_jobs_history_limit: History = 3
    """Number of failed runs to retain, each with its work volume."""
    stop_strategy: PipelineStopStrategy | None = None
    suspend: bool = False
    """Suspend the schedule: no new run starts."""
