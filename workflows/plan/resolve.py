"""Workspace, preset, site profile, environment and flags become one plan.

Each source is a function that gives a layer; ``plan_layers.merge`` lays them over each other, the later winning.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

import presets
from workflows.errors import InvalidInput, Problem
from workflows.plan import checks
from workflows.plan.layers import Layer, merge
from workflows.plan.model import Plan, attribute
from workflows.plan.sources import FROM_COLUMNS, FROM_LORA_CONFIG, FROM_TRAINING_ARGUMENTS, FROM_WORKSPACE
from workflows.spec import Manifest, kaito_annotations
from workflows.spec.workspace import Partition


def resolve(
    manifest: Manifest, site_values: Mapping[str, Any], environment: Mapping[str, Any], flags: Mapping[str, Any]
) -> Plan:
    """The plan of one Workspace.

    Raises:
        InvalidInput: when flags or environment set a part that this Workspace does not have, or values that no run
            can honour.
    """
    layers = [
        _from_preset(manifest),
        Layer("site profile", site_values),
        _from_config_maps(manifest),
        _from_workspace(manifest),
        Layer("environment", environment),
        Layer("flag", flags),
    ]
    _refuse_absent_parts(manifest, layers)
    plan = merge([_from_size(layers), _from_objective(layers), *layers])
    if wrong := checks.problems(plan):
        raise InvalidInput(wrong)
    # Without held-out rows there is nothing to evaluate on.
    return plan if plan.data and plan.data.eval_split else plan.model_copy(update={"evaluation": None})


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


def _from_size(layers: Sequence[Layer]) -> Layer:
    """What the size of the nodes tells, whoever chose it; of one that is not known, ``plan_checks`` tells."""
    chosen = [layer.values["resource.instanceType"] for layer in layers if layer.values.get("resource.instanceType")]
    try:
        sku = presets.sku(chosen[-1]) if chosen else None
    except presets.UnknownSku:
        sku = None
    return Layer(f"SKU {sku.name}", {"resource.gpus": sku.gpus}) if sku else Layer("SKU", {})


def _from_objective(layers: Sequence[Layer]) -> Layer:
    """What pairs of answers want where nobody says otherwise: trl's own example for LoRA (trl/scripts/dpo.py)."""
    chosen = [layer.values["tuning.objective"] for layer in layers if layer.values.get("tuning.objective")]
    values = {"tuning.learningRate": 5e-6, "tuning.epochs": 1} if chosen and chosen[-1] == "dpo" else {}
    return Layer("objective dpo", values)


def _from_config_maps(manifest: Manifest) -> Layer:
    training = manifest.training
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    if manifest.workspace.tuning:
        sections = {
            "TrainingArguments": (dict(training.arguments), FROM_TRAINING_ARGUMENTS, "tuning.trainingArguments"),
            "LoraConfig": (dict(training.lora), FROM_LORA_CONFIG, "tuning.loraConfig"),
            "QuantizationConfig": (dict(training.quantization), {}, "tuning.quantizationConfig"),
            "ModelConfig": (dict(training.model), {}, "tuning.modelConfig"),
        }
        for section, (given, named, rest) in sections.items():
            for path, key in named.items():
                if key in given:
                    values[path] = given.pop(key)
                    places[path] = f"training_config.{section}.{key}"
            if given:
                values[rest] = given
                places[rest] = f"training_config.{section}"
        dataset = _data_settings(training.dataset)
        values |= dataset
        places |= dict.fromkeys(dataset, "training_config.DatasetConfig")
    served = _server_arguments(manifest)
    if served and manifest.workspace.inference and manifest.workspace.preset:
        values["rollout.serverArguments"] = {**presets.model(manifest.workspace.preset.name).vllm, **served}
        places["rollout.serverArguments"] = "inference_config.vllm"
    source = manifest.source
    origins = {path: f"ConfigMap ({source.file}:{source.line(place)})" for path, place in places.items()}
    return Layer("ConfigMap", values, origins)


def _server_arguments(manifest: Manifest) -> dict[str, Any]:
    """Flags of vLLM that the Workspace sets; those of its ConfigMap win, as with KAITO."""
    given: dict[str, Any] = {}
    mode = manifest.workspace.metadata.annotations.get(kaito_annotations.PERFORMANCE_MODE)
    if mode in kaito_annotations.RULES[kaito_annotations.PERFORMANCE_MODE].honoured:
        given["performance-mode"] = mode
    if template := manifest.training.model.get("chat_template"):
        given["chat-template"] = template  # what the adapter was taught with
    return given | manifest.inference_config.get("vllm", {})


