"""What must hold for what is served: preset or template, and adapters; in the words of KAITO's webhook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presets import Model
from steps.tune import lora_init
from workflows.spec import names, sources
from workflows.spec.findings import Findings, short
from workflows.spec.source import join
from workflows.spec.training import ROOT, TrainingConfig
from workflows.spec.workspace import Adapter, Inference, Workspace

MAX_ADAPTERS = 10
MAX_RANK = 512
"""That vLLM serves (vllm/config/lora.py, MaxLoRARanks)."""
# What vLLM cannot serve of an adapter (vllm/lora/peft_helper.py), and the value that says that it has none of it. Of
# patterns it knows nothing: it would scale each layer by the adapter's one alpha and rank, and say nothing.
UNSERVABLE: tuple[tuple[str, Any], ...] = (
    ("use_dora", False),
    ("bias", "none"),
    ("modules_to_save", []),
    ("rank_pattern", {}),
    ("alpha_pattern", {}),
)


def check(
    workspace: Workspace, inference: Inference, base: Model | None, tuned: Model | None, found: Findings
) -> None:
    """Note what is wrong with ``inference``, whose preset is ``base``; ``tuned`` is the model that is tuned."""
    if inference.template is not None and inference.preset:
        found.wrong("inference.template", "Preset and Template cannot be set at the same time", "keep preset")
    elif inference.template is not None and workspace.tuning:
        what = "a pod of your own is not told of the adapter that is tuned"
        found.wrong("inference.template", what, "write preset: {name: ...}, or a Workspace of its own for the pod")
    elif inference.template is not None:
        _template(inference, found)
    elif not inference.preset:
        found.wrong("inference", "Preset or Template must be specified", "add preset: {name: ...}")
    if base and tuned and base.name != tuned.name:
        what = f"is not the model that is tuned ({tuned.name}); an adapter fits its own base model only"
        found.wrong("inference.preset.name", what, f"write name: {tuned.name}")
    sources.check_name(inference.config, "inference.config", found)
    _adapters(workspace, inference.adapters, base, found)


def check_servable(training: TrainingConfig, server: Mapping[str, Any], found: Findings) -> None:
    """Note what the adapter that is tuned may not have if vLLM is to serve it."""
    path, lora = f"{ROOT}.LoraConfig", training.lora
    limit = server.get("vllm", {}).get("max-lora-rank")
    asked = lora.get("r")
    rank = lora_init.written_rank(asked, lora) if isinstance(asked, int) else 0
    twice = rank // asked if asked else 1
    why = f", which init_lora_weights {lora['init_lora_weights']} makes of {asked}," if twice > 1 else ""
    if rank > MAX_RANK:
        what = f"vLLM serves no rank above {MAX_RANK}" + (f": {rank}{why} is more" if why else "")
        found.wrong(join(path, "r"), what, f"write {MAX_RANK // twice} or less")
    elif isinstance(limit, int) and rank > limit:
        what = f"rank {rank}{why} is more than max-lora-rank {limit} of inference_config.yaml: it could not be served"
        found.wrong(join(path, "r"), what, f"write {limit // twice}, or max-lora-rank: {rank}")
    for key, plain in UNSERVABLE:
        if lora.get(key, plain) != plain:
            found.wrong(join(path, key), "vLLM cannot serve such an adapter", "leave it out, or leave inference out")


def _template(inference: Inference, found: Findings) -> None:
    """A pod of the user's own: only what keeps it from being one is told here, the rest is for the cluster to say."""
    path = "inference.template"
    template = inference.template or {}
    pod = template.get("spec")
    containers = pod.get("containers") if isinstance(pod, dict) else None
    if not isinstance(pod, dict) or not isinstance(containers, list) or not containers:
        found.wrong(
            path, "is no pod template: it has no spec.containers", "write spec: {containers: [{name:, image:}]}"
        )
        return
    for index, container in enumerate(containers):
        place = join(f"{path}.spec.containers", index)
        if not isinstance(container, dict) or not isinstance(container.get("image"), str):
            found.wrong(place, "is no container: it has no image", f"write name: and image:, not {short(container)}")
        else:
            sources.check_image(container["image"], join(place, "image"), "container", found)
    for key, given in (("config", inference.config), ("adapters", inference.adapters)):
        if given:
            what = "has no effect on a pod of your own"
            found.wrong(f"inference.{key}", what, "put it into the template, or write preset instead of template")


def _adapters(workspace: Workspace, adapters: list[Adapter], base: Model | None, found: Findings) -> None:
    path = "inference.adapters"
    if len(adapters) > MAX_ADAPTERS:
        what = f"Number of Adapters exceeds the maximum limit, maximum of {MAX_ADAPTERS} allowed"
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
    _pull_secrets(adapters, path, found)


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
    _strength(adapter, path, found)


def _strength(adapter: Adapter, path: str, found: Findings) -> None:
    place = join(path, "strength")
    try:
        strength = float(adapter.strength)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 1:
        what = f"Strength value for Adapter '{adapter.source.name}' must be between 0 and 1"
        found.wrong(place, what, 'write "1.0"')
    elif strength != 1:
        same = f"multiply lora_alpha in the adapter's adapter_config.json by {strength:g}, which has the same effect"
        found.wrong(place, "vLLM does not support adapter strength", f"{same}, and leave it out")


def _pull_secrets(adapters: list[Adapter], path: str, found: Findings) -> None:
    """One folder of credentials is mounted, so all adapters share one Secret."""
    first = ""
    for index, adapter in enumerate(adapters):
        place = join(join(path, index), "source.imagePullSecrets")
        secrets = adapter.source.image_pull_secrets
        for number, secret in enumerate(secrets):
            sources.check_name(secret, join(place, number), found)
        if secrets and not adapter.source.image:
            found.wrong(place, "no image is pulled here", "leave it out")
        elif len({*secrets, *([first] if first else [])}) > 1:
            fix = "put the credentials of all registries into one dockerconfigjson Secret"
            found.wrong(place, "one Secret is mounted for all adapters, not several", fix)
        elif secrets:
            first = secrets[0]
