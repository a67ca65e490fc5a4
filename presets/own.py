"""Presets outside of argotune: those of a platform team or a user, and those that ``argotune presets add`` derived."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from presets.facts import Model

HUB_NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[A-Za-z0-9][\w.-]*))?")
"""Hugging Face id, and optionally a branch, a tag or a commit."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class InvalidPreset:
    """A preset file that cannot be used."""

    file: str
    field: str
    message: str


class _Folders:
    """The directories in use; a command sets them once."""

    current: tuple[Path, ...] = ()


def use_folders(folders: Iterable[Path]) -> None:
    """Find presets in these directories, too, before those of argotune; the first one wins."""
    _Folders.current = tuple(folders)


def invalid() -> list[InvalidPreset]:
    """Return what is wrong in the files of the directories in use."""
    return [problem for file in _files() for problem in _read(*_key(file))[1]]


def read_folders(folders: Iterable[Path]) -> Iterator[tuple[Path, Model]]:
    """Yield the valid presets of directories, with their files."""
    for file in _files(folders):
        if model := _read(*_key(file))[0]:
            yield file, model


def find(name: str) -> Model | None:
    """Return the preset of the directories in use with this name, id, or id and revision."""
    matching = (model for file in _files() if (model := _read(*_key(file))[0]) and _has_name(model, name))
    return next(matching, None)


def find_cached(name: str) -> Model | None:
    """Return the preset that was derived for an id, or for an id and revision."""
    if not HUB_NAME.fullmatch(name):
        return None
    file = cache_folder() / cache_file_name(name)
    return _read(*_key(file))[0] if file.is_file() else None


def models() -> list[Model]:
    """Return all presets of the directories in use and of the cache."""
    folder = cache_folder()
    files = [*_files(), *(sorted(folder.glob("*.yaml")) if folder.is_dir() else [])]
    found: dict[str, Model] = {}
    for file in files:
        if model := _read(*_key(file))[0]:
            found.setdefault(model.name.lower(), model)
    return list(found.values())


def cache_folder() -> Path:
    """Return the directory of derived presets."""
    return Path(os.environ.get("ARGOTUNE_HOME") or Path.home() / ".argotune").absolute() / "presets"


def cache_file_name(name: str) -> str:
    """Return the file name of a derived preset."""
    return f"{name.lower().replace('/', '--')}.yaml"


def as_yaml(model: Model) -> str:
    """Return the text of a preset file."""
    values = model.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))


def _files(folders: Iterable[Path] | None = None) -> Iterator[Path]:
    for folder in _Folders.current if folders is None else folders:
        if folder.is_dir():
            yield from sorted({*folder.glob("*.yaml"), *folder.glob("*.yml")})


def _has_name(model: Model, name: str) -> bool:
    repository, _, revision = name.lower().partition("@")
    if revision and not model.revision.startswith(revision) and name.lower() != model.name.lower():
        return False
    return name.lower() == model.name.lower() or repository in {
        other.lower() for other in (model.name, model.repository, *model.aliases)
    }


def _key(file: Path) -> tuple[Path, int, int]:
    try:
        status = file.stat()
    except OSError:
        return file, 0, 0
    return file, status.st_mtime_ns, status.st_size


@cache
def _read(file: Path, _modified: int, _size: int) -> tuple[Model | None, tuple[InvalidPreset, ...]]:
    """Return the preset of a file, or what is wrong with it; neither if the file is about something else."""
    try:
        content = yaml.load(file.read_bytes(), Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        return None, (InvalidPreset(str(file), "", f"cannot be read: {reason}"),)
    if not isinstance(content, dict) or not {"repository", "architecture"} & content.keys():
        return None, ()
    try:
        return Model.model_validate(content), ()
    except ValidationError as error:
        return None, tuple(
            InvalidPreset(str(file), ".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()
        )
