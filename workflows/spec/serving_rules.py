"""Rules for inference: preset or template, and adapters, with the messages of KAITO's webhook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presets import Model
from steps.runtime.validation_messages import format_value
from steps.tune import lora_init
from workflows.field_path import join
from workflows.spec import names, sources
from workflows.spec.findings import Findings
from workflows.spec.training import ROOT, TrainingConfig
from workflows.spec.workspace import Adapter, Inference, Workspace

MAX_ADAPTERS = 10
MAX_RANK = 512
"""Maximum rank in vLLM (vllm/config/lora.py, MaxLoRARanks)."""
# LoRA options that vLLM does not support (vllm/lora/peft_helper.py), with their neutral values. vLLM ignores patterns
# silently: it scales each layer by the adapter's single alpha and rank.
UNSERVABLE: tuple[tuple[str, Any], ...] = (
    ("use_dora", False),
    ("bias", "none"),
    ("modules_to_save", []),
    ("rank_pattern", {}),
    ("alpha_pattern", {}),
)


def check(
    workspace: Workspace, inference: Inference, base: Model | None, tuned: Model | None, findings: Findings
) -> None:
    """Report errors of ``inference``, whose preset is ``base``; ``tuned`` is the tuned model."""
    if inference.template is not None and inference.preset:
        findings.error("inference.template", "Preset and Template cannot be set at the same time", "keep preset")
    elif inference.template is not None and workspace.tuning:
        what = "a custom pod cannot serve the tuned adapter"
        findings.error(
            "inference.template", what, "write preset: {name: ...}, or use a separate Workspace for the pod"
        )
    elif inference.template is not None:
        _template(inference, findings)
    elif not inference.preset:
        findings.error("inference", "Preset or Template must be specified", "add preset: {name: ...}")
    if base and tuned and base.name != tuned.name:
        what = f"is not the tuned model ({tuned.name}); an adapter only fits its base model"
        findings.error("inference.preset.name", what, f"write name: {tuned.name}")
    sources.check_name(inference.config, "inference.config", findings)
    _adapters(workspace, inference.adapters, base, findings)


def check_servable(training: TrainingConfig, server: Mapping[str, Any], findings: Findings) -> None:
    """Report options of the tuned adapter that vLLM cannot serve."""
    path, lora = f"{ROOT}.LoraConfig", training.lora
    limit = server.get("vllm", {}).get("max-lora-rank")
    written = lora.get("r")
    rank = lora_init.written_rank(written, lora) if isinstance(written, int) else 0
    twice = rank // written if written else 1
    why = f", which init_lora_weights {lora['init_lora_weights']} makes of {written}," if twice > 1 else ""
    if rank > MAX_RANK:
        what = f"vLLM supports no rank above {MAX_RANK}" + (f": {rank}{why} is more" if why else "")
        findings.error(join(path, "r"), what, f"write {MAX_RANK // twice} or less")
    elif isinstance(limit, int) and rank > limit:
        what = f"rank {rank}{why} exceeds max-lora-rank {limit} of inference_config.yaml, so vLLM could not serve it"
        findings.error(join(path, "r"), what, f"write {limit // twice}, or max-lora-rank: {rank}")
    for key, plain in UNSERVABLE:
        if lora.get(key, plain) != plain:
            findings.error(join(path, key), "vLLM does not support such an adapter", "remove it, or remove inference")


def _template(inference: Inference, findings: Findings) -> None:
    """Check a custom pod for the required fields only; the API server validates the rest."""
    path = "inference.template"
    template = inference.template or {}
    pod = template.get("spec")
    containers = pod.get("containers") if isinstance(pod, dict) else None
    if not isinstance(pod, dict) or not isinstance(containers, list) or not containers:
        findings.error(
            path, "is not a pod template: spec.containers is missing", "write spec: {containers: [{name:, image:}]}"
        )
        return
    for index, container in enumerate(containers):
        place = join(f"{path}.spec.containers", index)
        if not isinstance(container, dict) or not isinstance(container.get("image"), str):
            findings.error(
                place, "is not a container: image is missing", f"write name: and image:, not {format_value(container)}"
            )
        else:
            sources.check_image(container["image"], join(place, "image"), "container", findings)
    for key, given in (("config", inference.config), ("adapters", inference.adapters)):
        if given:
            what = "has no effect with a custom pod"
            findings.error(f"inference.{key}", what, "move it into the template, or use preset instead of template")


def _adapters(workspace: Workspace, adapters: list[Adapter], base: Model | None, findings: Findings) -> None:
    path = "inference.adapters"
    if len(adapters) > MAX_ADAPTERS:
        what = f"Number of Adapters exceeds the maximum limit, maximum of {MAX_ADAPTERS} allowed"
        findings.error(path, what, "remove some of them")
    taken = {base.name: "the base model", base.repository: "the base model"} if base else {}
    if workspace.tuning:
        taken[workspace.metadata.name] = "the tuned adapter"
    for index, adapter in enumerate(adapters):
        place = join(path, index)
        _adapter(adapter, place, findings)
        name, where = adapter.source.name, join(place, "source.name")
        if name in taken and taken[name] != "the base model":
            findings.error(where, f"Duplicate adapter source name found: {name}", "give each adapter its own name")
        elif name in taken:
            findings.error(where, f"{name} is the name of {taken[name]}", "choose another name")
        taken.setdefault(name, "another adapter")


def _adapter(adapter: Adapter, path: str, findings: Findings) -> None:
    source, place = adapter.source, join(path, "source")
    if not source.name:
        findings.error(place, "Name of Adapter field must be specified", "add name: my-adapter")
    elif not names.is_subdomain(source.name):
        findings.error(join(place, "name"), f"{source.name!r} is not a DNS-1123 subdomain", names.SUBDOMAIN_RULE)
    if source.urls:
        findings.error(join(place, "urls"), "URLs are not supported as adapter source", "use image or volumeSource")
    elif bool(source.image) == (source.volume_source is not None):
        findings.error(
            place, "Either Image or Volume must be specified for adapter source", "write exactly one of them"
        )
    sources.check_volume(source.volume_source, join(place, "volumeSource"), findings)
    sources.check_image(source.image, join(place, "image"), "adapter", findings)
    if source.image_pull_secrets and not source.image:
        findings.error(join(place, "imagePullSecrets"), "is only for images", "remove it")
    sources.check_secrets(source.image_pull_secrets, join(place, "imagePullSecrets"), findings)
    _strength(adapter, path, findings)


def _strength(adapter: Adapter, path: str, findings: Findings) -> None:
    place = join(path, "strength")
    try:
        strength = float(adapter.strength)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 1:
        what = f"Strength value for Adapter '{adapter.source.name}' must be between 0 and 1"
        findings.error(place, what, 'write "1.0"')
    elif strength != 1:
        same = f"multiply lora_alpha in the adapter's adapter_config.json by {strength:g}, for the same effect"
        findings.error(place, "vLLM does not support adapter strength", f"{same}, and remove it")
