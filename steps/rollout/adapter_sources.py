"""The adapters that a rollout serves, and their folders."""

from __future__ import annotations

from pathlib import Path

from steps.models import locations, own_weights
from steps.models.adapter import base_revision
from steps.rollout.settings import AdapterSource, Settings
from steps.runtime.errors import BadInput
from steps.serving.server_command import served_name


def base_name(settings: Settings) -> str:
    """Return the name under which the base model is served."""
    return served_name(settings.preset, settings.model)


def pin_base(settings: Settings) -> Settings:
    """Return settings with the revision that the run's adapter was tuned on; else with the digest of own weights.

    All servers, also those that start later, then have the same weights.

    Raises:
        BadInput: The image or the objects do not exist.
        StepError: Their server is unreachable.
    """
    revision = base_revision(settings.work / "adapter", settings.model, settings.revision)
    if not revision and locations.has_own_weights(settings.model):
        revision = own_weights.resolve(settings.model)
    return settings.model_copy(update={"revision": revision})


def list_sources(settings: Settings) -> list[AdapterSource]:
    """Return all adapters to serve, in order.

    Raises:
        BadInput: The list is invalid; the message has all problems.
    """
    folders = [AdapterSource(name=Path(folder).name, path=folder) for folder in settings.adapter_folders]
    sources = [*settings.adapters, *folders]
    problems = [
        f"adapter {source.name or '(no name)'}: a name and one of path and image are required"
        for source in sources
        if not source.name or bool(source.path) == bool(source.image)
    ]
    names = [base_name(settings), *(source.name for source in sources)]
    problems += [f"duplicate model name {name}" for name in sorted({n for n in names if names.count(n) > 1})]
    problems += [
        f"adapter {name!r}: a name cannot contain '=', '/' or spaces" for name in names[1:] if set(name) & set("=/ ")
    ]
    if problems:
        raise BadInput("; ".join(problems), "correct the list of adapters")
    return sources


def adapter_folder(settings: Settings, source: AdapterSource) -> Path:
    """Return the folder of an adapter; an image is pulled to a folder below the work folder.

    Raises:
        BadInput: The reference is invalid, or the image is not an adapter.
        StepError: The image cannot be pulled.
    """
    if source.image:
        from steps.oci import reference
        from steps.oci.registry import pull_adapter

        folder = settings.work.absolute() / "serve" / "pulled" / source.name
        return pull_adapter(reference.parse(source.image), folder)
    return settings.work.absolute() / source.path  # an absolute path is not changed
