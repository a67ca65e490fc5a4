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
    """Image reference to push to; empty: only the layout folder."""
    moving_image: str = ""
    """Reference whose tag is moved to the pushed image; empty: none."""
    push: bool = True
    """Push to the reference's registry; false: only the layout folder."""
    immutable: bool = False
    """Reject a tag that already names another image; the tag of moving_image still moves."""
    preset: str = ""
    """KAITO name of the tuned preset."""
    model: str = ""
    """Base model: id on the hub."""
    revision: str = ""
    """Revision of the base model."""
    adapter_digest: str = ""
    """Digest of the adapter, from the tune step; another adapter is rejected."""
    data_digest: str = ""
    """Digest of the training data."""
    settings_digest: str = ""
    """Digest of the settings that shaped the adapter, from the check step."""
    annotations: dict[str, str] = {}
    """Additional annotations of the manifest."""
    output: OptionalFolder = None
    """Folder that also gets the adapter's files (KAITO `output.volumeSource`, mounted)."""


@dataclass(frozen=True)
class Result:
    """The image and its location."""

    image_digest: str
    """Digest of the image's manifest."""
    image_reference: str
    """``repository@digest`` when pushed, else ``oci:FOLDER:TAG``, which skopeo understands."""
    size_bytes: int
    """Size of the whole image."""
    pushed: bool
    """True if the registry has the image."""
    provenance_digest: str = ""
    """Digest of the provenance statement that refers to the image; empty: none."""
