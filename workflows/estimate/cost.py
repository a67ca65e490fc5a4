"""Duration of tuning on a GPU, and its cost."""

from __future__ import annotations

from dataclasses import dataclass

import presets
from workflows.estimate.memory import GIB, Training, weights_sent
from workflows.estimate.shapes import Shapes

# Floating point operations per parameter and token: 2 forward, 2 backward to the activations. The frozen base needs no
# weight gradients, which would be 2 more (the usual 6). Checkpointing adds a second forward pass.
FORWARD = 2
BACKWARD = 2

# Share of the GPU's throughput that training reaches with large batches, and the batch size (in tokens) with half of
# that. From published results for these methods and GPUs: docs/ESTIMATES.md.
UTILIZATION = {"lora": 0.48, "qlora": 0.40}
HALF_AT = {"lora": 200, "qlora": 512}

DATA_PARALLEL_EFFICIENCY = 0.9
"""Speed of N data-parallel processes, relative to N times one: each step waits for the process with the longest rows,
and for the adapter's gradients, which are small. Not measured here: docs/ESTIMATES.md."""

GATHERED_GIB_PER_SECOND = 10
"""Bandwidth at which a GPU gathers the weights of a sharded model, without NVLink. Not measured here."""

NODE_HOURS = 0.2
"""A GPU node of AKS is ready 5 to 11 minutes after the request."""
DOWNLOAD_GIB_PER_HOUR = 360
"""0.1 GiB/s from the hub, for the first download."""


@dataclass(frozen=True)
class Time:
    """Hours of a tuning on one node."""

    tokens_per_second: float
    start_hours: float
    """Hours until training starts: node start and download of the base model."""
    hours_per_thousand_rows: float
    """Training hours per 1,000 rows (all epochs), if every row has the maximum number of tokens."""
    training_hours: float | None
    """Training hours, if ``max_steps`` or the number of rows is known; otherwise None."""

    @property
    def total_hours(self) -> float | None:
        """Hours of start and training; None if unknown."""
        return None if self.training_hours is None else self.start_hours + self.training_hours


def tokens_per_second(shapes: Shapes, training: Training, tflops: float) -> float:
    """Return the training speed in tokens per second, including padding."""
    passes = (2 if training.checkpointing else 1) * FORWARD + BACKWARD
    if training.answers > 1:
        passes += FORWARD  # DPO also runs the base model
    # The input embedding is looked up, not multiplied.
    parameters = shapes.linear_parameters + shapes.embedding_parameters
    attention = 2 * shapes.layers * shapes.queries * training.length  # causal: half of all pairs, twice (QK and AV)
    reached = UTILIZATION[training.method] * training.tokens / (training.tokens + HALF_AT[training.method])
    return reached * tflops * 1e12 / (passes * (parameters + attention / FORWARD))


def time(
    shapes: Shapes,
    training: Training,
    sku: presets.Sku,
    weights_gib: float,
    epochs: float,
    steps: int,
    accumulation: int,
    rows: int | None = None,
) -> Time | None:
    """Return the duration of tuning on an instance type; None if the GPU's throughput is unknown.

    Processes are data-parallel. If the layers are placed on several GPUs, one computes at a time. A sharded model is
    gathered twice per batch, forward and backward.
    """
    if sku.tflops is None:
        return None
    speed = tokens_per_second(shapes, training, sku.tflops)
    gathering = 2 * weights_sent(shapes, training) / GIB / GATHERED_GIB_PER_SECOND
    speed = training.tokens / (training.tokens / speed + gathering)
    if training.processes > 1:
        speed *= training.processes * DATA_PARALLEL_EFFICIENCY
    hours_per_thousand = 1000 * training.answers * training.length * epochs / speed / 3600
    if steps > 0:
        training_hours: float | None = steps * accumulation * training.tokens * training.processes / speed / 3600
    else:
        training_hours = None if rows is None else hours_per_thousand * rows / 1000
    return Time(
        tokens_per_second=speed,
        start_hours=NODE_HOURS + weights_gib / DOWNLOAD_GIB_PER_HOUR,
        hours_per_thousand_rows=hours_per_thousand,
        training_hours=training_hours,
    )
