"""The estimate of a whole plan: what it needs, whether its machine has it, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import presets
from steps.models import sharding
from steps.tune import lora_init
from workflows.estimate import cost, memory, shapes
from workflows.estimate.memory import Training, TuningMemory
from workflows.estimate.serving import MIN_CONTEXT, Serving, ServingMemory, serving
from workflows.plan.model import Plan

USABLE_SHARE = 0.985
"""Of a GPU's memory, what the driver leaves, where the facts of the machine size don't tell."""
OLDEST = 7.5
"""Compute capability below which no machine is proposed: bitsandbytes' 4-bit kernels and vLLM want this or later."""


@dataclass(frozen=True)
class Estimate:
    """What a plan needs and costs. Memory is in GiB, of the fullest GPU."""

    sku: presets.Sku | None
    """The machine size of the plan; None where it runs on nodes that are already there."""
    nodes: int
    training: Training | None
    tuning: TuningMemory | None
    server: Serving | None
    serving: ServingMemory | None
    smallest: presets.Sku | None
    """The smallest size in service on which all of it fits."""
    price: presets.Price | None
    """Of one node of ``sku`` for an hour."""
    prices: presets.Prices
    time: cost.Time | None
    spot: bool = False
    """Whether the nodes are asked for at the spot price."""

    @property
    def usable(self) -> float | None:
        """Memory of one GPU that programs may use."""
        return usable(self.sku) if self.sku else None

    @property
    def tuning_fits(self) -> bool | None:
        """None where there is nothing to tell."""
        return tuning_fits(self.tuning, self.sku) if self.tuning and self.sku else None

    @property
    def serving_fits(self) -> bool | None:
        """None where there is nothing to tell."""
        return serving_fits(self.serving, self.server, self.sku) if self.serving and self.server and self.sku else None

    def cost(self, hours: float | None) -> float | None:
        """USD for all nodes."""
        return None if self.hourly is None or hours is None else self.hourly * hours * self.nodes

    @property
    def hourly(self) -> float | None:
        """USD of one node for an hour, at the price that is asked for."""
        if self.price is None:
            return None
        return self.price.spot if self.spot and self.price.spot else self.price.regular


def estimate(plan: Plan, prices: presets.Prices | None = None, rows: int | None = None) -> Estimate:
    """The estimate of a plan; ``prices`` are those of the presets unless the site has its own.

    ``rows``: how many there are to train on, where that is known.
    """
    model = presets.model(plan.model.preset)
    sku = presets.sku(plan.resource.instance_type) if plan.resource.instance_type else None
    prices = prices or presets.prices()
    training = training_of(plan, plan.resource.gpus, room=usable(sku) if sku else None)
    server = server_of(plan, plan.resource.gpus)
    tuned = memory.tuning(shapes.of(model), training) if training else None
    return Estimate(
        sku=sku,
        nodes=plan.resource.count,
        training=training,
        tuning=tuned,
        server=server,
        serving=serving(model, server) if server else None,
        smallest=smallest(plan, prices),
        price=prices.usd_per_hour.get(sku.name) if sku else None,
        prices=prices,
        time=_time(plan, model, training, sku, rows) if training and sku else None,
        spot=plan.nodes.spot,
    )


def training_of(plan: Plan, gpus: int, *, checkpointing: bool = True, room: float | None = None) -> Training | None:
    """The settings of a plan's tuning that memory depends on, on a node with so many GPUs; None without tuning.

    Each GPU has a process that trains side by side with the others. Where ``room`` (GiB of one of them) can't hold
    the whole model, they divide its weights, or, where that isn't enough, the layers are spread over the GPUs and one
    process trains. ``sharding`` and ``processes`` of the plan say it otherwise.
    Defaults are those of ``steps.tune``: AdamW, NF4 with constants quantized again, ``checkpointing`` on a GPU alone.
    """
    tuning = plan.tuning
    if not tuning:
        return None
    arguments, quantization = tuning.training_arguments, tuning.quantization_config
    alone = Training(
        method=tuning.method,
        batch_size=max(1, tuning.batch_size),
        length=max(1, tuning.max_length),
        rank=lora_init.written_rank(max(1, tuning.rank), tuning.lora_config),
        targets=tuple(tuning.target_modules),
        checkpointing=_truth(arguments, "gradient_checkpointing", checkpointing),
        optimizer=str(arguments.get("optim", "adamw_torch_fused")),
        bits=8 if _truth(quantization, "load_in_8bit", False) else 4,
        double_quantization=_truth(quantization, "bnb_4bit_use_double_quant", True),
        dropout=tuning.dropout > 0,
        logit_bytes=memory.ALL_LOGITS_BYTES if _number(arguments, "label_smoothing_factor", 0) > 0 else 0,
        answers=2 if tuning.objective == "dpo" else 1,
    )
    count = tuning.processes or max(1, gpus)
    spread = replace(alone, gpus=max(1, gpus))
    if count == 1:
        return spread
    ways = sharding.strategies(tuning.sharding, shardable=tuning.method == "lora" or sharding.can_shard(quantization))
    together = [replace(alone, processes=count, divided=way == "full") for way in ways]
    if room is None:
        return together[0]
    fitting = next((training for training in together if _holds(plan, training, room)), None)
    # ProgressCallback to tune as such, they are not given up; nor are they where nothing fits.
    return fitting or (together[-1] if tuning.processes or tuning.sharding == "full" else spread)


