"""Tuning speed that ``argotune tune-bench`` has measured on this machine, kept for ``argotune plan``.

A measurement is a file of the machine and of the settings that the speed depends on. A file that cannot be read counts
as none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steps.runtime import files, machine
from steps.runtime.json_text import parse_json
from steps.runtime.redaction import redact_secrets
from steps.runtime.signatures import without_signatures
from steps.tune_bench.settings import UNRELATED_FIELDS, Settings
from workflows.plan.model import Plan
from workflows.spec.search import num_trainings

FOLDER = "tune-bench"
"""Folder of the measurements in ``$ARGOTUNE_HOME``."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class Speed(BaseModel):
    """Speed and memory in one dtype: ``steps.tune_bench.settings.Speed``."""

    model_config = ConfigDict(frozen=True)
    dtype: str
    tokens_per_second: Positive
    rows_per_second: Positive
    memory_gib: Positive


class MeasuredSpeed(BaseModel):
    """A measurement: the result of the tune_bench step, with its time and its data."""

    model_config = ConfigDict(frozen=True)
    measured: datetime
    device: str
    dtype: str
    """Dtype that a tuning uses."""
    probe: str = ""
    speeds: Annotated[list[Speed], Field(min_length=1)]
    tokens_per_row: Positive
    rows: Count
    """Rows of the dataset; 0 if unknown."""
    global_batch_size: Annotated[int, Field(ge=1, le=10**9)]
    data: str
    """Digest of the source of the rows; empty if they were generated."""

    @property
    def used(self) -> Speed:
        """The speed in the dtype that a tuning uses."""
        return next((speed for speed in self.speeds if speed.dtype == self.dtype), self.speeds[0])

    @property
    def fastest(self) -> Speed:
        """The dtype with the highest speed."""
        return max(self.speeds, key=lambda speed: speed.tokens_per_second)


@dataclass(frozen=True)
class LocalTime:
    """Hours of a tuning on this machine, from a measurement."""

    speed: MeasuredSpeed
    rows: int | None
    """Training rows, if known."""
    hours_per_thousand_rows: float
    """Training hours per 1,000 rows: all epochs, and all trials of a search."""
    training_hours: float | None
    """Training hours, if ``max_steps`` or the number of rows is known."""
    is_upper_bound: bool
    """True if the rows of the plan were not measured: each counts with the maximum number of tokens."""


def read(home: Path, settings: Settings) -> MeasuredSpeed | None:
    """Return the measurement of these settings on this machine; None if there is none."""
    if not (home / FOLDER).is_dir():
        return None
    try:
        return MeasuredSpeed.model_validate(parse_json(_file(home, settings).read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def write(home: Path, settings: Settings, result: Mapping[str, Any], data: str, now: datetime) -> MeasuredSpeed:
    """Keep the result of the tune_bench step, and return it.

    Raises:
        OSError: The file cannot be written.
    """
    speed = MeasuredSpeed.model_validate({**result, "measured": now, "data": data})
    files.write_json(_file(home, settings), speed.model_dump(mode="json"))
    return speed


def data_digest(plan: Plan) -> str:
    """Return a digest of the source of the rows, for which signatures of URLs do not count."""
    values = plan.data.model_dump(mode="json") if plan.data else {}
    return files.sha256_text(json.dumps(redact_secrets(without_signatures(values)), sort_keys=True))


def local_time(speed: MeasuredSpeed, plan: Plan, rows: int | None = None) -> LocalTime:
    """Return the hours of a plan's tuning; ``rows`` is the number of training rows, else that of the measured data."""
    tuning = plan.tuning
    assert tuning
    same_data = speed.data == data_digest(plan)
    rows = rows or (speed.rows or None if same_data else None)
    # The measured rows were truncated to the same length.
    longest = max(tuning.max_length, speed.tokens_per_row)
    rate = speed.used.rows_per_second * (1 if same_data else speed.tokens_per_row / longest)
    trainings = num_trainings(plan.search)
    hours_per_row = trainings / rate / 3600
    num_rows = tuning.max_steps * speed.global_batch_size if tuning.max_steps > 0 else (rows or 0) * tuning.epochs
    return LocalTime(
        speed=speed,
        rows=rows,
        hours_per_thousand_rows=1000 * hours_per_row * tuning.epochs,
        training_hours=num_rows * hours_per_row if num_rows else None,
        is_upper_bound=not same_data,
    )


def _file(home: Path, settings: Settings) -> Path:
    values = settings.model_dump(mode="json", by_alias=True, exclude=UNRELATED_FIELDS)
    key = files.sha256_text(json.dumps([values, _machine()], sort_keys=True)).removeprefix("sha256:")
    model = re.sub(r"[^a-z0-9.-]+", "-", (settings.preset or settings.model).lower()).strip("-.")[:60]
    return home / FOLDER / f"{model}-{key[:16]}.json"


def _machine() -> list[str | int]:
    """Return what identifies the machine: processor, cores and GPUs."""
    return [machine.processor(), machine.cores(), machine.gpu_text(machine.read(Path.cwd()).gpus)]
