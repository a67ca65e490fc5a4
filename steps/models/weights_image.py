"""Files of a base model in an OCI image, as KAITO and KServe build them, or in an artifact of ``oras``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from steps.models import locations
from steps.models.model_hub import ALLOW_PATTERNS
from steps.oci import image_data, oci_layout, registry
from steps.oci.image_data import Selection
from steps.oci.oci_layout import Blob, Image
from steps.oci.reference import Reference
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.runtime.retry import Sleep

ROOTS = ("workspace/weights", "workspace/vllm/weights", "workspace/tfs/weights", "models", "data")
"""Directories of weights: in images of KAITO, then KServe's modelcars, and argotune's own images of data."""
CONFIG = "config.json"
FIX = f"COPY config.json, the tokenizer and the safetensors files to /{ROOTS[0]}/"


def docker_config() -> Path | None:
    """Return the directory with credentials for the image of the base model."""
    configured = os.environ.get(locations.CONFIG_VARIABLE)
    return Path(configured) if configured else None


def resolve(image: Reference, wait: Sleep) -> str:
    """Return the digest of an image.

    Raises:
        BadInput: it does not exist, or the credentials are not allowed to pull it.
        StepError: the registry is unreachable.
    """
    return registry.resolve_digest(image, docker_config=docker_config(), wait=wait)


def download(image: Reference, area: Path, wait: Sleep) -> Path:
    """Pull an image into ``area``, which keeps complete layers, and return the directory of the model's files.

    Raises:
        BadInput: as ``resolve``, or the image has no model, or entries that must not be unpacked.
        StepError: as ``resolve``, or a layer is damaged.
    """
    layout, unpacked = area / "layout", area / "unpacked"
    registry.pull_image(image, layout, resumable=True, docker_config=docker_config(), wait=wait)
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    try:
        _unpack(oci_layout.read_image(layout, verify=False), unpacked)
        return _find_model(unpacked, image)
    except BadInput as error:
        shutil.rmtree(area)
        raise BadInput(f"{image}: {error.message}", error.fix) from None


def _unpack(image: Image, folder: Path) -> None:
    """Write the files of artifacts, and those of archives in the directories of weights."""
    titled = [layer for layer in image.layers if layer.title]
    archives = [layer for layer in image.layers if not layer.title]
    roots = [() if titled else tuple(root.split("/")) for root in ROOTS]
    destinations = {root: folder.joinpath(*root) for root in roots}
    for destination in destinations.values():
        destination.mkdir(parents=True, exist_ok=True)
    selection = Selection(destinations, ALLOW_PATTERNS, FIX)
    image_data.unpack(image, archives, selection)
    for layer in titled:
        path = _safe_path(layer)
        if selection.includes(path.name):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image.path(layer), target)


def _safe_path(layer: Blob) -> PurePosixPath:
    """Return the path of a file of an artifact.

    Raises:
        BadInput: it leads out of the directory, or no file can have it.
    """
    path = PurePosixPath(layer.title)
    if len(path.parts) > image_data.MAX_DEPTH or not files.is_safe_path(path):
        raise BadInput(f"the file {layer.title[:200]!r} cannot be written", "push the files by their names")
    return path


def _find_model(folder: Path, image: Reference) -> Path:
    """Return the directory with the model's configuration: the first of the roots, else the only one."""
    for root in ROOTS:
        if (folder / root / CONFIG).is_file():
            return folder / root
    found = sorted((file.parent for file in folder.rglob(CONFIG)), key=lambda path: (len(path.parts), path))
    nearest = [path for path in found if len(path.parts) == len(found[0].parts)]
    if len(nearest) == 1:
        return nearest[0]
    if nearest:
        names = ", ".join(f"/{path.relative_to(folder)}" for path in nearest[:5])
        raise BadInput(f"the image has several models: {names}", FIX)
    directories = ", ".join(f"/{root}" for root in ROOTS)
    raise BadInput(f"no {CONFIG} in {directories}", FIX)