def processes(plan: Plan) -> dict[str, int | str]:
    """What tune is told of processes, where it isn't to find out: how many, and how they hold the base."""
    tuning = plan.tuning
    if tuning is None:
        return {}
    told: dict[str, int | str] = {"processes": tuning.processes} if tuning.processes else {}
    told |= {"sharding": tuning.sharding} if tuning.sharding != "auto" else {}
    if not plan.model.preset or not plan.resource.instance_type:
        return told
    training = training_of(plan, plan.resource.gpus, room=usable(presets.sku(plan.resource.instance_type)))
    if training and training.divided:
        return told | {"sharding": "full"}
    return told | ({"processes": 1} if training and training.gpus > 1 else {})


def _holds(plan: Plan, training: Training, room: float) -> bool:
    return memory.tuning(shapes.of(presets.model(plan.model.preset)), training).total <= room


def server_of(plan: Plan, gpus: int) -> Serving | None:
    """The settings of a plan's server that memory depends on; None without a rollout."""
    if not plan.rollout:
        return None
    rank = lora_init.written_rank(plan.tuning.rank, plan.tuning.lora_config) if plan.tuning else 16
    adapters = len(plan.rollout.adapters) + bool(plan.tuning)
    adapters += bool(adapters)  # room for the one that takes another's place
    allowed = max(8, 1 << (rank - 1).bit_length())  # vLLM has slots of 8, 16, 32... only
    return Serving.of(plan.rollout.server_arguments, max(1, gpus) * plan.resource.count, adapters, allowed)


def context_length(plan: Plan) -> int:
    """Tokens of context to ask vLLM for, where the GPUs don't hold the model's own; 0 where they do, or as given."""
    sku = presets.sku(plan.resource.instance_type) if plan.resource.instance_type else None
    server = server_of(plan, plan.resource.gpus)
    if not sku or not server or server.length or not plan.model.preset:
        return 0
    needed = serving(presets.model(plan.model.preset), server)
    longest = needed.longest(server.utilization * usable(sku))
    return longest // MIN_CONTEXT * MIN_CONTEXT if MIN_CONTEXT <= longest < needed.context_length else 0


def usable(sku: presets.Sku) -> float:
    """Memory of one GPU that programs may use."""
    return sku.usable_memory_gib or USABLE_SHARE * sku.gpu_memory_gib


def tuning_fits(needed: TuningMemory, sku: presets.Sku) -> bool:
    """Whether a tuning fits on a machine that it was estimated for."""
    return needed.total <= usable(sku)


def serving_fits(needed: ServingMemory, server: Serving, sku: presets.Sku) -> bool:
    """Whether a server fits on a machine that it was estimated for."""
    return needed.total <= server.utilization * usable(sku)


def fits(plan: Plan, sku: presets.Sku) -> bool:
    """Whether all of a plan fits on machines of another size."""
    model = presets.model(plan.model.preset)
    training, server = training_of(plan, sku.gpus, room=usable(sku)), server_of(plan, sku.gpus)
    return not (training and not tuning_fits(memory.tuning(shapes.of(model), training), sku)) and not (
        server and not serving_fits(serving(model, server), server, sku)
    )


def smallest(plan: Plan, prices: presets.Prices) -> presets.Sku | None:
    """The size in service with the least GPU memory on which a plan fits, the cheaper where two have as much."""

    def rank(sku: presets.Sku) -> tuple[float, float]:
        price = prices.usd_per_hour.get(sku.name)
        return sku.total_memory_gib, price.regular if price else float("inf")

    offered = [sku for sku in presets.skus() if not sku.retired and (sku.compute_capability or 0) >= OLDEST]
    return min((sku for sku in offered if fits(plan, sku)), key=rank, default=None)


def _time(
    plan: Plan, model: presets.Model, training: Training, sku: presets.Sku, rows: int | None
) -> cost.Time | None:
    assert plan.tuning
    return cost.time(
        shapes.of(model),
        training,
        sku,
        weights_gib=model.weights_gib,
        epochs=plan.tuning.epochs,
        steps=plan.tuning.max_steps,
        accumulation=max(1, int(_number(plan.tuning.training_arguments, "gradient_accumulation_steps", 1))),
        rows=rows,
    )


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    """A number of a map; the default where there is none, which the tune step then refuses."""
    try:
        number = float(values.get(key, default))
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) else default


def _truth(values: Mapping[str, Any], key: str, default: bool) -> bool:
    """A flag of a map, which a ConfigMap may have quoted."""
    value = values.get(key)
    return default if value is None else str(value).lower() in ("true", "1", "yes", "on")
