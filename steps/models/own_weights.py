"""Base models from an OCI image or an object store, copied to ``$HF_HOME/argotune`` once for each digest."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from steps.models import locations
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.runtime.json_text import parse_json
from steps.runtime.retry import Sleep

MARKER = "argotune.json"
DIGITS = 16
"""Hex digits of the digest in the name of a directory."""
Check = Callable[[Path], None]


@dataclass(frozen=True)
class OwnWeights:
    """A complete copy of a model's files."""

    folder: Path
    digest: str
    """Digest of the image's manifest, or of the list of objects with their sizes and entity tags."""


def resolve(model: str, revision: str = "", wait: Sleep = time.sleep) -> str:
    """Return the digest that an image or a prefix has now; ``revision`` if it is set.

    Raises:
        BadInput: it does not exist or is not readable.
        StepError: the server is unreachable.
    """
    if revision:
        locations.check(model, revision)
        return revision
    # Imported here: this module is on the path of commands that use no network.
    from steps.models import weights_image, weights_store

    if locations.is_image(model):
        return weights_image.resolve(locations.parse_image(model), wait)
    return weights_store.resolve(locations.parse_store(model), wait)


def fetch(model: str, revision: str, check: Check, *, whole: bool, wait: Sleep = time.sleep) -> OwnWeights:
    """Return a copy of a model's files, after downloading it if there is none.

    Args:
        model: ``oci://IMAGE`` or the prefix of an object store.
        revision: Digest that it must have; empty: the present one.
        check: Raises an error if the files of a directory cannot be used.
        whole: Include the weights. Images are always copied as a whole: a file of a layer cannot be read alone.
        wait: Sleeps between attempts.

    Raises:
        BadInput: it does not exist, is not readable, has another digest, or is not a model.
        StepError: the server is unreachable.
    """
    from huggingface_hub.utils import WeakFileLock

    if revision and (kept := _find(model, revision)):
        return kept
    digest = resolve(model, revision, wait)
    if kept := _find(model, digest):
        return kept
    is_whole = whole or locations.is_image(model)
    folder = cache_folder(model, digest)
    folder = folder if is_whole else folder.with_name(f"{folder.name}-tokenizer")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A concurrent step waits, and uses the first one's result.
    with WeakFileLock(folder.parent / f".{folder.name}.lock"):
        if not _is_complete(folder, digest):
            print(f"copying {model} at {digest[:19]}{'' if is_whole else ' without weights'}", flush=True)
            _copy(model, digest, folder, check, wait, whole=is_whole)
    return OwnWeights(folder, digest)


def cache_folder(model: str, digest: str) -> Path:
    """Return the directory of the copy with a digest."""
    from huggingface_hub import constants

    name = re.sub(r"[^A-Za-z0-9._-]", "-", locations.short_name(model)).strip(".-")[:60] or "model"
    return Path(constants.HF_HOME) / "argotune" / f"{name}-{digest.partition(':')[2][:DIGITS]}"


def _find(model: str, digest: str) -> OwnWeights | None:
    """Return the complete copy with a digest, if there is one."""
    folder = cache_folder(model, digest)
    return OwnWeights(folder, digest) if _is_complete(folder, digest) else None


def _copy(model: str, digest: str, folder: Path, check: Check, wait: Sleep, *, whole: bool) -> None:
    """Download the files next to ``folder``, check them, and rename their directory to it."""
    from steps.models import weights_image, weights_store

    # A fixed name, so that the next attempt resumes the download of a killed one.
    area = folder.with_name(f".{folder.name}.download")
    _delete_other_versions(folder.parent, cache_folder(model, digest).name)
    area.mkdir(exist_ok=True)
    if locations.is_image(model):
        downloaded = weights_image.download(locations.parse_image(model, digest), area, wait)
    else:
        downloaded = weights_store.download(locations.parse_store(model), digest, area, wait, whole=whole)
    try:
        check(downloaded)
    except BadInput:
        shutil.rmtree(area)  # fixed files have another digest
        raise
    sizes = {file.relative_to(downloaded).as_posix(): file.stat().st_size for file in _iter_files(downloaded)}
    files.write_json(downloaded / MARKER, {"location": model, "digest": digest, "files": sizes})
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(downloaded, folder)
    files.sync_folder(folder.parent)
    shutil.rmtree(area, ignore_errors=True)


def _delete_other_versions(parent: Path, name: str) -> None:
    """Delete partial copies with other digests than that of ``name``, except those that another step is copying."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    for area in parent.glob(f".{name[:-DIGITS]}{'[0-9a-f]' * DIGITS}*.download"):
        if not area.name.startswith(f".{name}"):
            with suppress(Timeout), WeakFileLock(area.with_suffix(".lock"), timeout=0.1):
                shutil.rmtree(area, ignore_errors=True)


def _is_complete(folder: Path, digest: str) -> bool:
    """Return True if a directory has all files of a copy with their sizes."""
    try:
        marker = parse_json((folder / MARKER).read_bytes())
        sizes = marker["files"]
        is_same: bool = marker["digest"] == digest
        return is_same and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _iter_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())
