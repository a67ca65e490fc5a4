"""Settings and result of the package step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steps.runtime.options import OptionalFolder, Options


class Settings(Options):
    """Build an OCI image of the adapter and push it."""

    work: Path
    """Work folder that the steps share."""
    image: str = ""
    """Image reference to push to; empty for the layout folder alone."""
    moving_image: str = ""
    """Reference whose tag is moved to the image once it is pushed; empty for none."""
    push: bool = True
    """Push to the reference's registry; false for the layout folder alone."""
    immutable: bool = False
    """Refuse to push under a tag that names another image already; the tag of moving_image moves all the same."""
    preset: str = ""
    """Preset that was tuned, as KAITO names it."""
    model: str = ""
    """Base model: id on the hub."""
    revision: str = ""
    """Revision of the base model."""
    adapter_digest: str = ""
    """Digest that the tune step gave; refused if the adapter is another now."""
    data_digest: str = ""
    """Digest of the training data."""
    settings_digest: str = ""
    """Digest of the settings that shaped the adapter, from the check step."""
    annotations: dict[str, str] = {}
    """Further annotations of the manifest."""
    output: OptionalFolder = None
    """Folder that also gets the adapter's files (KAITO `output.volumeSource`, mounted)."""


@dataclass(frozen=True)
class Result:
    """What was made and where it is."""

    image_digest: str
    """Digest of the image's manifest."""
    image_reference: str
    """``repository@digest`` when pushed, else ``oci:FOLDER:TAG``, which skopeo understands."""
    size_bytes: int
    """Size of the whole image."""
    pushed: bool
    """Whether a registry has it."""
    provenance_digest: str = ""
    """Digest of the statement of where it comes from, which refers to the image; empty where there is none."""
