"""Merge Workspace, preset, site profile, environment and flags into one plan.

Each source is a function that returns a layer; ``layers.merge`` merges them, the later winning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

import presets
from steps.models import locations
from steps.runtime.errors import BadInput
from workflows.errors import InvalidInput, Problem
from workflows.plan import checks, overrides
from workflows.plan.layers import Layer, merge
from workflows.plan.model import Plan, attribute
from workflows.plan.node_price import price_layer
from workflows.plan.sources import FROM_COLUMNS, FROM_LORA_CONFIG, FROM_TRAINING_ARGUMENTS, FROM_WORKSPACE
from workflows.spec import Manifest, kaito_annotations, resource_rules
from workflows.spec.workspace import Partition, Resource, Workspace

ANNOTATIONS = {
    kaito_annotations.NODE_CLASS: "nodes.nodeClass",
    kaito_annotations.IMAGE_FAMILY: "nodes.imageFamily",
    kaito_annotations.RUNTIME: "rollout.runtime",
}
"""Paths in the plan of annotations with settings."""


def resolve(
    manifest: Manifest,
    site_values: Mapping[str, Any],
    environment: Mapping[str, Any],
    flags: Mapping[str, Any],
    prices: presets.Prices | None = None,
) -> Plan:
    """Return the plan of one Workspace; ``prices`` default to those of the presets.

    Raises:
        InvalidInput: flags or environment set a section that this Workspace does not have, or values that cannot be
            run.
    """
    layers = [
        _from_preset(manifest),
        Layer("site profile", site_values),
        _from_config_maps(manifest),
        _from_workspace(manifest),
        Layer("environment", environment),
        Layer("flag", flags),
    ]
    _reject_missing_sections(manifest, layers)
    plan = merge(
        [
            _from_instance_type(layers),
            _from_prices(layers, prices or presets.prices()),
            _from_objective(layers),
            *layers,
        ]
    )
    plan = _with_revision(plan)
    if problems := checks.problems(plan):
        raise InvalidInput([_with_source(problem, plan) for problem in problems])
    # Without held-out rows there is nothing to evaluate on.
    return plan if plan.data and plan.data.eval_split else plan.model_copy(update={"evaluation": None})


def _with_revision(plan: Plan) -> Plan:
    """Return the plan with the id of a location on the hub, and without the preset's commit of another repository."""
    model = plan.model
    values: dict[str, str] = {}
    is_default = not plan.origin("model.revision").startswith(("Workspace", "environment", "flag", "site"))
    if locations.has_own_weights(model.repository) and is_default:
        values = {"revision": ""}
    elif model.repository.startswith(locations.HUB):
        with suppress(BadInput):  # reported by the checks
            repository, revision = locations.parse_hub(model.repository)
            values = {"repository": repository}
            if revision or is_default:
                values["revision"] = revision or "main"
    return plan.model_copy(update={"model": model.model_copy(update=values)}) if values else plan


def _from_preset(manifest: Manifest) -> Layer:
    workspace = manifest.workspace
    values: dict[str, Any] = {}
    model = presets.model(workspace.preset.name) if workspace.preset else None
    if model:
        values = {
            "model.preset": model.name,
            "model.repository": model.repository,
            "model.revision": model.revision,
        }
    if model and workspace.tuning:
        values["tuning.targetModules"] = list(model.lora_targets)
    if model and workspace.inference:
        values["rollout.serverArguments"] = dict(model.vllm)
    return Layer(f"preset {model.name}" if model else "template", values)


def _from_instance_type(layers: Sequence[Layer]) -> Layer:
    """Return the GPUs of the instance type; ``checks`` reports one that is unknown."""
    instance_type = _last(layers, "resource.instanceType")
    try:
        sku = presets.find_sku(instance_type) if instance_type else None
    except presets.UnknownSku:
        sku = None
    return Layer(f"SKU {sku.name}", {"resource.gpus": sku.gpus}) if sku else Layer("SKU", {})


def _from_prices(layers: Sequence[Layer], prices: presets.Prices) -> Layer:
    """Return the price of the dearest node that the run can get."""
    first = _last(layers, "resource.instanceType")
    fallbacks = _last(layers, "nodes.fallbackInstanceTypes") or []
    instance_types = [first, *(fallbacks if isinstance(fallbacks, list) else [])] if first else []
    return price_layer(instance_types, prices, spot=bool(_last(layers, "nodes.spot")))


def _from_objective(layers: Sequence[Layer]) -> Layer:
    """Return defaults for pairs of answers, from trl's own LoRA example (trl/scripts/dpo.py)."""
    is_dpo = _last(layers, "tuning.objective") == "dpo"
    return Layer("objective dpo", {"tuning.learningRate": 5e-6, "tuning.epochs": 1} if is_dpo else {})


