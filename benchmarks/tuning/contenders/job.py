"""Job of a contender, and its result: what compare.py writes and reads."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""All linear layers get an adapter, in all contenders."""


@dataclass(frozen=True)
class Job:
    """Settings that all contenders share."""

    work: str
    """Directory with ``dataset/train.parquet`` and ``tokens.jsonl``, and for all that the contender writes."""
    model: str
    """Directory of the base model, as ``from_pretrained`` reads it."""
    preset: str
    """The base model's preset, for the tune step."""
    bfloat16: bool
    """True if the CPU computes in bfloat16; otherwise float32."""
    length: int
    """Maximum tokens of a row."""
    seed: int = 42
    rank: int = 8
    batch_size: int = 8
    options: dict[str, Any] = field(default_factory=dict)
    """What distinguishes contenders that share a script."""

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.bfloat16 else "float32"


def read_job() -> Job:
    """Return the job of the command line."""
    return Job(**json.loads(sys.argv[1]))


def read_tokens(job: Job) -> list[dict[str, list[int]]]:
    """Return the rows as ``input_ids`` and ``labels``."""
    return [json.loads(line) for line in (Path(job.work) / "tokens.jsonl").read_text().splitlines()]


def report(
    tokens: int,
    seconds: float,
    losses: Sequence[float],
    packages: Sequence[str],
    operations: Mapping[str, float] | None = None,
) -> None:
    """Print the result as the last line.

    Args:
        tokens: Trained tokens without padding.
        seconds: Seconds of the training loop.
        losses: Loss of each step.
        packages: Names of packages whose versions are reported.
        operations: Seconds of each operation, if profiled.
    """
    result = {
        "tokens": int(tokens),
        "seconds": seconds,
        "speed": tokens / seconds,
        "losses": [float(loss) for loss in losses],
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "versions": {package: metadata.version(package) for package in ("torch", *packages)},
        **({"operations": dict(operations)} if operations else {}),
    }
    print("\n" + json.dumps(result), flush=True)
