"""Rules for a plan and the facts of its model: context, experts, adapters that vLLM serves."""

from __future__ import annotations

from collections.abc import Iterator

import presets
from presets.architectures import EXPERT_LAYERS
from steps.models import locations
from steps.runtime.errors import BadInput
from workflows.errors import Problem
from workflows.plan.model import Plan
from workflows.spec import preset_rules
from workflows.spec.training import ROOT

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def problems(plan: Plan, *, local: bool) -> Iterator[Problem]:
    """Yield what the model of a plan cannot do; ``local``: this machine serves it."""
    if not plan.model.preset:
        return
    model = presets.model(plan.model.preset)
    yield from _location(plan)
    if plan.tuning:
        yield from _too_long(plan, model)
        yield from _experts(plan, model)
    if not local:
        yield from _adapters(plan, model)


def _location(plan: Plan) -> Iterator[Problem]:
    """Yield a repository from which weights cannot be read."""
    model = plan.model
    try:
        locations.check(model.repository, model.revision)
    except BadInput as error:
        is_page = model.repository.startswith("https://")
        yield Problem(
            error.message,
            "model.repository",
            fix=preset_rules.how_to_place(model.repository) if is_page else error.fix,
        )
    if model.secret and not locations.is_store(model.repository):
        message = "has no effect: the base model does not come from an object store"
        yield Problem(message, "model.secret", fix="remove it; HF_TOKEN belongs into presetOptions.modelAccessSecret")
    if model.image_pull_secret and not locations.is_image(model.repository):
        message = "has no effect: the base model does not come from an image"
        yield Problem(message, "model.imagePullSecret", fix="remove it, or set presetOptions.image")


def _too_long(plan: Plan, model: presets.Model) -> Iterator[Problem]:
    assert plan.tuning
    length = plan.tuning.max_length
    if length > model.context_length:
        message = f"{length} exceeds the context of {model.name} ({model.context_length} tokens)"
        fix = f"write max_length: {model.context_length} or less"
        yield Problem(message, f"{ROOT}.TrainingArguments.max_length", fix=fix)


def _experts(plan: Plan, model: presets.Model) -> Iterator[Problem]:
    """Yield models with experts, unless the user chose other layers: most of their weights stay as they are."""
    assert plan.tuning
    targets = [name.rpartition(".")[2] for name in plan.tuning.target_modules]
    unreachable = [name for name in targets if name in (*EXPERT_LAYERS, "all-linear")]
    is_chosen = targets and not plan.origin("tuning.targetModules").startswith("preset")
    if not model.experts or (is_chosen and not unreachable):
        return
    message = (
        f"{model.name} is a mixture of {model.experts} experts, whose weights are three-dimensional parameters; "
        "vLLM does not serve their adapters"
    )
    reachable = [name for name in model.lora_targets if name in ATTENTION] or list(model.lora_targets)
    fix = f"adapt the other layers: LoraConfig.target_modules: [{', '.join(reachable)}]; or choose a dense model"
    path = f"{ROOT}.LoraConfig.target_modules" if is_chosen else "tuning.preset.name"
    yield Problem(message, path, fix=fix)


def _adapters(plan: Plan, model: presets.Model) -> Iterator[Problem]:
    rollout = plan.rollout
    if not rollout or rollout.template is not None or rollout.runtime == "transformers":
        return
    known = presets.vllm_architectures()
    if known.lora.get(model.architecture) or not (plan.tuning or rollout.adapters):
        return
    message = f"vLLM {known.version} serves no adapters of {model.architecture} ({model.name})"
    fix = "set pipeline.rollout.runtime: transformers, or remove inference, or choose another model"
    yield Problem(message, "inference.preset.name", fix=fix)