def _last(layers: Sequence[Layer], path: str) -> Any:
    """Return the value of the last layer that sets one; None if no layer does."""
    return next((layer.values[path] for layer in reversed(layers) if layer.values.get(path)), None)


def _from_config_maps(manifest: Manifest) -> Layer:
    training = manifest.training
    values: dict[str, Any] = {}
    fields: dict[str, str] = {}
    if manifest.workspace.tuning:
        sections = {
            "TrainingArguments": (dict(training.arguments), FROM_TRAINING_ARGUMENTS, "tuning.trainingArguments"),
            "LoraConfig": (dict(training.lora), FROM_LORA_CONFIG, "tuning.loraConfig"),
            "QuantizationConfig": (dict(training.quantization), {}, "tuning.quantizationConfig"),
            "ModelConfig": (dict(training.model), {}, "tuning.modelConfig"),
        }
        for section, (arguments, named, rest) in sections.items():
            for path, key in named.items():
                if key in arguments:
                    values[path] = arguments.pop(key)
                    fields[path] = f"training_config.{section}.{key}"
            if arguments:
                values[rest] = arguments
                fields[rest] = f"training_config.{section}"
        dataset = _data_settings(training.dataset)
        values |= dataset
        fields |= dict.fromkeys(dataset, "training_config.DatasetConfig")
    arguments = _server_arguments(manifest)
    if arguments and manifest.workspace.inference and manifest.workspace.preset:
        values["rollout.serverArguments"] = {**presets.model(manifest.workspace.preset.name).vllm, **arguments}
        fields["rollout.serverArguments"] = "inference_config.vllm"
    source = manifest.source
    origins = {path: f"ConfigMap ({source.file_of(field)}:{source.line(field)})" for path, field in fields.items()}
    return Layer("ConfigMap", values, origins)


def _server_arguments(manifest: Manifest) -> dict[str, Any]:
    """Return the vLLM flags that the Workspace sets; those of its ConfigMap win, as with KAITO."""
    flags: dict[str, Any] = {}
    mode = manifest.workspace.metadata.annotations.get(kaito_annotations.PERFORMANCE_MODE)
    if mode in kaito_annotations.RULES[kaito_annotations.PERFORMANCE_MODE].effective:
        flags["performance-mode"] = mode
    if template := manifest.training.model.get("chat_template"):
        flags["chat-template"] = template  # the adapter was trained with it
    return flags | manifest.inference_config.get("vllm", {})


