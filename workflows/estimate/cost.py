"""Duration of tuning on a GPU, and its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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

NODE_GIB_PER_SECOND = 1.0
"""Bandwidth between nodes, over Ethernet of 10 Gbit/s; InfiniBand is faster. Not measured here."""
MIN_SPEEDUP_PER_NODE = 0.6
"""Speed per node, relative to a single one, below which more nodes do not pay: cost grows by its reciprocal."""

NODE_HOURS = 0.2
"""A GPU node of AKS is ready 5 to 11 minutes after the request."""
DOWNLOAD_GIB_PER_HOUR = 360
"""0.1 GiB/s from the hub, for the first download."""


@dataclass(frozen=True)
class Time:
    """Hours of a tuning."""

    tokens_per_second: float
    start_hours: float
    """Hours until training starts: node start and download of the base model."""
    hours_per_thousand_rows: float
    """Training hours per 1,000 rows (all epochs), if every row has the maximum number of tokens."""
    training_hours: float | None
    """Training hours, if ``max_steps`` or the number of rows is known; otherwise None."""
    speedup: float = 1.0
    """Training speed of all nodes, relative to one."""

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
    nodes: int = 1,
) -> Time | None:
    """Return the duration of tuning on an instance type; None if the GPU's throughput is unknown.

    Processes are data-parallel. If the layers are placed on several GPUs, one computes at a time. A sharded model is
    gathered twice per batch, forward and backward.
    """
    if sku.tflops is None:
        return None
    speed = tokens_per_second(shapes, training, sku.tflops)
    speed = training.tokens / (training.tokens / speed + _gathering_seconds(shapes, training))
    if training.processes > 1:
        speed *= training.processes * DATA_PARALLEL_EFFICIENCY
    speedup = node_speedup(shapes, training, sku.tflops, accumulation, nodes)
    speed *= speedup
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
        speedup=speedup,
    )


def node_speedup(shapes: Shapes, training: Training, tflops: float, accumulation: int, nodes: int) -> float:
    """Return the speed of a training on several nodes, relative to one.

    They split the batch of one node, so each GPU computes fewer rows per step, less efficiently. After each step the
    gradients of the adapter cross the network: 2 (N - 1) / N times their size for each node (ring all-reduce).
    """
    if nodes == 1:
        return 1.0

    def seconds(batch_size: int, batches: int) -> float:
        batch = replace(training, batch_size=batch_size)
        return batches * (batch.tokens / tokens_per_second(shapes, batch, tflops) + _gathering_seconds(shapes, batch))

    rows = math.ceil(training.batch_size * accumulation / nodes)
    batches = math.ceil(rows / training.batch_size)
    gradients = shapes.adapter_parameters(training.rank, training.targets) * training.adapter_bytes / GIB
    exchange = 2 * (nodes - 1) / nodes * gradients / NODE_GIB_PER_SECOND
    efficiency = DATA_PARALLEL_EFFICIENCY if training.processes == 1 else 1.0  # else counted within the node
    one = seconds(training.batch_size, accumulation)
    return one / (seconds(math.ceil(rows / batches), batches) / efficiency + exchange)


def _gathering_seconds(shapes: Shapes, training: Training) -> float:
    """Return the time per batch in which a sharded model is gathered, forward and backward."""
    return 2 * weights_sent(shapes, training) / GIB / GATHERED_GIB_PER_SECOND
