"""Settings and result of the check step."""

from __future__ import annotations

from dataclasses import dataclass

from steps.runtime.options import OptionalFolder
from steps.tune import settings


class Settings(settings.Settings):
    """Compare what would be tuned with what is in service. Takes the flags of tune, as they shape the adapter."""

    image: str = ""
    """Image reference of the Workspace; its tag moves from adapter to adapter."""
    push: bool = True
    """Whether images are pushed; false: the registry is not asked."""
    output: OptionalFolder = None
    """Folder that gets the adapter's files (KAITO `output.volumeSource`, mounted)."""


@dataclass(frozen=True)
class Result:
    """What the later steps go by."""

    changed: bool
    """Whether there is something to tune."""
    image: str
    """Reference of the new adapter's image, its tag derived from data and settings; empty without an image."""
    previous: str
    """The adapter in service: an image by its digest, or a folder; empty when there is none."""
    settings_digest: str
    """Digest of all settings that shape the adapter."""
    difference: str
    """What is other than in service: data, settings, or both; ``nothing``; or that no adapter is in service."""