def _data_settings(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of KAITO's ``DatasetConfig``; its ``train_test_split`` is the share that is trained on."""
    values: dict[str, Any] = {}
    if "shuffle_dataset" in dataset:
        values["data.shuffle"] = dataset["shuffle_dataset"]
    if "shuffle_seed" in dataset:
        values["data.seed"] = dataset["shuffle_seed"]
    if "train_test_split" in dataset:
        values["data.evalSplit"] = round(1 - float(dataset["train_test_split"]), 6)
    columns = {name: dataset[key] for key, name in FROM_COLUMNS.items() if dataset.get(key)}
    # A default name next to another column does not select a format.
    if columns := {name: column for name, column in columns.items() if column != name} or columns:
        values["data.columns"] = columns
    return values


def _from_workspace(manifest: Manifest) -> Layer:
    values: dict[str, Any] = {}
    origins = {}
    for path, value, field in [*_converted_fields(manifest.workspace), *_plain_fields(manifest)]:
        values[path] = value
        origins[path] = _origin(manifest, field)
    for annotation, path in ANNOTATIONS.items():
        value = manifest.workspace.metadata.annotations.get(annotation)
        # The pipeline block wins, and without inference there is no rollout.
        if value and path not in values and (manifest.workspace.inference or not path.startswith("rollout.")):
            values[path] = value.lower() if annotation == kaito_annotations.IMAGE_FAMILY else value
            origins[path] = _origin(manifest, f"metadata.annotations.{annotation}")
    return Layer("Workspace", values, origins)


def _origin(manifest: Manifest, field: str) -> str:
    """Return the file and line of a field; for a default of KAITO's API, or of argotune, its name."""
    if field == "resource.instanceType" and field not in manifest.source.lines:
        return f"default of {manifest.workspace.api_version}"
    return f"Workspace ({manifest.source.file}:{manifest.source.line(field)})" if field else "built-in"


def _converted_fields(workspace: Workspace) -> Iterator[tuple[str, Any, str]]:
    """Yield path, value and field of what the plan stores in another form; "" for a field that is not set.

    A section of the plan exists if it has a value, so each has one.
    """
    if tuning := workspace.tuning:
        yield "tuning.method", tuning.method.lower(), "tuning.method"
        yield "output.image", tuning.output.image, "tuning.output.image" if tuning.output.image else ""
        yield "evaluation.samples", workspace.pipeline.evaluation.samples, ""
    if inference := workspace.inference:
        sources = [item.source for item in inference.adapters]
        adapters = [{"name": item.name, "image": item.image, "volume": item.volume_source} for item in sources]
        yield "rollout.adapters", adapters, "inference.adapters" if adapters else ""
        if inference.template is not None:
            yield "rollout.template", inference.template, "inference.template"
        if secrets := [secret for item in sources for secret in item.image_pull_secrets]:
            yield "rollout.pullSecrets", list(dict.fromkeys(secrets)), "inference.adapters"
    if resource := workspace.resource:
        labels = resource.label_selector.labels
        yield "resource.labels", labels, "resource.labelSelector" if labels else ""
        for path, value in _partition(resource.partition).items():
            yield path, value, "resource.partition"
        if workspace.tuning and resource.count > 1:
            yield "resource.count", resource.count, "resource.count"
        if workspace.inference and _needs_nodes(workspace, resource):
            yield "rollout.nodes", resource.count, "resource.count"
    if labels := {key: value for key, value in workspace.metadata.labels.items() if "kaito.sh/" not in key}:
        yield "labels", labels, "metadata.labels"
    if workspace.preset:
        options = workspace.preset.preset_options
        place = f"{'tuning' if workspace.tuning else 'inference'}.preset.presetOptions"
        if options.model_access_secret:
            yield "model.accessSecret", options.model_access_secret, f"{place}.modelAccessSecret"
        if options.image:
            yield "model.repository", f"{locations.IMAGE}{options.image}", f"{place}.image"
        if options.image_pull_secrets:
            yield "model.imagePullSecret", options.image_pull_secrets[0], f"{place}.imagePullSecrets"


def _needs_nodes(workspace: Workspace, resource: Resource) -> bool:
    """Return True if one of the requested nodes cannot serve the weights."""
    try:
        machine = presets.find_sku(resource.instance_type)
    except presets.UnknownSku:
        return False
    preset = workspace.preset
    return resource_rules.needs_nodes(resource, presets.model(preset.name) if preset else None, machine)


def _plain_fields(manifest: Manifest) -> Iterator[tuple[str, Any, str]]:
    """Yield path, value and field of what the user sets and the plan stores as it is."""
    has = _sections(manifest)
    for path, field in FROM_WORKSPACE.items():
        is_set, value = _set_by_user(manifest.workspace, field)
        if is_set and has.get(path.split(".")[0], True):
            yield path, value, field


def _partition(partition: Partition | None) -> dict[str, Any]:
    if not partition:
        return {}
    if partition.mode == "mig":
        return {"resource.gpus": 1, "resource.gpuResource": f"nvidia.com/mig-{partition.profile}"}
    return {"resource.gpus": partition.count}


def _sections(manifest: Manifest) -> dict[str, bool]:
    """Return which optional sections of a plan the Workspace has."""
    tunes, serves = bool(manifest.workspace.tuning), bool(manifest.workspace.inference)
    return dict.fromkeys(("data", "tuning", "tracking", "evaluation", "output", "approval", "budget"), tunes) | {
        "rollout": serves,
        "schedule": bool(manifest.workspace.pipeline.schedule),
        "search": bool(manifest.workspace.pipeline.search),
    }


def _set_by_user(model: BaseModel, path: str) -> tuple[bool, Any]:
    """Return True if the file sets the field at a dotted path (and not its default), and the value."""
    value: Any = model
    for part in path.split("."):
        if not isinstance(value, BaseModel):
            return False, None
        name = attribute(type(value), part)
        if name not in value.model_fields_set:
            return False, None
        value = getattr(value, name)
    return value is not None, value


def _reject_missing_sections(manifest: Manifest, layers: list[Layer]) -> None:
    """Reject flags and variables of sections that the Workspace does not have: they would add steps."""
    has = _sections(manifest)
    problems = [
        Problem(
            f"{path} is set by {layer.origin}, but the Workspace has no such section",
            file=manifest.source.file,
            fix=f"remove {overrides.FLAG} {path}=... (or {overrides.variable(path)})",
        )
        for layer in layers[-2:]
        for path in layer.values
        if not has.get(path.split(".")[0], True)
    ]
    if problems:
        raise InvalidInput(problems)


def _with_source(problem: Problem, plan: Plan) -> Problem:
    """Add the flag or variable that set the value to a problem of a plan."""
    for path in plan.origins:
        if problem.path == path or problem.path.startswith((f"{path}.", f"{path}[")):
            source = {"flag": overrides.FLAG, "environment": overrides.variable(path)}.get(plan.origin(path), "")
            return replace(problem, file=source or problem.file)
    return problem
