"""Settings that a plan leaves to argotune's defaults, where KAITO 0.12 would use another value.

KAITO reads the ConfigMap of ``tuning.config``, or its template ``lora-params-template`` or ``qlora-params-template``
(charts/kaito/workspace/templates). Keys that the file lacks have the defaults of the classes that KAITO parses it into
(presets/workspace/tuning/text-generation: cli.py, fine_tuning.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workflows.plan.model import Plan
from workflows.spec import Manifest

CLASS_DEFAULTS: Mapping[str, Any] = {
    "tuning.epochs": 3.0,
    "tuning.maxSteps": -1,
    "tuning.learningRate": 2e-5,
    "tuning.batchSize": 8,
    "tuning.maxLength": 1024,
    "tuning.seed": 42,
    "tuning.rank": 8,
    "tuning.alpha": 8,
    "tuning.dropout": 0.0,
    "data.shuffle": True,
    "data.seed": 42,
    "data.evalSplit": 0.2,
}
"""Defaults of trl.SFTConfig, peft.LoraConfig and KAITO's DatasetConfig."""
TEMPLATE: Mapping[str, Any] = {**CLASS_DEFAULTS, "tuning.batchSize": 1, "data.evalSplit": 0.0}
"""Values of KAITO's templates, the same for both methods."""
SCHEDULE = (("lr_scheduler_type", "cosine", "linear"), ("warmup_steps", "0.05", "0"))
"""TrainingArguments: argotune's default (``steps.tune.training_config``), trl's."""
QUANTIZATION = (("bnb_4bit_quant_type", "nf4", "fp4"), ("bnb_4bit_use_double_quant", "true", "false"))
"""QuantizationConfig: argotune's default (``steps.models.model``), transformers'. KAITO's template has argotune's."""
PHI_3_TARGETS = "k_proj, q_proj, v_proj, o_proj, gate_proj, down_proj, up_proj"
"""KAITO's layers of presets that begin with phi-3."""


@dataclass(frozen=True)
class Difference:
    """A default that differs."""

    field: str
    """Path in the plan, or key of KAITO's ``training_config.yaml``."""
    argotune: str
    kaito: str


def title(manifest: Manifest) -> str:
    """Return where KAITO's values come from."""
    if name := manifest.training.config_map:
        return f"KAITO's defaults for keys that ConfigMap {name} lacks"
    method = manifest.workspace.tuning.method.lower() if manifest.workspace.tuning else ""
    return f"KAITO's {method}-params-template"


def differences(plan: Plan, manifest: Manifest) -> list[Difference]:
    """Return the defaults of a plan that differ from KAITO's; empty without tuning."""
    if not plan.tuning or plan.tuning.objective != "sft":  # KAITO has no other objective
        return []
    return [*_values(plan, manifest), *_targets(plan, manifest), *_arguments(plan, manifest)]


def _values(plan: Plan, manifest: Manifest) -> Iterator[Difference]:
    kaito = CLASS_DEFAULTS if manifest.training.config_map else TEMPLATE
    searched = {f"tuning.{name}" for name in plan.search.parameters} if plan.search else set()
    for path, value, origin in plan.values():
        if origin == "built-in" and path in kaito.keys() - searched and value != kaito[path]:
            yield Difference(path, f"{value:g}", f"{kaito[path]:g}")


def _targets(plan: Plan, manifest: Manifest) -> Iterator[Difference]:
    """Yield the layers with an adapter, unless the user chose them."""
    assert plan.tuning and manifest.workspace.tuning
    if not plan.origin("tuning.targetModules").startswith("preset"):
        return
    is_phi_3 = manifest.workspace.tuning.preset.name.lower().startswith("phi-3")
    kaito = PHI_3_TARGETS if is_phi_3 else "PEFT's default for the architecture"
    yield Difference("tuning.targetModules", ", ".join(plan.tuning.target_modules), kaito)


def _arguments(plan: Plan, manifest: Manifest) -> Iterator[Difference]:
    assert plan.tuning
    arguments, quantization = plan.tuning.training_arguments, plan.tuning.quantization_config
    if manifest.training.config_map and plan.tuning.method == "qlora" and quantization.get("load_in_4bit"):
        for key, argotune, kaito in QUANTIZATION:
            if key not in quantization:
                yield Difference(key, argotune, kaito)
    for key, argotune, kaito in SCHEDULE:
        if key not in arguments:
            yield Difference(key, argotune, kaito)
    if not manifest.training.config_map:
        yield Difference("save_strategy", "steps", "no")
    if not arguments.keys() & {"completion_only_loss", "assistant_only_loss"}:
        yield Difference("loss", "answers", "all tokens")
