"""The adapters that a rollout serves, and the folders that they are in."""

from __future__ import annotations

from pathlib import Path

from steps.rollout.settings import AdapterSource, Settings
from steps.runtime.errors import BadInput
from steps.serving.server_command import served_name


def base_name(settings: Settings) -> str:
    """Name that the base model of a rollout is served under."""
    return served_name(settings.preset, settings.model)


def list_sources(settings: Settings) -> list[AdapterSource]:
    """All adapters to serve, in their order.

    Raises:
        BadInput: with everything that is wrong with their list.
    """
    folders = [AdapterSource(name=Path(folder).name, path=folder) for folder in settings.adapter_folders]
    found = [*settings.adapters, *folders]
    problems = [
        f"adapter {source.name or '(no name)'}: give a name, and one of path and image"
        for source in found
        if not source.name or bool(source.path) == bool(source.image)
    ]
    names = [base_name(settings), *(source.name for source in found)]
    problems += [f"two models are named {name}" for name in sorted({n for n in names if names.count(n) > 1})]
    problems += [f"adapter {name!r}: a name has no '=', '/' or blank" for name in names[1:] if set(name) & set("=/ ")]
    if problems:
        raise BadInput("; ".join(problems), "mend the list of adapters")
    return found


def adapter_folder(settings: Settings, source: AdapterSource) -> Path:
    """Folder of an adapter; that of an image is pulled below the work folder.

    Raises:
        BadInput: the reference is none, or the image is no adapter.
        StepError: the registry does not give it.
    """
    if source.image:
        from steps.oci import reference
        from steps.oci.registry import pull_adapter

        folder = settings.work.absolute() / "serve" / "pulled" / source.name
        return pull_adapter(reference.parse(source.image), folder)
    return settings.work.absolute() / source.path  # an absolute path stays as it is
