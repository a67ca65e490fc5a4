"""Models that cannot be used, by name and reason, and what to do about it."""

from __future__ import annotations

from presets import Model, UnknownPreset, models, own
from workflows.spec.findings import Findings

HUB_URLS = ("hf://models/", "hf://", "https://huggingface.co/")
"""Beginnings of addresses of a model on the hub."""
FOLDER = "presets"
"""Directory with own presets, next to a Workspace."""


def how_to_find(error: UnknownPreset) -> str:
    """Return the fix for an unknown name: similar ones, or how to add a model of the hub."""
    if own.HUB_NAME.fullmatch(error.name):
        return how_to_add(error.name)
    if is_location(error.name):
        return how_to_place(error.name)
    return f"did you mean {', '.join(error.near)}?" if error.near else "argotune presets ls lists them"


def is_location(name: str) -> bool:
    """Return True if a name is a URL or a path instead of a Hugging Face id."""
    return "://" in name or name.startswith(("/", "./", "../", "~"))


def how_to_place(location: str) -> str:
    """Return the fix for weights at a URL or path: the id of the hub, or a copy on the models volume."""
    for prefix in HUB_URLS:
        if own.HUB_NAME.fullmatch(name := location.removeprefix(prefix).rstrip("/")):
            return f"write the Hugging Face id: {name}"
    folder = location if location.startswith("/mnt/models/") else "/mnt/models/FOLDER"
    copied = "" if folder == location else "copy the weights to the models volume (storage.modelsClaim); "
    return f"{copied}name the preset of the model, and set the directory: --set model.repository={folder}"


def how_to_add(name: str) -> str:
    """Return the fix for a model without a preset."""
    if not own.HUB_NAME.fullmatch(name):
        return "list them with argotune presets ls, or write a Hugging Face id: ORG/NAME"
    return (
        f"run argotune presets add {name}, which reads the model's configuration from the hub; without access to it, "
        f"run it elsewhere with -o FILE, and copy FILE to the directory {FOLDER} next to the Workspace"
    )


def report_untunable(base: Model, name: str, findings: Findings) -> None:
    """Report a model that can be served only."""
    path = "tuning.preset.name"
    if base.cannot_tune:
        findings.error(path, f"{base.name} cannot be tuned: {base.cannot_tune}", _other_model(base))
        return
    known = ", ".join(model.name for model in models() if model.tuning)
    fix = f"supported for tuning: {known}; or derive its layers from the hub: argotune presets add {base.repository}"
    findings.error(path, f"Unsupported tuning preset name {name}", fix)


def report_unservable(base: Model, findings: Findings) -> None:
    """Report a model that vLLM does not serve."""
    findings.error("inference.preset.name", f"{base.name} cannot be served: {base.cannot_serve}", _other_model(base))


def _other_model(base: Model) -> str:
    if base.quantization:
        return "use the model's repository with bfloat16 weights"
    return "choose another model"
