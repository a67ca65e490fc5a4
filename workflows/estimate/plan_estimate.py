"""Estimate of a plan: required memory, whether it fits, time and cost."""

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
from workflows.estimate.trials import largest_trial, with_trials
from workflows.plan import node_price
from workflows.plan.model import Plan
from workflows.spec import search

USABLE_SHARE = 0.985
"""Usable share of a GPU's memory, if the instance type does not specify it."""
MIN_COMPUTE_CAPABILITY = 7.5
"""Minimum compute capability of suggested instance types, required by bitsandbytes' 4-bit kernels and vLLM."""


@dataclass(frozen=True)
class Estimate:
    """Memory and cost of a plan. Memory is in GiB, of the GPU that uses the most."""

    sku: presets.Sku | None
    """Instance type of the plan; None for existing nodes."""
    nodes: int
    training: Training | None
    tuning: TuningMemory | None
    server: Serving | None
    serving: ServingMemory | None
    smallest: presets.Sku | None
    """Smallest current instance type on which everything fits."""
    price: presets.Price | None
    """Price of one node of ``sku`` per hour."""
    max_hourly: float
    """USD per hour of the dearest node that the run can get; 0: unknown."""
    max_price_origin: str
    """Origin of that price."""
    prices: presets.Prices
    time: cost.Time | None
    spot: bool = False
    """True if spot nodes are requested."""
    budget_hours: float = 0
    """Hours that the run can hold its nodes; 0: no limit."""
    trials: int = 1
    """Trainings of a search, at most; ``time`` has the hours of all."""

    @property
    def usable(self) -> float | None:
        """Usable memory of one GPU in GiB."""
        return usable(self.sku) if self.sku else None

    @property
    def tuning_fits(self) -> bool | None:
        """True if it fits; None if unknown."""
        return tuning_fits(self.tuning, self.sku) if self.tuning and self.sku else None

    @property
    def serving_fits(self) -> bool | None:
        """True if it fits; None if unknown."""
        return serving_fits(self.serving, self.server, self.sku) if self.serving and self.server and self.sku else None

    def cost(self, hours: float | None) -> float | None:
        """Return the cost of all nodes in USD."""
        return None if self.hourly is None or hours is None else self.hourly * hours * self.nodes

    def max_cost(self, hours: float | None) -> float | None:
        """Return the cost of all nodes in USD, if they are the dearest that the run can get; None if it is unknown."""
        return self.max_hourly * hours * self.nodes if self.max_hourly and hours is not None else None

    @property
    def hourly(self) -> float | None:
        """USD per node and hour, at the spot price if spot nodes are requested."""
        if self.price is None:
            return None
        return self.price.spot if self.spot and self.price.spot else self.price.regular


def estimate(plan: Plan, prices: presets.Prices | None = None, rows: int | None = None) -> Estimate:
    """Return the estimate of a plan.

    ``prices`` default to those of the presets; ``rows`` is the number of training rows, if known.
    """
    model = presets.model(plan.model.preset)
    sku = presets.find_sku(plan.resource.instance_type)
    prices = prices or presets.prices()
    training = training_of(plan, plan.resource.gpus, room=usable(sku) if sku else None)
    server = server_of(plan, plan.resource.gpus)
    tuned = memory.tuning(shapes.of(model), training) if training else None
    return Estimate(
        sku=sku,
        nodes=plan.resource.count if plan.tuning or not plan.rollout else plan.rollout.nodes,
        training=training,
        tuning=tuned,
        server=server,
        serving=serving(model, server) if server else None,
        smallest=smallest(plan, prices),
        price=_price(plan, prices.usd_per_hour.get(sku.name) if sku else None),
        max_hourly=plan.resource.usd_per_hour,
        max_price_origin=plan.origin(node_price.PATH),
        prices=prices,
        time=_time(plan, model, training, sku, rows) if training and sku else None,
        spot=plan.nodes.spot,
        budget_hours=plan.budget_hours if training else 0,
        trials=len(search.trials(plan.search)) if plan.search else 1,
    )


def _price(plan: Plan, listed: presets.Price | None) -> presets.Price | None:
    """Return the listed price, unless the user has set another one."""
    usd = plan.resource.usd_per_hour
    return presets.Price(regular=usd) if usd and not node_price.is_listed(plan) else listed


