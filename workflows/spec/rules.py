"""Rules across the fields of a Workspace.

Source: KAITO's validating webhook (``api/v1beta1/workspace_validation.go``, 0.12), with its messages where it has
them, plus the requirements of a run. Unsupported fields are rejected by name, here and in ``resource_rules.py`` and
``serving_rules.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from presets import Model, UnknownPreset, model
from workflows.field_path import join
from workflows.spec import (
    kaito_annotations,
    names,
    node_rules,
    preset_rules,
    resource_rules,
    search_rules,
    serving_rules,
    sources,
    vllm_flag_rules,
)
from workflows.spec.findings import Findings
from workflows.spec.schedule import MAX_NAME_LENGTH
from workflows.spec.training import ROOT, TrainingConfig
from workflows.spec.workspace import V1ALPHA1, Inference, Preset, Tuning, Workspace

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Layers outside the transformer blocks that LoRA can adapt.
OTHER_LAYERS = ("lm_head", "embed_tokens", "word_embeddings")


def check(workspace: Workspace, training: TrainingConfig, server: Mapping[str, Any], findings: Findings) -> None:
    """Report all errors and warnings of a Workspace and its configuration."""
    _metadata(workspace, findings)
    if not workspace.tuning and not workspace.inference:
        fix = "write a tuning: block, an inference: block, or both to serve the tuned model"
        findings.error("", "Either Inference or Tuning must be specified, not neither", fix)
    tuned = _tuning(workspace, workspace.tuning, training, findings) if workspace.tuning else None
    served = _served(workspace, workspace.inference, findings) if workspace.inference else None
    machine = resource_rules.check(workspace, tuned, served, findings)
    if workspace.inference:
        serving_rules.check(workspace, workspace.inference, served, tuned, findings)
        vllm_flag_rules.check_gpus(server.get("vllm", {}), machine, findings)
    _pipeline(workspace, findings)
    node_rules.check(workspace, machine, findings)
    if workspace.tuning:
        _held_out(workspace, training, findings)
        _targets(tuned, training, findings)
        resource_rules.check_precision(training, machine, findings)
    if workspace.tuning and workspace.inference:
        serving_rules.check_servable(training, server, findings)


def held_out(workspace: Workspace, training: TrainingConfig) -> float:
    """Return the share of held-out rows: ``evalSplit``, otherwise 1 - ``train_test_split``, otherwise the default."""
    data = workspace.pipeline.data
    if "eval_split" in data.model_fields_set or "train_test_split" not in training.dataset:
        return data.eval_split
    return round(1 - float(training.dataset["train_test_split"]), 6)


def find(preset: Preset | None) -> Model | None:
    """Return the model of a preset; None if there is none."""
    try:
        return model(preset.name) if preset else None
    except UnknownPreset:
        return None


def check_answers(evaluation: Any, path: str, findings: Findings) -> None:
    """Report gate rules about answers without samples; for a Workspace or a plan."""
    for name, rule in (("minExactMatch", evaluation.min_exact_match), ("minRougeL", evaluation.min_rouge_l)):
        if rule is not None and not evaluation.samples:
            what = "cannot be measured: samples is 0"
            findings.error(join(path, name), what, f"raise {join(path, 'samples')}, to 50 say")


def check_tasks(evaluation: Any, path: str, findings: Findings) -> None:
    """Report invalid lm-eval tasks, and rules without tasks; for a Workspace or a plan."""
    for index, task in enumerate(evaluation.tasks):
        if not re.fullmatch(r"/\S+\.yaml|[^\s/,]+", task):
            fix = "write a task name (lm-eval ls tasks lists them), or the absolute path of its YAML: /.../mine.yaml"
            findings.error(join(join(path, "tasks"), index), f"{task!r} is not a task name", fix)
        elif task in evaluation.tasks[:index]:
            findings.error(join(join(path, "tasks"), index), "is a duplicate", "remove one of them")
    if evaluation.min_task_scores and not evaluation.tasks:
        findings.error(join(path, "minTaskScores"), "no task is set", f"name it in {join(path, 'tasks')}")
    if evaluation.task_limit and not evaluation.tasks:
        findings.error(join(path, "taskLimit"), "no task is set", f"name it in {join(path, 'tasks')}")


def check_braces(value: Any, path: str, findings: Findings) -> None:
    """Report every string that Argo would evaluate as a template tag."""
    for place, text in _texts(value, path):
        if "{{" in text:
            findings.error(place, "contains '{{', which Argo would replace", "write it without '{{'")


_QUOTED = re.compile(r"[\u201c\u201d\u201e\u2018\u2019\u201a].*[\u201c\u201d\u2018\u2019]", re.DOTALL)
FREE_TEXTS = ("pipeline.rollout.question",)
"""Fields with text for people, who can quote all of it."""


def check_text(value: Any, path: str, findings: Findings) -> None:
    """Report strings with control characters or typographic quotes around them."""
    for place, text in _texts(value, path):
        if control := _CONTROL.search(text):
            fix = "remove it, or write a line break or a tab"
            findings.error(place, f"contains the control character U+{ord(control[0]):04X}", fix)
        elif _QUOTED.fullmatch(text):
            report = findings.warn if place in FREE_TEXTS else findings.error
            report(place, "the typographic quotes are part of the text", 'write straight quotes (")')


def _metadata(workspace: Workspace, findings: Findings) -> None:
    given = workspace.metadata
    if not names.is_label(given.name):
        findings.error("metadata.name", f"{given.name!r} is not a DNS-1123 label", names.LABEL_RULE)
    if given.namespace and not names.is_label(given.namespace):
        findings.error("metadata.namespace", f"{given.namespace!r} is not a DNS-1123 label", names.LABEL_RULE)
    sources.check_labels(workspace.metadata.labels, "metadata.labels", findings)
    kaito_annotations.check(given.annotations, workspace.inference is not None, findings)


def _tuning(workspace: Workspace, tuning: Tuning, training: TrainingConfig, findings: Findings) -> Model | None:
    if tuning.method.lower() not in ("lora", "qlora"):
        findings.error("tuning.method", f"invalid value: {tuning.method}", "write lora or qlora")
    base = _preset(workspace, tuning.preset, "tuning.preset", findings)
    if base and not base.tuning:
        preset_rules.report_untunable(base, tuning.preset.name, findings)
    elif base and base.chat_template == "none" and not training.model.get("chat_template"):
        what = f"{base.name} is a base model without a chat template, so chat rows cannot be rendered"
        findings.warn("tuning.preset.name", what, "choose an instruct model, or write ModelConfig.chat_template")
    sources.check_name(tuning.config, "tuning.config", findings)
    sources.check_inputs(tuning.input, workspace.pipeline.data, findings)
    sources.check_extension(training.dataset.get("dataset_extension"), tuning.input.urls, findings)
    moves = workspace.pipeline.schedule is not None  # each adapter also gets a separate tag
    sources.check_destination(tuning.output, "tuning.output", findings, moves=moves)
    return base


def _served(workspace: Workspace, inference: Inference, findings: Findings) -> Model | None:
    base = _preset(workspace, inference.preset, "inference.preset", findings) if inference.preset else None
    if base and base.cannot_serve:
        preset_rules.report_unservable(base, findings)
    return base


def _preset(workspace: Workspace, preset: Preset, path: str, findings: Findings) -> Model | None:
    options, place = preset.preset_options, join(path, "presetOptions")
    preset_rules.check_image(workspace, preset, path, findings)
    secret = join(place, "modelAccessSecret")
    if options.model_access_secret and workspace.api_version == V1ALPHA1 and workspace.kind == "Workspace":
        findings.error(secret, "is not a field of kaito.sh/v1alpha1", "write apiVersion: kaito.sh/v1beta1")
    sources.check_name(options.model_access_secret, secret, findings)
    try:
        base = model(preset.name)
    except UnknownPreset as error:
        kind = path.split(".")[0]
        fix = preset_rules.how_to_find(error)
        findings.error(join(path, "name"), f"Unsupported {kind} preset name {preset.name}", fix)
        return None
    if base.deprecated:
        what = f"Model {base.name} is deprecated and no longer supported"
        findings.error(join(path, "name"), what, "argotune presets ls lists the others")
        return None
    if base.gated and not options.model_access_secret and not preset_rules.has_own_weights(workspace):
        what = (
            "This preset requires authentication and needs a modelAccessSecret with HF_TOKEN key under presetOptions"
        )
        findings.error(path, f"{what} to download the model", "add presetOptions: {modelAccessSecret: NAME} (v1beta1)")
    return base


def _pipeline(workspace: Workspace, findings: Findings) -> None:
    given = workspace.pipeline.model_fields_set
    for part in ("data", "evaluation", "tune", "tracking", "nodes", "budget"):
        if part in given and not workspace.tuning:
            findings.error(f"pipeline.{part}", "has no effect without tuning", "remove it, or add a tuning: block")
    schedule, approval = workspace.pipeline.schedule, workspace.pipeline.approval
    search = workspace.pipeline.search
    for part, is_set in (("schedule", bool(schedule)), ("approval", approval), ("search", bool(search))):
        if is_set and not workspace.tuning:
            findings.error(f"pipeline.{part}", "has no effect without tuning", "remove it, or add a tuning: block")
    if search:
        search_rules.check(search, "pipeline.search", findings)
    if schedule and len(workspace.metadata.name) > MAX_NAME_LENGTH:
        length = len(workspace.metadata.name)
        what = f"has {length} characters, but a scheduled Workspace can have at most {MAX_NAME_LENGTH}"
        findings.error("metadata.name", what, "write a shorter name")
    if "rollout" in given and not workspace.inference:
        fix = "remove it, or add inference: {preset: {name: ...}} to serve the tuned model"
        findings.error("pipeline.rollout", "has no effect without inference", fix)
    check_answers(workspace.pipeline.evaluation, "pipeline.evaluation", findings)
    check_tasks(workspace.pipeline.evaluation, "pipeline.evaluation", findings)
    if "better_than_previous" in workspace.pipeline.evaluation.model_fields_set and not schedule:
        findings.warn(
            "pipeline.evaluation.betterThanPrevious",
            "has no effect without pipeline.schedule",
            "remove it, or add a schedule",
        )
    sources.check_name(workspace.pipeline.tracking.secret, "pipeline.tracking.secret", findings)
    storage = workspace.pipeline.storage
    sources.check_name(storage.storage_class, "pipeline.storage.storageClassName", findings)


def _held_out(workspace: Workspace, training: TrainingConfig, findings: Findings) -> None:
    path, split = f"{ROOT}.DatasetConfig.train_test_split", training.dataset.get("train_test_split")
    given = "eval_split" in workspace.pipeline.data.model_fields_set
    if given and split is not None:
        what = f"overrides train_test_split of ConfigMap {training.config_map}"
        findings.warn("pipeline.data.evalSplit", what, "remove one of them")
    fix = "remove one of them"
    if "columns" in workspace.pipeline.data.model_fields_set and any(
        key.endswith("_column") for key in training.dataset
    ):
        findings.warn("pipeline.data.columns", f"overrides the columns of ConfigMap {training.config_map}", fix)
    if held_out(workspace, training):
        return
    fix = "write pipeline: {data: {evalSplit: 0.1}}"
    if "evaluation" in workspace.pipeline.model_fields_set:
        findings.error("pipeline.evaluation", "no rows are held out for the evaluation", fix)
    else:
        what = "no rows are held out, so the adapter is packaged without evaluation"
        findings.warn("pipeline.data.evalSplit" if given else path, what, fix)


def _targets(base: Model | None, training: TrainingConfig, findings: Findings) -> None:
    """Report unknown target modules: PEFT silently ignores them."""
    modules = training.lora.get("target_modules")
    if not base or not modules:
        return
    there = {*base.lora_targets, *OTHER_LAYERS}
    missing = [name for name in modules if name.rpartition(".")[2] not in there]
    note = findings.error if len(missing) == len(modules) else findings.warn
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
