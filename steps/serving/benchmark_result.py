"""The result of a benchmark of a served model: in the work folder of a run, its report and its status."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.runtime import json_text

FILE = Path("report", "benchmark.json")
"""Result of the last benchmark, in the work folder of a run."""
MAX_BYTES = 10_000


@dataclass(frozen=True)
class Benchmark:
    """The result of a benchmark."""

    model: str
    date: str
    concurrency: int
    input_tokens: int
    output_tokens: int
    requests: int
    """Answered requests."""
    failed: int
    seconds: float
    requests_per_second: float
    output_tokens_per_second: float
    total_tokens_per_second: float
    """Prompts and answers."""
    first_token_ms: float
    """Median time to the first token."""
    first_token_p99_ms: float

    def __str__(self) -> str:
        return (
            f"{self.output_tokens_per_second:.4g} output tokens/s, {self.requests_per_second:.3g} requests/s, "
            f"first token after {self.first_token_ms:.0f} ms (median; p99: {self.first_token_p99_ms:.0f} ms), "
            f"{self.concurrency} requests at a time"
        )

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics as in the field ``status.performance`` of KAITO's Workspace."""
        config = {
            "concurrency": self.concurrency,
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
        }
        described = {
            "totalTokensPerMinute": ("tokens of prompts and answers", 60 * self.total_tokens_per_second, "tokens/min"),
            "outputTokensPerSecond": ("tokens of answers", self.output_tokens_per_second, "tokens/s"),
            "requestsPerSecond": ("answered requests", self.requests_per_second, "requests/s"),
            "timeToFirstToken": ("median time to the first token", self.first_token_ms, "ms"),
        }
        return {
            name: {"description": text, "value": f"{value:.6g}", "unit": unit, "config": config}
            for name, (text, value, unit) in described.items()
        }


def read(work: Path) -> Benchmark | None:
    """Return the result in the work folder of a run; None if there is none that can be read."""
    try:
        with (work / FILE).open("rb") as file:
            return from_text(file.read(MAX_BYTES))
    except OSError:
        return None


def from_text(text: str | bytes) -> Benchmark | None:
    """Return the benchmark of a JSON text; None if it has none."""
    try:
        values = json_text.parse_json(text)
        return from_record(values) if isinstance(values, dict) else None
    except ValueError:
        return None


def from_record(values: Mapping[str, Any]) -> Benchmark:
    """Return the benchmark of its fields, as ``dataclasses.asdict`` writes them.

    Raises:
        ValueError: a field is missing or has the wrong type.
    """
    read: dict[str, Any] = {}
    for field in dataclasses.fields(Benchmark):
        value = values.get(field.name)
        if field.type != "str":
            value = number(value)
            value = int(value) if value is not None and field.type == "int" else value
        if value is None or (field.type == "str" and not isinstance(value, str)):
            raise ValueError(f"no {field.type} {field.name}")
        read[field.name] = value
    return Benchmark(**read)


def number(value: Any) -> float | None:
    """Return a finite number that is not negative; None for anything else."""
    found = None if isinstance(value, str) else json_text.number(value)
    return None if found is None or found < 0 else found