def training_of(plan: Plan, gpus: int, *, checkpointing: bool = True, room: float | None = None) -> Training | None:
    """Return the memory-relevant settings of a plan's tuning on a node with ``gpus`` GPUs; None without tuning.

    With a search, these are the settings of the largest trial, on its share of the GPUs. Each GPU has a data-parallel
    process. If ``room`` (GiB of one GPU) cannot hold the whole model, the processes shard its weights; if that does
    not fit either, one process places the layers on all GPUs. ``sharding`` and
    ``processes`` of the plan override this. Defaults are those of ``steps.tune``: AdamW, NF4 with double
    quantization, ``checkpointing`` on GPUs only.
    """
    tuning = largest_trial(plan)
    if not tuning:
        return None
    gpus = gpus // plan.search.parallel if plan.search else gpus
    arguments, quantization = tuning.training_arguments, tuning.quantization_config
    single = Training(
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
    spread = replace(single, gpus=max(1, gpus))
    if count == 1:
        return spread
    strategies = sharding.strategies(
        tuning.sharding, shardable=tuning.method == "lora" or sharding.can_shard(quantization)
    )
    parallel = [replace(single, processes=count, sharded=strategy == "full") for strategy in strategies]
    if room is None:
        return parallel[0]
    fitting = next((training for training in parallel if _fits_in(plan, training, room)), None)
    # Explicitly requested processes are kept, and so is sharding if nothing fits; nodes need a process per GPU.
    is_fixed = tuning.processes or tuning.sharding == "full" or plan.resource.count > 1
    return fitting or (parallel[-1] if is_fixed else spread)


def processes(plan: Plan) -> dict[str, int | str]:
    """Return tune's flags for processes and sharding that are not auto-detected."""
    tuning = plan.tuning
    if tuning is None:
        return {}
    flags: dict[str, int | str] = {"processes": tuning.processes} if tuning.processes else {}
    flags |= {"sharding": tuning.sharding} if tuning.sharding != "auto" else {}
    if not plan.model.preset or not plan.resource.instance_type:
        return flags
    sku = presets.find_sku(plan.resource.instance_type)
    training = training_of(plan, plan.resource.gpus, room=usable(sku) if sku else None)
    if training and training.sharded:
        return flags | {"sharding": "full"}
    return flags | ({"processes": 1} if training and training.gpus > 1 else {})


def _fits_in(plan: Plan, training: Training, room: float) -> bool:
    return memory.tuning(shapes.of(presets.model(plan.model.preset)), training).total <= room


def server_of(plan: Plan, gpus: int) -> Serving | None:
    """Return the memory-relevant settings of a plan's server; None without a rollout."""
    if not plan.rollout:
        return None
    tuning = largest_trial(plan)
    rank = lora_init.written_rank(tuning.rank, tuning.lora_config) if tuning else 16
    adapters = len(plan.rollout.adapters) + bool(plan.tuning)
    adapters += bool(adapters)  # one more slot for the next adapter
    allowed = max(8, 1 << (rank - 1).bit_length())  # vLLM supports ranks of 8, 16, 32...
    return Serving.from_flags(plan.rollout.server_arguments, max(1, gpus), adapters, allowed, plan.rollout.nodes)


def context_length(plan: Plan) -> int:
    """Return the context length for vLLM if the GPUs cannot hold the model's; otherwise 0."""
    sku = presets.find_sku(plan.resource.instance_type)
    server = server_of(plan, plan.resource.gpus)
    if not sku or not server or server.length or not plan.model.preset:
        return 0
    needed = serving(presets.model(plan.model.preset), server)
    longest = needed.longest(server.utilization * usable(sku))
    return longest // MIN_CONTEXT * MIN_CONTEXT if MIN_CONTEXT <= longest < needed.context_length else 0


def usable(sku: presets.Sku) -> float:
    """Usable memory of one GPU in GiB."""
    return sku.usable_memory_gib or USABLE_SHARE * sku.gpu_memory_gib


def tuning_fits(needed: TuningMemory, sku: presets.Sku) -> bool:
    """Return True if a tuning fits on the instance type it was estimated for."""
    return needed.total <= usable(sku)


def serving_fits(needed: ServingMemory, server: Serving, sku: presets.Sku) -> bool:
    """Return True if a server fits on the instance type it was estimated for."""
    return needed.total <= server.utilization * usable(sku)


def fits(plan: Plan, sku: presets.Sku) -> bool:
    """Return True if the whole plan fits on another instance type."""
    if plan.search and sku.gpus % plan.search.parallel:
        return False
    model = presets.model(plan.model.preset)
    training, server = training_of(plan, sku.gpus, room=usable(sku)), server_of(plan, sku.gpus)
    return not (training and not tuning_fits(memory.tuning(shapes.of(model), training), sku)) and not (
        server and not serving_fits(serving(model, server), server, sku)
    )


def smallest(plan: Plan, prices: presets.Prices) -> presets.Sku | None:
    """Return the current instance type with the least GPU memory on which a plan fits; on a tie, the cheapest.

    It is of the cloud of the requested instance type; without one, of Azure.
    """
    requested = presets.find_sku(plan.resource.instance_type)
    cloud = requested.cloud if requested else "azure"

    def rank(sku: presets.Sku) -> tuple[float, float]:
        price = prices.usd_per_hour.get(sku.name)
        return sku.total_memory_gib, price.regular if price else float("inf")

    candidates = [
        sku
        for sku in presets.skus()
        if sku.cloud == cloud and not sku.retired and (sku.compute_capability or 0) >= MIN_COMPUTE_CAPABILITY
    ]
    return min((sku for sku in candidates if fits(plan, sku)), key=rank, default=None)


def _time(
    plan: Plan, model: presets.Model, training: Training, sku: presets.Sku, rows: int | None
) -> cost.Time | None:
    tuning = largest_trial(plan)
    assert tuning
    one = cost.time(
        shapes.of(model),
        training,
        sku,
        weights_gib=model.weights_gib,
        epochs=tuning.epochs,
        steps=tuning.max_steps,
        accumulation=max(1, int(_number(tuning.training_arguments, "gradient_accumulation_steps", 1))),
        rows=rows,
        nodes=plan.resource.count,
    )
    return with_trials(one, plan) if one else None


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    """Return a number of a mapping; the default if it is invalid, which the tune step then rejects."""
    try:
        number = float(values.get(key, default))
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) else default


def _truth(values: Mapping[str, Any], key: str, default: bool) -> bool:
    """Return a boolean of a mapping; ConfigMaps can contain it as a string."""
    value = values.get(key)
    return default if value is None else str(value).lower() in ("true", "1", "yes", "on")
