"""The folder of a desired adapter: as it is, mounted from its image, or pulled."""

from __future__ import annotations

import os
from pathlib import Path

from steps.serving.desired_adapters import DesiredAdapter


def fetch_adapter(adapter: DesiredAdapter, folder: Path, images: str = "") -> Path:
    """Return the folder of the adapter with this digest.

    Args:
        adapter: Adapter with a path or an image.
        folder: Parent of the folders of pulled adapters.
        images: Folder in which the cluster has mounted images of adapters; empty if it has not.

    Raises:
        Exception: The adapter is not available (``steps.runtime.errors``), or has another digest.
    """
    # Imported here: vLLM loads this module in an environment without the packages that pull images.
    from steps.models.adapter import ADAPTER_FILES, adapter_digest

    if not adapter.image:
        if adapter_digest(Path(adapter.path)) != adapter.digest:
            raise RuntimeError(f"adapter {adapter.name}: the digest of {adapter.path} is not {adapter.digest[:19]}")
        return Path(adapter.path)
    mounted = Path(images) / adapter.short_digest / "data"
    if images and all(os.access(mounted / name, os.R_OK) for name in ADAPTER_FILES):
        return mounted
    if images:
        # Some runtimes mount an empty folder, or keep the modes of files that only their owner can read.
        print(f"adapter {adapter.name}: not readable in the volume {mounted.parent}; pulling its image", flush=True)
    from steps.oci import reference
    from steps.oci.registry import pull_adapter

    pulled = folder / adapter.version
    if not pulled.is_dir():  # pull_adapter renames a complete folder
        pull_adapter(reference.parse(f"{reference.parse(adapter.image).name}@{adapter.digest}"), pulled)
    return pulled
