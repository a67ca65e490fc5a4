"""What must hold between the fields of a Workspace.

Source: KAITO's validating webhook (``api/v1beta1/workspace_validation.go``, 0.12), in its own words where it has some,
and what a run here needs besides. Fields that no run can honour yet are refused here by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from presets import Model, Sku, UnknownPreset, UnknownSku, model, models, sku
from workflows.spec import kaito_annotations, names, sources
from workflows.spec.findings import Findings
from workflows.spec.schedule import LONGEST_NAME
from workflows.spec.source import join
from workflows.spec.training import ROOT, TrainingConfig
from workflows.spec.workspace import V1ALPHA1, Adapter, Inference, Preset, Resource, Tuning, Workspace

MOST_ADAPTERS = 10
# Layers outside the blocks of a model that LoRA can adapt too.
OTHER_LAYERS = ("lm_head", "embed_tokens", "word_embeddings")
# QLoRA keeps the base weights in 4 bits, and beside them the quantization constants and what stays in 16 bits.
QUANTIZED_SHARE = 0.3


def check(workspace: Workspace, training: TrainingConfig, server: Mapping[str, Any], found: Findings) -> None:
    """Note everything that is wrong or worth a warning in a Workspace and the configuration it names."""
    _metadata(workspace, found)
    if not workspace.tuning and not workspace.inference:
        fix = "write a tuning: block, an inference: block, or both to serve what was tuned"
        found.wrong("", "Either Inference or Tuning must be specified, not neither", fix)
    machine = _resource(workspace.resource, bool(workspace.tuning), found) if workspace.resource else None
    if workspace.tuning:
        _tuning(workspace, workspace.tuning, found)
        _fits(workspace.tuning.preset, "tuning", machine, workspace, found)
    if workspace.inference:
        _inference(workspace, workspace.inference, found)
        if workspace.inference.preset:
            _fits(workspace.inference.preset, "inference", machine, workspace, found)
    _pipeline(workspace, found)
    if workspace.tuning:
        _held_out(workspace, training, found)
        _targets(find(workspace.tuning.preset), training, found)
    if workspace.tuning and workspace.inference:
        _servable(training, server, found)


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
    kaito_annotations.check(given.annotations, found)


def _resource(resource: Resource, tunes: bool, found: Findings) -> Sku | None:
    if resource.count < 1:
        found.wrong("resource.count", "must be at least 1")
    if resource.count > 1 and tunes:
        what = "Tuning does not currently support multinode configurations. Please set the node count to 1."
        found.wrong("resource.count", what, "write count: 1; a larger instanceType has more GPUs")
    elif resource.count > 1:
        found.wrong("resource.count", "serving on several nodes is not supported yet", "write count: 1")
    if resource.partition and tunes:
        found.wrong("resource.partition", "GPU partitioning is not supported for tuning workloads", "leave it out")
    elif resource.partition:
        found.wrong("resource.partition", "GPU partitioning is not supported yet", "leave it out")
    if resource.preferred_nodes:
        fix = "name the nodes by a label under labelSelector"
        found.wrong("resource.preferredNodes", "is not supported (KAITO no longer uses it either)", fix)
    _selector(resource, found)
    return _machine(resource, found)


def _selector(resource: Resource, found: Findings) -> None:
    path = "resource.labelSelector"
    for index, rule in enumerate(resource.label_selector.match_expressions):
        if rule.operator != "In" or len(rule.values) != 1:
            place = join(join(path, "matchExpressions"), index)
            found.wrong(place, "Only allow matchLabels or 'IN' matchExpression", "write it under matchLabels")
    labels, written = resource.label_selector.labels, resource.label_selector.written
    reserved = [key for key in written if key not in labels]
    if reserved and not labels:
        fix = "add a label of your own, like apps: my-model"
        found.wrong(path, f"only labels reserved by KAITO: {', '.join(reserved)}", fix)
    elif reserved:
        found.warn(path, f"labels reserved by KAITO, which no node is asked for: {', '.join(reserved)}")


def _machine(resource: Resource, found: Findings) -> Sku | None:
    path = "resource.instanceType"
    if not resource.instance_type:
        return None
    try:
        machine = sku(resource.instance_type)
    except UnknownSku as error:
        near = f"did you mean {', '.join(error.near)}?" if error.near else "presets/skus.yaml has those KAITO knows."
        what = f"Unsupported instance type {resource.instance_type}"
        found.wrong(path, what, f"{near} Leave it out to use nodes that are already there")
        return None
    if machine.retired:
        kept = "" if machine.bfloat16 else f", and its {machine.gpu} has no bfloat16"
        what = f"{machine.name} is retired: new nodes of it can hardly be had{kept}"
        found.warn(path, what, f"write {machine.successor}")
    return machine


def _tuning(workspace: Workspace, tuning: Tuning, found: Findings) -> None:
    if tuning.method.lower() not in ("lora", "qlora"):
        found.wrong("tuning.method", f"invalid value: {tuning.method}", "write lora or qlora")
    base = _preset(workspace, tuning.preset, "tuning.preset", found)
    if base and not base.tuning:
        known = ", ".join(m.name for m in models() if m.tuning)
        what = f"Unsupported tuning preset name {tuning.preset.name}"
        found.wrong("tuning.preset.name", what, f"can be tuned: {known}")
    elif base and base.chat_template == "none":
        what = f"{base.name} is a base model without a chat template, so chat rows cannot be rendered"
        found.warn("tuning.preset.name", what, "choose an instruct model")
    sources.check_name(tuning.config, "tuning.config", found)
    sources.check_source(tuning.input, "tuning.input", workspace.pipeline.data.allow_private_hosts, found)
    sources.check_destination(tuning.output, "tuning.output", found)


def _inference(workspace: Workspace, inference: Inference, found: Findings) -> None:
    if inference.template is not None and inference.preset:
        found.wrong("inference.template", "Preset and Template cannot be set at the same time", "keep preset")
    elif inference.template is not None:
        found.wrong("inference.template", "a pod template is not supported yet", "write preset: {name: ...} instead")
    elif not inference.preset:
        found.wrong("inference", "Preset or Template must be specified", "add preset: {name: ...}")
    base = _preset(workspace, inference.preset, "inference.preset", found) if inference.preset else None
    tuned = find(workspace.tuning.preset) if workspace.tuning else None
    if base and tuned and base.name != tuned.name:
        what = f"is not the model that is tuned ({tuned.name}); an adapter fits its own base model only"
        found.wrong("inference.preset.name", what, f"write name: {tuned.name}")
    sources.check_name(inference.config, "inference.config", found)
    _adapters(workspace, inference.adapters, base, found)


def _preset(workspace: Workspace, preset: Preset, path: str, found: Findings) -> Model | None:
    options, place = preset.preset_options, join(path, "presetOptions")
    if preset.access_mode == "private" or options.image:
        where = join(place, "image") if options.image else join(path, "accessMode")
        what = "weights from a private image are not supported yet"
        found.wrong(where, what, "leave accessMode and presetOptions.image out; weights come from the model hub")
    if options.image_pull_secrets:
        found.wrong(join(place, "imagePullSecrets"), "no preset image is pulled", "leave it out")
    secret = join(place, "modelAccessSecret")
    if options.model_access_secret and workspace.api_version == V1ALPHA1:
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


def _adapters(workspace: Workspace, adapters: list[Adapter], base: Model | None, found: Findings) -> None:
    path = "inference.adapters"
    if len(adapters) > MOST_ADAPTERS:
        what = f"Number of Adapters exceeds the maximum limit, maximum of {MOST_ADAPTERS} allowed"
        found.wrong(path, what, "leave some out")
    taken = {base.name: "the base model", base.repository: "the base model"} if base else {}
    if workspace.tuning:
        taken[workspace.metadata.name] = "the adapter that is tuned"
    for index, adapter in enumerate(adapters):
        place = join(path, index)
        _adapter(adapter, place, found)
        name, where = adapter.source.name, join(place, "source.name")
        if name in taken and taken[name] != "the base model":
            found.wrong(where, f"Duplicate adapter source name found: {name}", "give each adapter its own name")
        elif name in taken:
            found.wrong(where, f"{name} is the name of {taken[name]}", "choose another name")
        taken.setdefault(name, "another adapter")


def _adapter(adapter: Adapter, path: str, found: Findings) -> None:
    source, place = adapter.source, join(path, "source")
    if not source.name:
        found.wrong(place, "Name of Adapter field must be specified", "add name: my-adapter")
    elif not names.is_subdomain(source.name):
        found.wrong(join(place, "name"), f"{source.name!r} is not a DNS-1123 subdomain", names.SUBDOMAIN_RULE)
    if source.urls:
        found.wrong(join(place, "urls"), "URLs are not supported as adapter source", "use image or volumeSource")
    elif bool(source.image) == (source.volume_source is not None):
        found.wrong(place, "Either Image or Volume must be specified for adapter source", "write exactly one of them")
    sources.check_volume(source.volume_source, join(place, "volumeSource"), found)
    sources.check_image(source.image, join(place, "image"), "adapter", found)
    if source.image_pull_secrets:
        found.wrong(join(place, "imagePullSecrets"), "is not supported for adapters yet", "use a workload identity")
    try:
        strength = float(adapter.strength)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 1:
        what = f"Strength value for Adapter '{source.name}' must be between 0 and 1"
        found.wrong(join(path, "strength"), what, 'write "1.0"')
    elif strength != 1:
        found.wrong(join(path, "strength"), "vLLM does not support adapter strength", 'write "1.0", or leave it out')


def _fits(preset: Preset, kind: str, machine: Sku | None, workspace: Workspace, found: Findings) -> None:
    base = find(preset)
    if not base or not machine or kaito_annotations.BYPASS_CHECKS in workspace.metadata.annotations:
        return
    quantized = kind == "tuning" and workspace.tuning is not None and workspace.tuning.quantized
    need = base.weights_gib * (QUANTIZED_SHARE if quantized else 1)
    if need <= machine.total_memory_gib:
        return
    what = (
        f"Insufficient total GPU memory: Instance type {machine.name} has a total of {machine.total_memory_gib}Gi,"
        f" but preset {base.name} requires at least {need:.2f}Gi"
    )
    # Sizes in the catalogue may count weights that the repository holds twice.
    note = found.wrong if base.tuning else found.warn
    note("resource.instanceType", what, f"take a larger size, or set the annotation {kaito_annotations.BYPASS_CHECKS}")


def _pipeline(workspace: Workspace, found: Findings) -> None:
    given = workspace.pipeline.model_fields_set
    for part in ("data", "evaluation", "tune"):
        if part in given and not workspace.tuning:
            found.wrong(f"pipeline.{part}", "has no effect without tuning", "leave it out, or add a tuning: block")
    schedule, approval = workspace.pipeline.schedule, workspace.pipeline.approval
    for part, asked in (("schedule", bool(schedule)), ("approval", approval)):
        if asked and not workspace.tuning:
            found.wrong(f"pipeline.{part}", "has no effect without tuning", "leave it out, or add a tuning: block")
    if schedule and len(workspace.metadata.name) > LONGEST_NAME:
        what = f"has {len(workspace.metadata.name)} characters, and that of a schedule may have {LONGEST_NAME}"
        found.wrong("metadata.name", what, "write a shorter one")
    if "rollout" in given and not workspace.inference:
        fix = "leave it out, or add inference: {preset: {name: ...}} to serve what is tuned"
        found.wrong("pipeline.rollout", "has no effect without inference", fix)
    storage = workspace.pipeline.storage
    sources.check_name(storage.storage_class_name, "pipeline.storage.storageClassName", found)


def _held_out(workspace: Workspace, training: TrainingConfig, found: Findings) -> None:
    path, split = f"{ROOT}.DatasetConfig.train_test_split", training.dataset.get("train_test_split")
    given = "eval_split" in workspace.pipeline.data.model_fields_set
    if given and split is not None:
        what = f"overrides train_test_split of ConfigMap {training.config_map}"
        found.warn("pipeline.data.evalSplit", what)
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


def _servable(training: TrainingConfig, server: Mapping[str, Any], found: Findings) -> None:
    """What an adapter may not have if vLLM is to serve it."""
    path, lora = f"{ROOT}.LoraConfig", training.lora
    limit, rank = server.get("vllm", {}).get("max-lora-rank"), lora.get("r")
    if isinstance(limit, int) and isinstance(rank, int) and rank > limit:
        what = f"rank {rank} is more than max-lora-rank {limit} of inference_config.yaml: it could not be served"
        found.wrong(join(path, "r"), what, f"write r: {limit}, or max-lora-rank: {rank}")
    for key, plain in (("use_dora", False), ("bias", "none"), ("modules_to_save", [])):
        if lora.get(key, plain) != plain:
            found.wrong(join(path, key), "vLLM cannot serve such an adapter", "leave it out, or leave inference out")


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
