"""Files of a base model in an object store, below a prefix."""

from __future__ import annotations

import concurrent.futures
import fnmatch
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from steps.data.fetch import MAX_CONNECTIONS, Targets
from steps.data.locations import object_store
from steps.data.locations.location import ObjectLocation
from steps.data.locations.object_store import ObjectFile, ObjectReaders
from steps.data.locations.remote_file import FileState
from steps.data.transfer import RETRY, Target
from steps.models.model_hub import ALLOW_PATTERNS, CONSOLIDATED, IGNORE_PATTERNS, WEIGHTS
from steps.runtime import files
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import Sleep, retry_call

MAX_FILES = 5_000
"""Files of one model; large ones have some hundred."""


@dataclass(frozen=True)
class Listing:
    """The objects of a model."""

    files: Mapping[str, ObjectFile]
    """Objects by their paths below the prefix."""
    digest: str
    """Digest of paths, sizes and entity tags."""


def resolve(location: ObjectLocation, wait: Sleep = time.sleep) -> str:
    """Return the digest of the objects below a prefix.

    Raises:
        BadInput: there is no model, or no access.
        StepError: the store is unreachable.
    """
    with _listing(location, wait) as listing:
        return listing.digest


def download(location: ObjectLocation, digest: str, area: Path, wait: Sleep, *, whole: bool) -> Path:
    """Download the objects into ``area``, which keeps complete and partial files, and return their directory.

    Raises:
        BadInput: as ``resolve``, or the objects have another digest, or the disk is full.
        StepError: as ``resolve``, or an object changed meanwhile.
    """
    partial, model = area / "partial", area / "model"
    with _listing(location, wait) as listing, concurrent.futures.ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
        if listing.digest != digest:
            message = f"{location.shown} has the digest {listing.digest}, not {digest}"
            raise BadInput(message, "remove the revision, or restore the objects that it names")
        selected = [name for name in listing.files if whole or not _matches(name, WEIGHTS)]
        targets = [Target(listing.files[name], "", partial / name) for name in selected]
        for target in targets:
            target.path.parent.mkdir(parents=True, exist_ok=True)
        Targets(targets, pool, None if wait is time.sleep else wait).download(targets)
    if resolve(location, wait) != digest:
        raise TransientError(f"{location.shown} changed while it was copied")
    shutil.rmtree(model, ignore_errors=True)
    for name in selected:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(partial / name, model / name)
    return model


@contextmanager
def _listing(location: ObjectLocation, wait: Sleep) -> Iterator[Listing]:
    """Provide the objects of a model with the processes that read them."""
    with ObjectReaders() as readers:
        try:
            yield retry_call(lambda: _list(location, readers), RETRY.in_pod(), sleep=wait)
        except TransientError as error:
            fix = "check that the store is up and reachable; the next attempt resumes the copy"
            raise StepError(f"{location.shown}: {error.message}", fix) from error


def _list(location: ObjectLocation, readers: ObjectReaders) -> Listing:
    # The endpoint is that of the pod's environment, as HF_ENDPOINT is; the Workspace cannot set it.
    is_file, names = object_store.list_files(location, readers, allow_private=True)
    start = len(location.path) + 1 if location.path else 0
    if is_file:
        parent = location.shown.rpartition("/")[0]
        raise BadInput(f"{location.shown} is a file, not a model", f"write the prefix of config.json: {parent}")
    found = sorted(name[start:] for name in names)
    selected = _select(found)
    if "config.json" not in selected:
        others = ", ".join(found[:5]) or "no objects"
        message = f"{location.shown} is not a model: config.json not found, only {others}"
        raise BadInput(message, "write the prefix of a directory in transformers' format")
    if len(selected) > MAX_FILES:
        raise BadInput(f"{location.shown}: {len(selected)} files (maximum {MAX_FILES})", "use the prefix of one model")
    if unsafe := next((name for name in selected if not _is_safe(name)), None):
        raise BadInput(f"{location.shown}: {unsafe[:200]!r} cannot be a file", "rename the object")
    objects = {name: ObjectFile(replace(location, path=f"{location.path}/{name}".lstrip("/")), readers, True)
               for name in selected}  # fmt: skip
    states = {name: file.read_state() for name, file in objects.items()}
    return Listing(objects, _digest(states))


def _select(names: Sequence[str]) -> list[str]:
    """Return the files of a model; weights in Mistral's format only if there are no others."""
    allowed = [name for name in names if _matches(name, ALLOW_PATTERNS) and not _matches(name, IGNORE_PATTERNS)]
    others = [name for name in allowed if not _matches(name, [CONSOLIDATED])]
    return others if any(name.endswith(".safetensors") for name in others) else allowed


def _digest(states: Mapping[str, FileState]) -> str:
    entries = [[name, state.size, state.etag or state.last_modified] for name, state in states.items()]
    return files.sha256_text(json.dumps(entries))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return name == path.as_posix() and files.is_safe_path(path)
