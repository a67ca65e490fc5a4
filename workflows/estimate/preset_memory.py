"""Memory of a preset on one GPU, with argotune's defaults, for the list of presets."""

from __future__ import annotations

import presets
from steps.tune.settings import TrainingOptions
from workflows.estimate import memory, shapes
from workflows.estimate.memory import Training
from workflows.estimate.serving import Serving, serving

ADAPTERS = 2
"""Slots of a server: the adapter, and the next one."""


def tuning_gib(model: presets.Model) -> float | None:
    """Return the GiB of tuning with qlora; None if the model is not tuned, or its layers are unknown."""
    if not model.tuning:
        return None
    defaults = TrainingOptions()
    training = Training(
        method="qlora",
        batch_size=defaults.batch_size,
        length=min(defaults.max_length, model.context_length),
        rank=defaults.rank,
        targets=tuple(model.lora_targets),
    )
    try:
        return memory.tuning(shapes.of(model), training).total
    except shapes.UnknownShapes:
        return None


def serving_gib(model: presets.Model) -> float | None:
    """Return the GiB of serving with vLLM, for one request of 1,024 tokens; None if it is not served."""
    if model.cannot_serve:
        return None
    return serving(model, Serving(adapters=ADAPTERS if model.tuning else 0)).total