def _data_settings(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """KAITO's ``DatasetConfig``; its ``train_test_split`` is the share that is trained on."""
    values: dict[str, Any] = {}
    if "shuffle_dataset" in dataset:
        values["data.shuffle"] = dataset["shuffle_dataset"]
    if "shuffle_seed" in dataset:
        values["data.seed"] = dataset["shuffle_seed"]
    if "train_test_split" in dataset:
        values["data.evalSplit"] = round(1 - float(dataset["train_test_split"]), 6)
    if columns := {known: dataset[key] for key, known in FROM_COLUMNS.items() if dataset.get(key, known) != known}:
        values["data.columns"] = columns
    return values


def _from_workspace(manifest: Manifest) -> Layer:
    workspace = manifest.workspace
    values: dict[str, Any] = {}
    if workspace.tuning:
        values["tuning.method"] = workspace.tuning.method.lower()
        values["output.image"] = workspace.tuning.output.image
        values["evaluation.samples"] = workspace.pipeline.evaluation.samples
    if workspace.inference:
        values["rollout.adapters"] = [
            {"name": item.source.name, "image": item.source.image, "volume": item.source.volume_source}
            for item in workspace.inference.adapters
        ]
        if workspace.inference.template is not None:
            values["rollout.template"] = workspace.inference.template
        if secrets := [secret for item in workspace.inference.adapters for secret in item.source.image_pull_secrets]:
            values["rollout.pullSecret"] = secrets[0]
    parts = _parts(manifest)
    origins = {}
    for path, field in FROM_WORKSPACE.items():
        if not parts.get(path.split(".")[0], True):
            continue
        found, value = _written(workspace, field)
        if found:
            values[path] = value
            origins[path] = f"Workspace ({manifest.source.file}:{manifest.source.line(field)})"
    if workspace.resource:
        values["resource.labels"] = workspace.resource.label_selector.labels
        values |= _partition(workspace.resource.partition)
    if labels := {key: value for key, value in workspace.metadata.labels.items() if "kaito.sh/" not in key}:
        values["labels"] = labels
    if node_class := workspace.metadata.annotations.get(kaito_annotations.NODE_CLASS):
        values["nodes.nodeClass"] = node_class
        place = manifest.source.line(f"metadata.annotations.{kaito_annotations.NODE_CLASS}")
        origins["nodes.nodeClass"] = f"Workspace ({manifest.source.file}:{place})"
    if workspace.preset and (secret := workspace.preset.preset_options.model_access_secret):
        values["model.accessSecret"] = secret
    return Layer("Workspace", values, origins)


def _partition(partition: Partition | None) -> dict[str, Any]:
    if not partition:
        return {}
    if partition.mode == "mig":
        return {"resource.gpus": 1, "resource.gpuResource": f"nvidia.com/mig-{partition.profile}"}
    return {"resource.gpus": partition.count}


def _parts(manifest: Manifest) -> dict[str, bool]:
    """Which parts of a plan the Workspace has; those not named here it always has."""
    tunes, serves = bool(manifest.workspace.tuning), bool(manifest.workspace.inference)
    scheduled = bool(manifest.workspace.pipeline.schedule)
    return dict.fromkeys(("data", "tuning", "tracking", "evaluation", "output", "approval"), tunes) | {
        "rollout": serves,
        "schedule": scheduled,
    }


def _written(model: BaseModel, path: str) -> tuple[bool, Any]:
    """Whether the user wrote the field at a dotted path (rather than its default standing there), and its value."""
    value: Any = model
    for part in path.split("."):
        if not isinstance(value, BaseModel):
            return False, None
        name = attribute(type(value), part)
        if name not in value.model_fields_set:
            return False, None
        value = getattr(value, name)
    return value is not None, value


def _flags(sets: Sequence[str]) -> dict[str, Any]:
    return _checked([(*item.partition("="), f"--set {item}") for item in sets])


def _environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """``ARGOTUNE_TUNING__EPOCHS=1`` sets ``tuning.epochs``."""
    by_name = {"ARGOTUNE_" + path.replace(".", "__").upper(): path for path in Plan.paths() if "." in path}
    return _checked(
        [
            (by_name.get(name, name), "=", value, name)
            for name, value in environment.items()
            if name.startswith("ARGOTUNE_") and "__" in name
        ]
    )


def _checked(given: Sequence[tuple[str, str, str, str]]) -> dict[str, Any]:
    known = Plan.paths()
    values: dict[str, Any] = {}
    problems = []
    for path, equals, value, source in given:
        if not equals:
            problems.append(Problem(f"{source}: no '='", fix="--set PATH=VALUE"))
        elif path not in known:
            near = difflib.get_close_matches(path, known, 1)
            fix = f"did you mean {near[0]}?" if near else "'argotune plan FILE' lists all paths"
            problems.append(Problem(f"{source}: {path} is not of the plan", fix=fix))
        else:
            try:
                values[path] = Plan.check_value(path, value)
            except ValidationError as error:
                problems.append(
                    Problem(f"{source}: {error.errors()[0]['msg'].removeprefix('Value error, ')}", path=path)
                )
    if problems:
        raise InvalidInput(problems)
    return values


def _refuse_absent_parts(manifest: Manifest, layers: list[Layer]) -> None:
    """A flag for tuning on a Workspace that only serves would otherwise add a tuning step."""
    has = _parts(manifest)
    problems = [
        Problem(
            f"{path} is set by {layer.origin}, but the Workspace has no such part",
            file=manifest.source.file,
            fix="leave it out",
        )
        for layer in layers[-2:]
        for path in layer.values
        if not has.get(path.split(".")[0], True)
    ]
    if problems:
        raise InvalidInput(problems)
