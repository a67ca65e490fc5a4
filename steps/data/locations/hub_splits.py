"""Files of a config and split of a hub dataset, as the datasets library finds them.

Configs and splits are in the header of README.md (``configs: [{config_name, data_files}]``), else splits follow from
the names of files and folders. Sources: huggingface.co/docs/hub/datasets-manual-configuration and
datasets-file-names-and-splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from steps.data.formats import file_names
from steps.data.locations import patterns
from steps.data.locations.location import HubLocation
from steps.runtime.errors import BadInput

TRAIN = "train"
_HEADER = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_SHARD = re.compile(r"(?:^|/)data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*$")
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def select_files(card: str, names: Sequence[str], location: HubLocation) -> list[str]:
    """Return the files of the location's config and split; by default of the default config, and of ``train``.

    Raises:
        BadInput: several configs and none is chosen, or an unknown config or split.
    """
    visible = [name for name in names if not any(part.startswith((".", "_")) for part in name.split("/"))]
    config = _choose_config(_read_configs(card), location)
    splits = _splits_of_config(config, visible) if config else _splits_by_name(visible)
    return _choose_split(splits, location)


def select_converted(names: Sequence[str], location: HubLocation) -> list[str]:
    """Return the files of config and split from the hub's conversion, ``CONFIG/SPLIT/NNNN.parquet``.

    Raises:
        BadInput: as ``select_files``, or the hub converted only the first part of a split.
    """
    configs: dict[str, dict[str, list[str]]] = {}
    for name in names:
        parts = name.split("/")
        if len(parts) == 3 and name.endswith(".parquet"):
            configs.setdefault(parts[0], {}).setdefault(parts[1], []).append(name)
    config = location.config or ("default" if "default" in configs else next(iter(configs), ""))
    if not location.config and len(configs) > 1 and config != "default":
        raise _ambiguous_config(location, list(configs))
    if config not in configs:
        raise _unknown(location, "config", config, list(configs))
    splits = configs[config]
    split = location.split or TRAIN
    if split not in splits and f"partial-{split}" in splits:
        fix = "use the files of the revision main"
        raise BadInput(f"{location.shown}: the hub converted only the first part of split {split!r}", fix)
    return _choose_split({name: files for name, files in splits.items() if not name.startswith("partial-")}, location)


def _read_configs(card: str) -> dict[str, dict[str, Any]]:
    header = _HEADER.match(card)
    try:
        content = yaml.safe_load(header[1]) if header else None
    except (yaml.YAMLError, ValueError):
        content = None
    configs = content.get("configs") if isinstance(content, dict) else None
    if not isinstance(configs, list):
        return {}
    return {str(config.get("config_name", "default")): config for config in configs if isinstance(config, dict)}


def _choose_config(configs: dict[str, dict[str, Any]], location: HubLocation) -> dict[str, Any] | None:
    if location.config:
        if location.config not in configs and (configs or location.config != "default"):
            raise _unknown(location, "config", location.config, list(configs))
        return configs.get(location.config)
    if len(configs) <= 1:
        return next(iter(configs.values()), None)
    default = [config for name, config in configs.items() if name == "default" or config.get("default") is True]
    if not default:
        raise _ambiguous_config(location, list(configs))
    return default[0]


def _splits_of_config(config: dict[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    folder = str(config.get("data_dir") or "").strip("/")
    names = [name for name in names if not folder or name.startswith(f"{folder}/")]
    data_files = config.get("data_files")
    if not data_files:
        return _splits_by_name(names)
    splits: dict[str, list[str]] = {}
    for split, path in _iter_data_files(data_files):
        pattern = f"{folder}/{path}" if folder else path
        found = [name for name in names if patterns.matches(pattern.removeprefix("./"), name)]
        splits.setdefault(split, []).extend(name for name in found if name not in splits.get(split, []))
    return {split: files for split, files in splits.items() if files}


def _iter_data_files(data_files: Any) -> list[tuple[str, str]]:
    """Return pairs of split and pattern, from a pattern, a list of them, a map by split, or a list of maps."""
    if isinstance(data_files, str):
        return [(TRAIN, data_files)]
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    pairs: list[tuple[str, str]] = []
    for entry in data_files if isinstance(data_files, list) else []:
        if isinstance(entry, str):
            pairs.append((TRAIN, entry))
        elif isinstance(entry, dict):
            paths = entry.get("path")
            listed = paths if isinstance(paths, list) else [paths]
            pairs += [(str(entry.get("split", TRAIN)), str(path)) for path in listed if path]
    return pairs


def _splits_by_name(names: Sequence[str]) -> dict[str, list[str]]:
    """Return files by split: of shards (``data/SPLIT-00000-of-00001``), else by keywords of folders, else of names."""
    data = [name for name in names if file_names.is_readable(name)]
    for split_of in (_split_of_shard, _split_of_folder, _split_of_name):
        splits: dict[str, list[str]] = {}
        for name in data:
            if split := split_of(name):
                splits.setdefault(split, []).append(name)
        if splits:
            return splits
    return {TRAIN: data} if data else {}


def _split_of_shard(name: str) -> str:
    found = _SHARD.search(name)
    return found[1] if found else ""


def _split_of_folder(name: str) -> str:
    return next((split for folder in name.split("/")[:-1] if (split := _keyword(folder))), "")


def _split_of_name(name: str) -> str:
    return _keyword(name.rpartition("/")[2])


def _keyword(text: str) -> str:
    words = re.split(r"[-._ 0-9]+", text)
    return next((split for split, keywords in _KEYWORDS.items() if set(keywords) & set(words)), "")


def _choose_split(splits: dict[str, list[str]], location: HubLocation) -> list[str]:
    split = location.split or (TRAIN if TRAIN in splits else next(iter(splits), ""))
    if not splits:
        fix = "name the files: hf://datasets/ORG/NAME/PATH; for a dataset with a script use @refs/convert/parquet"
        raise BadInput(f"{location.shown}: the dataset has no data files", fix)
    if not location.split and TRAIN not in splits and len(splits) > 1:
        fix = f"add ?split= and one of {', '.join(sorted(splits))}"
        raise BadInput(f"{location.shown}: the dataset has several splits, none of them train", fix)
    if split not in splits:
        raise _unknown(location, "split", split, list(splits))
    return sorted(splits[split])


def _ambiguous_config(location: HubLocation, names: Sequence[str]) -> BadInput:
    fix = f"add ?config= and one of {', '.join(sorted(names))}"
    return BadInput(f"{location.shown}: the dataset has several configs", fix)


def _unknown(location: HubLocation, kind: str, name: str, names: Sequence[str]) -> BadInput:
    listed = ", ".join(sorted(names)) or "none"
    return BadInput(f"{location.shown}: the dataset has no {kind} {name!r}", f"use one of: {listed}")
