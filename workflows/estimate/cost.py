"""How long tuning takes on a GPU, and what the machine costs for that time."""

from __future__ import annotations

from dataclasses import dataclass

import presets
from workflows.estimate.memory import GIB, Training, weights_sent
from workflows.estimate.shapes import Shapes

# Floating point operations of each parameter and token: 2 forward, 2 backward to the activations. The frozen base
# needs no gradients of its weights, which would be 2 more (the usual 6). Checkpointing adds a second forward pass.
FORWARD = 2
BACKWARD = 2

# Share of the GPU's throughput that training reaches with large batches, and the batch (in tokens) at which it is half
# of that. From what others published for these methods on GPUs of this kind: docs/ESTIMATES.md.
UTILIZATION = {"lora": 0.48, "qlora": 0.40}
HALF_AT = {"lora": 200, "qlora": 512}

DATA_PARALLEL_EFFICIENCY = 0.9
"""Share of their speed that processes keep when several train together: each step waits for the one with the longest
rows, and for the adapter's gradients, which are small. Not measured here: docs/ESTIMATES.md."""

GATHERED_GIB_PER_SECOND = 10
"""At which a GPU gets the weights of a divided model from the others, without NVLink. Not measured here."""

NODE_HOURS = 0.2
"""A GPU node of AKS is ready 5 to 11 minutes after it was asked for."""
DOWNLOAD_GIB_PER_HOUR = 360
"""0.1 GiB a second from the hub, the first time."""


@dataclass(frozen=True)
class Time:
    """Hours of a tuning on one machine."""

    tokens_per_second: float
    start_hours: float
    """Until training begins: the node starts, the base model is fetched."""
    hours_per_thousand_rows: float
    """Of training, for each 1,000 rows (all epochs), if every row has the most tokens that are allowed."""
    training_hours: float | None
    """Of training, where ``max_steps`` or the number of rows, which is not known before they are read, tells it."""

    @property
    def total_hours(self) -> float | None:
        """Start and training, where both are known."""
        return None if self.training_hours is None else self.start_hours + self.training_hours


def tokens_per_second(shapes: Shapes, training: Training, tflops: float) -> float:
    """Tokens that pass through training in a second, padding included."""
    passes = (2 if training.checkpointing else 1) * FORWARD + BACKWARD
    if training.answers > 1:
        passes += FORWARD  # DPO asks the base model too
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
    """How long tuning takes on a machine; None where the GPU's throughput is not known.

    Processes train side by side. Where the layers are spread over several GPUs, one of them computes at a time. A
    divided model is gathered for each batch twice, to go forward and to go back.
    """
    if sku.tflops is None:
        return None
    speed = tokens_per_second(shapes, training, sku.tflops)
    gathering = 2 * weights_sent(shapes, training) / GIB / GATHERED_GIB_PER_SECOND
    speed = training.tokens / (training.tokens / speed + gathering)
    if training.processes > 1:
        speed *= training.processes * DATA_PARALLEL_EFFICIENCY
    of_a_thousand = 1000 * training.answers * training.length * epochs / speed / 3600
    if steps > 0:
        whole: float | None = steps * accumulation * training.tokens * training.processes / speed / 3600
    else:
        whole = None if rows is None else of_a_thousand * rows / 1000
    return Time(
        tokens_per_second=speed,
        start_hours=NODE_HOURS + weights_gib / DOWNLOAD_GIB_PER_HOUR,
        hours_per_thousand_rows=of_a_thousand,
        training_hours=whole,
    )
