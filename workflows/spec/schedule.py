"""``pipeline.schedule``: when a Workspace is tuned anew. Its fields are those of Argo's CronWorkflow since 3.6."""

from __future__ import annotations

import functools
import re
import zoneinfo
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from workflows.argo import cron
from workflows.spec.fields import Fields

MAX_NAME_LENGTH = 52
"""Of a CronWorkflow: Argo adds a time to it for the name of each run."""


def _cron(text: str) -> str:
    if cron.zone(text):
        raise ValueError(f"{text!r} names a time zone; write it as pipeline.schedule.timezone")
    try:
        cron.check(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no cron schedule: {error}; write one like 0 3 * * 0 or @daily") from None
    return text


def _timezone(name: str) -> str:
    zones = _zones()
    # A machine without a time zone database can't tell.
    if zones and name not in zones:
        raise ValueError(f"there is no time zone {name!r}; write one like Etc/UTC or Europe/Paris")
    return name


@functools.cache
def _zones() -> set[str]:
    return zoneinfo.available_timezones()


def _stop_expression(text: str) -> str:
    if _USUAL_STOP.fullmatch(text):
        return text
    # Imported for the others alone: to make the parser takes a tenth of the time of compiling.
    from workflows.argo import expressions

    try:
        names = expressions.variables_of(expressions.parse_expression(text))
    except expressions.ExpressionError as error:
        raise ValueError(f"{error}; write an expression like {_STOP_EXAMPLE}") from None
    unknown = [name for name in names if name not in ("cronworkflow.failed", "cronworkflow.succeeded")]
    if unknown or not names:
        said = f"{', '.join(unknown)} is not known here" if unknown else f"{text!r} looks at nothing"
        raise ValueError(f"{said}; write an expression like {_STOP_EXAMPLE}")
    return text


def _some(schedules: list[str]) -> list[str]:
    if not schedules:
        raise ValueError('names no time; write one like ["0 3 * * 0"]')
    return schedules


_STOP_EXAMPLE = "cronworkflow.failed >= 3"
_USUAL_STOP = re.compile(r"cronworkflow\.(failed|succeeded) (>=|>|==) [0-9]{1,9}")

Cron = Annotated[str, AfterValidator(_cron)]
Schedules = Annotated[list[Cron], AfterValidator(_some)]
Timezone = Annotated[str, AfterValidator(_timezone)]
StopExpression = Annotated[str, AfterValidator(_stop_expression)]
Count = Annotated[int, Field(ge=0)]
Concurrency = Literal["Allow", "Forbid", "Replace"]


class PipelineStopStrategy(Fields):
    """When the schedule ends by itself."""

    expression: StopExpression
    """Over ``cronworkflow.failed`` and ``cronworkflow.succeeded``, which count runs."""


class PipelineSchedule(Fields):
    """When the Workspace is tuned anew. A turn that finds data and settings unchanged ends at once, before any GPU."""

    schedules: Schedules
    """Times in cron's five fields, as in ``0 3 * * 0``, or ``@daily`` and the like."""
    timezone: Timezone = "Etc/UTC"
    """A name of the IANA database; the schedules are read in it."""
    concurrency_policy: Concurrency = "Forbid"
    """What happens when a turn comes while the one before is at work: both, none, or the new one alone."""
    starting_deadline_seconds: Count = 3600
    """How late a turn that was missed, because Argo's controller was down, may still start."""
    successful_jobs_history_limit: Count = 3
    """Runs that are kept."""
    failed_jobs_history_limit: Count = 3
    """Failed runs that are kept, each with its work volume."""
    stop_strategy: PipelineStopStrategy | None = None
    suspend: bool = False
    """Whether no turn starts until this is changed."""
