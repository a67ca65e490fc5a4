"""Registry Secrets as one volume: docker's configuration directory, with a file for each Secret."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KEY = ".dockerconfigjson"
_MORE = re.compile(r"config-(\d+)\.json")


def volume_source(secrets: Sequence[str]) -> dict[str, Any]:
    """Return the Kubernetes VolumeSource of dockerconfigjson Secrets, the first of which wins.

    They are optional: a step reports which credentials are missing, while a pod would hang without a message.
    """
    items = [[{"key": KEY, "path": _file_name(index)}] for index in range(len(secrets))]
    if len(secrets) == 1:
        return {"secret": {"secretName": secrets[0], "items": items[0], "optional": True}}
    sources = [
        {"secret": {"name": name, "items": item, "optional": True}} for name, item in zip(secrets, items, strict=True)
    ]
    return {"projected": {"sources": sources}}


def secret_file(folder: Path, index: int) -> Path | None:
    """Return the file of a Secret of the volume by its index; None if it does not exist."""
    names = (_file_name(index), KEY) if index == 0 else (_file_name(index),)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def further_files(folder: Path) -> list[Path]:
    """Return the files of all Secrets but the first, in their order."""
    numbers = {int(match[1]): file for file in folder.glob("config-*.json") if (match := _MORE.fullmatch(file.name))}
    return [numbers[number] for number in sorted(numbers) if numbers[number].is_file()]


def _file_name(index: int) -> str:
    return f"config-{index + 1}.json" if index else "config.json"
