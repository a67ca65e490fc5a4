"""Rules between ``pipeline.search`` and the rest of a plan."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.errors import Problem
from workflows.plan.model import Plan
from workflows.plan.overrides import FLAG, variable
from workflows.plan.sources import FROM_LORA_CONFIG, FROM_TRAINING_ARGUMENTS

PATH = "pipeline.search"


def problems(plan: Plan, *, local: bool) -> Iterator[Problem]:
    """Yield what prevents a search; ``local``: this machine runs it, whatever GPUs the instance type has."""
    search, tuning = plan.search, plan.tuning
    if search is None or tuning is None:
        return
    place = f"{PATH}.parameters"
    if plan.evaluation is None:
        fix = "set pipeline.data.evalSplit: 0.1"
        yield Problem("requires held-out rows, to compare the trials", PATH, fix=fix)
    yield from _overridden(plan)
    if "beta" in search.parameters and tuning.objective != "dpo":
        yield Problem("has no effect with objective sft", f"{place}.beta", fix="remove it")
    if "epochs" in search.parameters and ("maxSteps" in search.parameters or tuning.max_steps > 0):
        yield Problem("has no effect with a maximum of steps", f"{place}.epochs", fix="search maxSteps instead")
    if plan.resource.count > 1:
        message = "several nodes are not supported for a search: its trials share the GPUs of one node"
        yield Problem(message, "resource.count", fix="write count: 1, or remove pipeline.search")
    gpus = plan.resource.gpus
    if not local and gpus % search.parallel:
        plural = "s" if gpus > 1 else ""
        message = f"{search.parallel} trials cannot share the {gpus} GPU{plural} of a node equally"
        divisors = [count for count in range(1, gpus + 1) if gpus % count == 0]
        allowed = f"one of {', '.join(map(str, divisors))}" if gpus > 1 else "1"
        fix = f"set parallel to {allowed}, or use an instance type with more GPUs"
        yield Problem(message, f"{PATH}.parallel", fix=fix)


def warnings(plan: Plan) -> Iterator[Problem]:
    """Yield values of files that the search overrides."""
    for name in plan.search.parameters if plan.search else ():
        path = f"tuning.{name}"
        key = (FROM_TRAINING_ARGUMENTS | FROM_LORA_CONFIG).get(path)
        if key and plan.origin(path).startswith("ConfigMap"):
            section = "LoraConfig" if path in FROM_LORA_CONFIG else "TrainingArguments"
            message = f"overrides {section}.{key} of the ConfigMap"
            yield Problem(message, f"{PATH}.parameters.{name}", fix=f"remove {key} from the ConfigMap")


def _overridden(plan: Plan) -> Iterator[Problem]:
    """Yield flags and variables of settings that the search sets."""
    for name in plan.search.parameters if plan.search else ():
        path = f"tuning.{name}"
        source = {"flag": f"{FLAG} {path}", "environment": variable(path)}.get(plan.origin(path))
        if source:
            yield Problem(f"overrides {source}", f"{PATH}.parameters.{name}", fix=f"remove {source}")
