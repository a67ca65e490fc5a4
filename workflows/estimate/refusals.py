"""Problems of plans that do not fit, with settings that do, each verified by an estimate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import presets
from workflows.errors import Problem
from workflows.estimate import memory, shapes
from workflows.estimate.memory import Training
from workflows.estimate.plan_estimate import Estimate, estimate, fits, tuning_fits, usable
from workflows.estimate.serving import MIN_CONTEXT
from workflows.plan.model import Plan

LENGTHS = (8192, 4096, 2048, 1024, 512, 256)
Change = tuple[str, Training]
"""Fix, and the changed settings."""


def refusals(plan: Plan, prices: presets.Prices | None = None) -> list[Problem]:
    """Return a problem for each part of a plan that does not fit; empty if the instance type is unknown."""
    sku = presets.find_sku(plan.resource.instance_type)
    if not sku or fits(plan, sku):
        return []
    found = estimate(plan, prices)
    problems = []
    if found.tuning_fits is False:
        problems.append(_tuning(plan, found))
    # An estimate that is only an upper bound rejects nothing.
    if found.serving_fits is False and found.serving and found.serving.exact:
        problems.append(_serving(found))
    return problems


def _tuning(plan: Plan, found: Estimate) -> Problem:
    assert found.sku and found.tuning and found.training
    parts = [f"{name} {size:.1f}" for name, size in found.tuning.components().items() if size >= 0.05]
    what = (
        f"tuning needs {found.tuning.total:.1f} GiB of GPU memory ({', '.join(parts)}), "
        f"but a GPU of {found.sku.name} has {usable(found.sku):.1f} GiB"
    )
    model, sku = shapes.of(presets.model(plan.model.preset)), found.sku
    ways = fitting_settings(found.training, lambda changed: tuning_fits(memory.tuning(model, changed), sku))
    if found.smallest:
        ways.append(f"resource.instanceType: {found.smallest.name}")
    fix = any_of(ways) or "use a smaller model: no instance type fits and no setting helps"
    return Problem(what, path="resource.instanceType", fix=fix)


def any_of(ways: Sequence[str]) -> str:
    """Join alternative fixes to one sentence; "" if there are none."""
    return f"any one of: {'; '.join(ways)}" if len(ways) > 1 else "".join(ways)


def fitting_settings(training: Training, fitting: Callable[[Training], bool]) -> list[str]:
    """Return each single setting change that makes it fit; otherwise the first combination that does."""
    alone = [
        next((text for text, changed in ways if fitting(changed)), "")
        for ways in (_checkpointed(training), _batches(training), _lengths(training), _quantized(training))
    ]
    if any(alone):
        return [text for text in alone if text]
    combined: list[str] = []
    for step in (_checkpointed, _quantized, _batches, _lengths):
        ways = list(step(training))
        found = next((way for way in ways if fitting(way[1])), None)
        if found:
            return [" and ".join([*combined, found[0]])]
        if ways:  # the largest change
            text, training = ways[-1]
            combined.append(text)
    return []


def _checkpointed(training: Training) -> Iterator[Change]:
    if not training.checkpointing:
        yield "TrainingArguments.gradient_checkpointing: true", replace(training, checkpointing=True)


def _batches(training: Training) -> Iterator[Change]:
    sizes = {*range(1, 65), *(2**power for power in range(7, 20))}
    for size in sorted((size for size in sizes if size < training.batch_size), reverse=True):
        yield (
            f"tuning.batchSize={size} (per_device_train_batch_size; gradient_accumulation_steps keeps its effect)",
            replace(training, batch_size=size),
        )


def _lengths(training: Training) -> Iterator[Change]:
    for length in LENGTHS:
        if length < training.length:
            yield f"tuning.maxLength={length} (max_length)", replace(training, length=length)


def _quantized(training: Training) -> Iterator[Change]:
    if training.method == "lora":
        yield "method: qlora", replace(training, method="qlora")


def _serving(found: Estimate) -> Problem:
    assert found.sku and found.serving and found.server
    room = found.server.utilization * usable(found.sku)
    longest = found.serving.longest(room)
    length = found.server.length
    what = (
        f"serving needs {found.serving.total:.1f} GiB of each GPU"
        f"{f', for one request of {length} tokens' if length else ''}, but vLLM can use {room:.1f} GiB on "
        f"{found.sku.name} (gpu-memory-utilization {found.server.utilization:g})"
    )
    ways = []
    if length and MIN_CONTEXT <= longest < length:
        ways.append(f"vllm.max-model-len: {longest // MIN_CONTEXT * MIN_CONTEXT} in inference_config.yaml")
    if found.smallest:
        ways.append(f"resource.instanceType: {found.smallest.name}")
    fix = any_of(ways) or "use a smaller model: no instance type fits"
    return Problem(what, path="resource.instanceType", fix=fix)


def too_small(plan: Plan, prices: presets.Prices) -> Iterator[Problem]:
    """Yield fallback instance types on which the tuning does not fit; servers use other nodes."""
    for index, size in enumerate(plan.nodes.fallback_instance_types):
        other = plan.resource.model_copy(update={"instance_type": size})
        instead = plan.model_copy(update={"resource": other, "rollout": None})
        path = f"pipeline.nodes.fallbackInstanceTypes[{index}]"
        for problem in refusals(instead, prices):
            yield Problem(problem.message, path=path, fix="remove it, or use a larger instance type")
