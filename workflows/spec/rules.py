"""What must hold between the fields of a Workspace.

Source: KAITO's validating webhook (``api/v1beta1/workspace_validation.go``, 0.12), in its own words where it has some,
and what a run here needs besides. Fields that no run can honour are refused by name,
here and in ``resource_rules.py`` and ``serving_rules.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from presets import Model, UnknownPreset, model, models
from workflows.spec import kaito_annotations, names, node_rules, resource_rules, serving_rules, sources
from workflows.spec.findings import Findings
from workflows.spec.schedule import MAX_NAME_LENGTH
from workflows.spec.source import join
from workflows.spec.training import ROOT, TrainingConfig
from workflows.spec.workspace import V1ALPHA1, Inference, Preset, Tuning, Workspace

# Layers outside the blocks of a model that LoRA can adapt too.
OTHER_LAYERS = ("lm_head", "embed_tokens", "word_embeddings")


def check(workspace: Workspace, training: TrainingConfig, server: Mapping[str, Any], found: Findings) -> None:
    """Note everything that is wrong or worth a warning in a Workspace and the configuration it names."""
    _metadata(workspace, found)
    if not workspace.tuning and not workspace.inference:
        fix = "write a tuning: block, an inference: block, or both to serve what was tuned"
        found.wrong("", "Either Inference or Tuning must be specified, not neither", fix)
    tuned = _tuning(workspace, workspace.tuning, training, found) if workspace.tuning else None
    served = _served(workspace, workspace.inference, found) if workspace.inference else None
    machine = resource_rules.check(workspace, tuned, served, found)
    if workspace.inference:
        serving_rules.check(workspace, workspace.inference, served, tuned, found)
    _pipeline(workspace, found)
    node_rules.check(workspace, machine, found)
    if workspace.tuning:
        _held_out(workspace, training, found)
        _targets(tuned, training, found)
        resource_rules.check_precision(training, machine, found)
    if workspace.tuning and workspace.inference:
        serving_rules.check_servable(training, server, found)


def held_out(workspace: Workspace, training: TrainingConfig) -> float:
    """Share of the rows that is held out: ``evalSplit``, else what ``train_test_split`` leaves, else the default."""
    data = workspace.pipeline.data
    if "eval_split" in data.model_fields_set or "train_test_split" not in training.dataset:
        return data.eval_split
    return round(1 - float(training.dataset["train_test_split"]), 6)


def find(preset: Preset | None) -> Model | None:
    """The model of a preset; None when there is none."""
    try:
        return model(preset.name) if preset else None
    except UnknownPreset:
        return None


def check_answers(evaluation: Any, path: str, found: Findings) -> None:
    """Note rules about answers where nothing is answered; of a Workspace or of a plan."""
    for name, rule in (("minExactMatch", evaluation.min_exact_match), ("minRougeL", evaluation.min_rouge_l)):
        if rule is not None and not evaluation.samples:
            what = "can't be measured: with samples 0 no row is answered"
            found.wrong(join(path, name), what, f"raise {join(path, 'samples')}, to 50 say")


def check_tasks(evaluation: Any, path: str, found: Findings) -> None:
    """Note tasks of lm-eval that can be none, and rules for what is not asked; of a Workspace or of a plan."""
    for index, task in enumerate(evaluation.tasks):
        if not re.fullmatch(r"/\S+\.yaml|[^\s/,]+", task):
            fix = "write the name of a task, as lm-eval ls tasks has it, or the whole path of its YAML: /.../mine.yaml"
            found.wrong(join(join(path, "tasks"), index), f"{task!r} is no task", fix)
        elif task in evaluation.tasks[:index]:
            found.wrong(join(join(path, "tasks"), index), "stands in the list twice", "keep one of them")
    if evaluation.min_task_scores and not evaluation.tasks:
        found.wrong(join(path, "minTaskScores"), "no task is asked", f"name it in {join(path, 'tasks')}")
    if evaluation.task_limit and not evaluation.tasks:
        found.wrong(join(path, "taskLimit"), "no task is asked", f"name it in {join(path, 'tasks')}")


def check_braces(value: Any, path: str, found: Findings) -> None:
    """Note every text that Argo would take for one of its own expressions."""
    for place, text in _texts(value, path):
        if "{{" in text:
            found.wrong(place, "holds '{{', which Argo would replace", "write it without '{{'")


def _metadata(workspace: Workspace, found: Findings) -> None:
    given = workspace.metadata
    if not names.is_label(given.name):
        found.wrong("metadata.name", f"{given.name!r} is not a DNS-1123 label", names.LABEL_RULE)
    if given.namespace and not names.is_label(given.namespace):
        found.wrong("metadata.namespace", f"{given.namespace!r} is not a DNS-1123 label", names.LABEL_RULE)
    for key, value in given.labels.items():
        if not names.is_label_key(key) or not names.is_label_value(value):
            found.wrong(
                join("metadata.labels", key), f"{value!r} is no label that Kubernetes takes", names.LABELS_RULE
            )
    kaito_annotations.check(given.annotations, workspace.inference is not None, found)


def _tuning(workspace: Workspace, tuning: Tuning, training: TrainingConfig, found: Findings) -> Model | None:
    if tuning.method.lower() not in ("lora", "qlora"):
        found.wrong("tuning.method", f"invalid value: {tuning.method}", "write lora or qlora")
    base = _preset(workspace, tuning.preset, "tuning.preset", found)
    if base and not base.tuning:
        known = ", ".join(m.name for m in models() if m.tuning)
        what = f"Unsupported tuning preset name {tuning.preset.name}"
        found.wrong("tuning.preset.name", what, f"can be tuned: {known}")
    elif base and base.chat_template == "none" and not training.model.get("chat_template"):
        what = f"{base.name} is a base model without a chat template, so chat rows cannot be rendered"
        found.warn("tuning.preset.name", what, "choose an instruct model, or write ModelConfig.chat_template")
    sources.check_name(tuning.config, "tuning.config", found)
    sources.check_source(tuning.input, "tuning.input", workspace.pipeline.data.allow_private_hosts, found)
    sources.check_weights(workspace.pipeline.data.weights, tuning.input.urls, "pipeline.data.weights", found)
    moves = workspace.pipeline.schedule is not None  # each adapter has a tag of its own besides
    sources.check_destination(tuning.output, "tuning.output", found, moves=moves)
    return base


def _served(workspace: Workspace, inference: Inference, found: Findings) -> Model | None:
    return _preset(workspace, inference.preset, "inference.preset", found) if inference.preset else None


def _preset(workspace: Workspace, preset: Preset, path: str, found: Findings) -> Model | None:
    options, place = preset.preset_options, join(path, "presetOptions")
    if preset.access_mode == "private" or options.image:
        where = join(place, "image") if options.image else join(path, "accessMode")
        what = "weights are not taken out of an image (KAITO has deprecated it)"
        fix = (
            "leave accessMode and image out: weights come from the model hub, or HF_ENDPOINT's mirror of it; or copy "
        )
        found.wrong(where, what, f"{fix}them to the models volume and use --set model.repository=/mnt/models/FOLDER")
    if options.image_pull_secrets:
        found.wrong(join(place, "imagePullSecrets"), "no preset image is pulled", "leave it out")
    secret = join(place, "modelAccessSecret")
    if options.model_access_secret and workspace.api_version == V1ALPHA1 and workspace.kind == "Workspace":
        found.wrong(secret, "is not a field of kaito.sh/v1alpha1", "write apiVersion: kaito.sh/v1beta1")
    sources.check_name(options.model_access_secret, secret, found)
    try:
        base = model(preset.name)
    except UnknownPreset as error:
        kind = path.split(".")[0]
        near = f"did you mean {', '.join(error.near)}?" if error.near else "argotune presets ls lists them"
        found.wrong(join(path, "name"), f"Unsupported {kind} preset name {preset.name}", near)
        return None
    if base.deprecated:
        what = f"Model {base.name} is deprecated and no longer supported"
        found.wrong(join(path, "name"), what, "argotune presets ls lists the others")
        return None
    if base.gated and not options.model_access_secret:
        what = (
            "This preset requires authentication and needs a modelAccessSecret with HF_TOKEN key under presetOptions"
        )
        found.wrong(path, f"{what} to download the model", "add presetOptions: {modelAccessSecret: NAME} (v1beta1)")
    return base


def _pipeline(workspace: Workspace, found: Findings) -> None:
    given = workspace.pipeline.model_fields_set
    for part in ("data", "evaluation", "tune", "tracking", "nodes"):
        if part in given and not workspace.tuning:
            found.wrong(f"pipeline.{part}", "has no effect without tuning", "leave it out, or add a tuning: block")
    schedule, approval = workspace.pipeline.schedule, workspace.pipeline.approval
    for part, asked in (("schedule", bool(schedule)), ("approval", approval)):
        if asked and not workspace.tuning:
            found.wrong(f"pipeline.{part}", "has no effect without tuning", "leave it out, or add a tuning: block")
    if schedule and len(workspace.metadata.name) > MAX_NAME_LENGTH:
        what = f"has {len(workspace.metadata.name)} characters, and that of a schedule may have {MAX_NAME_LENGTH}"
        found.wrong("metadata.name", what, "write a shorter one")
    if "rollout" in given and not workspace.inference:
        fix = "leave it out, or add inference: {preset: {name: ...}} to serve what is tuned"
        found.wrong("pipeline.rollout", "has no effect without inference", fix)
    check_answers(workspace.pipeline.evaluation, "pipeline.evaluation", found)
    check_tasks(workspace.pipeline.evaluation, "pipeline.evaluation", found)
    if "better_than_previous" in workspace.pipeline.evaluation.model_fields_set and not schedule:
        found.warn("pipeline.evaluation.betterThanPrevious", "has no effect without pipeline.schedule")
    sources.check_name(workspace.pipeline.tracking.secret, "pipeline.tracking.secret", found)
    storage = workspace.pipeline.storage
    sources.check_name(storage.storage_class_name, "pipeline.storage.storageClassName", found)


def _held_out(workspace: Workspace, training: TrainingConfig, found: Findings) -> None:
    path, split = f"{ROOT}.DatasetConfig.train_test_split", training.dataset.get("train_test_split")
    given = "eval_split" in workspace.pipeline.data.model_fields_set
    if given and split is not None:
        what = f"overrides train_test_split of ConfigMap {training.config_map}"
        found.warn("pipeline.data.evalSplit", what)
    if "columns" in workspace.pipeline.data.model_fields_set and any(
        key.endswith("_column") for key in training.dataset
    ):
        found.warn("pipeline.data.columns", f"overrides the columns of ConfigMap {training.config_map}")
    if held_out(workspace, training):
        return
    fix = "write pipeline: {data: {evalSplit: 0.1}}"
    if "evaluation" in workspace.pipeline.model_fields_set:
        found.wrong("pipeline.evaluation", "no rows are held out to evaluate on", fix)
    else:
        what = "no rows are held out, so the adapter is not evaluated before it goes on"
        found.warn("pipeline.data.evalSplit" if given else path, what, fix)


def _targets(base: Model | None, training: TrainingConfig, found: Findings) -> None:
    """PEFT adapts the layers whose names it finds, and is silent about the others."""
    asked = training.lora.get("target_modules")
    if not base or not asked:
        return
    there = {*base.lora_targets, *OTHER_LAYERS}
    missing = [name for name in asked if name.rpartition(".")[2] not in there]
    note = found.wrong if len(missing) == len(asked) else found.warn
    if missing:
        what = f"{base.architecture} has no layer {', '.join(missing)}"
        note(f"{ROOT}.LoraConfig.target_modules", what, f"it has {', '.join(base.lora_targets)}")


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str):
                yield join(path, key), key
            yield from _texts(inner, join(path, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, join(path, index))
