"""Settings and result of the check step."""

from __future__ import annotations

from dataclasses import dataclass

from steps.runtime.options import OptionalFolder
from steps.tune import settings


class Settings(settings.Settings):
    """Compare data and settings with those of the live adapter. Accepts the flags of tune, which shape the adapter."""

    image: str = ""
    """Image reference of the Workspace; its tag moves with each adapter."""
    search: list[dict[str, str]] = []
    """Trials of a search, as JSON: their settings shape the adapter too."""
    push: bool = True
    """Push images; false: do not query the registry."""
    output: OptionalFolder = None
    """Folder that gets the adapter's files (KAITO `output.volumeSource`, mounted)."""


@dataclass(frozen=True)
class Result:
    """Decision whether to tune, and the new image."""

    changed: bool
    """Data or settings changed, so there is an adapter to tune."""
    image: str
    """Reference of the new adapter's image, its tag derived from data and settings; empty without an image."""
    previous: str
    """The live adapter: an image by digest, or a directory; empty if there is none."""
    settings_digest: str
    """Digest of all settings that shape the adapter."""
    difference: str
    """Difference from the live adapter: data, settings, or both; ``nothing``; or ``no live adapter``."""
