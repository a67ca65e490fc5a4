"""Models that cannot be used, by name and reason, and what to do about it."""

from __future__ import annotations

from presets import Model, UnknownPreset, models, own
from steps.models import locations
from workflows.field_path import join
from workflows.spec import sources
from workflows.spec.findings import Findings
from workflows.spec.workspace import Preset, Workspace

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
    """Return the fix for weights at a URL or path: an id of the hub, a location, or a copy on the models volume."""
    for prefix in HUB_URLS:
        if own.HUB_NAME.fullmatch(name := location.removeprefix(prefix).rstrip("/")):
            return f"write the Hugging Face id: {name}"
    if locations.has_own_weights(location) or location.startswith("/mnt/models/"):
        return f"name the preset of the model, and set pipeline: {{model: {{repository: {location}}}}}"
    where = "pipeline: {model: {repository: /mnt/models/FOLDER}}"
    return f"copy the weights to the models volume (storage.modelsClaim), name the model's preset, and set {where}"


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


def check_image(workspace: Workspace, preset: Preset, path: str, findings: Findings) -> None:
    """Report errors of the image with the weights of a preset."""
    options, place = preset.preset_options, join(path, "presetOptions")
    if preset.access_mode == "private" and not options.image:
        what = "When AccessMode is private, an image must be provided in PresetOptions"
        fix = "add presetOptions: {image: REFERENCE}, or remove accessMode"
        findings.error(join(path, "accessMode"), what, fix)
    sources.check_image(options.image, join(place, "image"), "preset", findings)
    sources.check_pull_secrets(options.image_pull_secrets, options.image, join(place, "imagePullSecrets"), findings)
    if options.image and workspace.pipeline.model.repository:
        what = "cannot be combined with presetOptions.image: both name the weights"
        findings.error("pipeline.model.repository", what, "remove one of them")
    tuned = workspace.tuning.preset.preset_options.image if workspace.tuning else options.image
    if options.image and options.image != tuned:
        what = "is not the image of the tuned model, on which the adapter is served"
        findings.error(join(place, "image"), what, "write it in tuning.preset.presetOptions.image")


def has_own_weights(workspace: Workspace) -> bool:
    """Return True if the weights of the model are not those of its repository on the hub."""
    repository = workspace.pipeline.model.repository
    is_own = locations.has_own_weights(repository) or locations.is_folder(repository)
    return is_own or bool(workspace.preset and workspace.preset.preset_options.image)
