"""Sources of the values of a plan: fields of the Workspace, and keys of KAITO's ``training_config.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args, get_origin

from pydantic import BaseModel

from workflows.plan.model import Plan
from workflows.spec.pipeline import Pipeline

# Plan path: path in the Workspace, for fields that the two call differently. Omitted fields are not in the layer.
KAITO_FIELDS = {
    "name": "metadata.name",
    "namespace": "metadata.namespace",
    "resource.instanceType": "resource.instanceType",
    "resource.preferredNodes": "resource.preferredNodes",
    "data.urls": "tuning.input.urls",
    "data.volume": "tuning.input.volumeSource",
    "data.image": "tuning.input.image",
    "data.imagePullSecrets": "tuning.input.imagePullSecrets",
    "output.image": "tuning.output.image",
    "output.pushSecret": "tuning.output.imagePushSecret",
    "output.volume": "tuning.output.volumeSource",
}
PLAN_SECTIONS = {"tune": "tuning"}
"""Blocks of ``pipeline:`` that the plan names differently."""


def _pipeline_fields(
    block: type[BaseModel], section: type[BaseModel], path: str = "", plan_path: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the plan path and the path in the Workspace of each field of ``pipeline:``."""
    for name, field in block.model_fields.items():
        plan_field = section.model_fields[PLAN_SECTIONS.get(name, name)]
        inner, plan_inner = _model(field.annotation), _model(plan_field.annotation)
        paths = f"{path}.{field.alias}", f"{plan_path}.{plan_field.alias}".removeprefix(".")
        if inner and plan_inner:
            yield from _pipeline_fields(inner, plan_inner, *paths)
        else:
            yield paths[1], f"pipeline{paths[0]}"


def _model(annotation: object) -> type[BaseModel] | None:
    """Return the model of ``Model`` or ``Model | None``."""
    parts = () if get_origin(annotation) is list else get_args(annotation)
    kinds = [kind for kind in (annotation, *parts) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


FROM_WORKSPACE: Mapping[str, str] = KAITO_FIELDS | dict(_pipeline_fields(Pipeline, Plan))
# Plan path: its key in KAITO's training_config.yaml. Other keys are passed on as mappings.
FROM_TRAINING_ARGUMENTS = {
    "tuning.epochs": "num_train_epochs",
    "tuning.maxSteps": "max_steps",
    "tuning.learningRate": "learning_rate",
    "tuning.batchSize": "per_device_train_batch_size",
    "tuning.maxLength": "max_length",
    "tuning.seed": "seed",
    "tracking.reportTo": "report_to",
}
FROM_LORA_CONFIG = {
    "tuning.rank": "r",
    "tuning.alpha": "lora_alpha",
    "tuning.dropout": "lora_dropout",
    "tuning.targetModules": "target_modules",
}
# Key of KAITO's DatasetConfig: name of that column in our row formats (steps/data/row_formats.py).
FROM_COLUMNS = {"messages_column": "messages", "context_column": "prompt", "response_column": "completion"}
