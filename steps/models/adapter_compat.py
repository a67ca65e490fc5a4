"""Checks that an adapter can be served on a base model, before a server is started or loads it.

Standard library only: vLLM runs these checks in an environment without our packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.models import adapter_weights
from steps.models.adapter import ADAPTER_FILES, CONFIG, WEIGHTS
from steps.runtime.json_text import parse_json

_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
# vLLM: vllm/config/lora.py, MaxLoRARanks.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
MAX_PROBLEM_CHARS = 500
"""Maximum of a problem's text: names of layers come from the file."""
MAX_RANK = 4096
"""A larger rank is an error or an attack: PEFT allocates the matrices before it reads the weights."""


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter on disk, and the model name that requests use for it."""

    name: str
    folder: Path
    config: Mapping[str, Any]

    @property
    def rank(self) -> int:
        """Maximum LoRA rank of its layers."""
        return max([int(self.config.get("r") or 0), *(self.config.get("rank_pattern") or {}).values()])


def read(name: str, folder: Path) -> ServedAdapter:
    """Read the adapter in ``folder``.

    Raises:
        ValueError: A file is missing or invalid.
    """
    missing = [file for file in ADAPTER_FILES if not (folder / file).is_file()]
    if missing:
        raise ValueError(f"adapter {name}: {' and '.join(missing)} not found in {folder}")
    try:
        config = parse_json((folder / CONFIG).read_text())
    except ValueError as error:
        raise ValueError(f"adapter {name}: {CONFIG} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"adapter {name}: {CONFIG}: peft_type must be LORA")
    if messages := _config_problems(config):
        raise ValueError(f"adapter {name}: {CONFIG}: {'; '.join(messages)}")
    return ServedAdapter(name, folder, config)


def problems(adapter: ServedAdapter, model: str, base: Path, kind: str, max_rank: int | None) -> list[str]:
    """Return everything that prevents a server from serving the adapter.

    Args:
        adapter: The adapter.
        model: Hugging Face id or directory of the base model.
        base: Directory of the base model's files.
        kind: Kind of server; ``vllm`` has additional limits.
        max_rank: The server's ``max-lora-rank``; None: the maximum that vLLM allows.
    """
    messages = _base_problems(adapter, model, base)
    if kind == "vllm":
        messages += _vllm_problems(adapter, max_rank)
    return [f"adapter {adapter.name}: {message[:MAX_PROBLEM_CHARS]}" for message in messages]


def vllm_rank(ranks: Iterable[int]) -> int:
    """Return the smallest ``--max-lora-rank`` of vLLM that allows all ``ranks``."""
    max_rank = max(ranks)
    return next((allowed for allowed in VLLM_RANKS if allowed >= max_rank), VLLM_RANKS[-1])


def _base_problems(adapter: ServedAdapter, model: str, base: Path) -> list[str]:
    tuned_on = str(adapter.config.get("base_model_name_or_path") or "")
    if _is_hub_id(tuned_on) and _is_hub_id(model) and tuned_on.lower() != model.lower():
        return [f"it was tuned on {tuned_on}, not on {model}"]
    try:
        header = adapter_weights.read_header(adapter.folder / WEIGHTS)
        messages = adapter_weights.find_problems(header, adapter_weights.read_base_header(base), adapter.config, model)
        if not messages and (tensor := adapter_weights.find_non_finite(adapter.folder / WEIGHTS, header)):
            messages = [f"{tensor} has NaN or infinite values"]
    except (ValueError, OSError) as error:
        return [f"not a safetensors file: {error}"]
    return messages


def _vllm_problems(adapter: ServedAdapter, max_rank: int | None) -> list[str]:
    messages = []
    limit = max_rank or VLLM_RANKS[-1]
    if adapter.rank > limit:
        messages.append(f"rank {adapter.rank} exceeds max-lora-rank ({limit})")
    # vLLM: vllm/lora/peft_helper.py rejects the first three when it loads the adapter, and ignores patterns.
    if adapter.config.get("use_dora"):
        messages.append("vLLM does not support DoRA (use_dora)")
    if adapter.config.get("modules_to_save"):
        messages.append("vLLM does not support fully tuned layers (modules_to_save)")
    if adapter.config.get("bias", "none") != "none":
        messages.append("vLLM does not support tuned biases (bias)")
    if patterns := [key for key in ("rank_pattern", "alpha_pattern") if adapter.config.get(key)]:
        messages.append(f"vLLM ignores {' and '.join(patterns)} and scales all layers by one alpha and rank")
    return messages


def _config_problems(config: Mapping[str, Any]) -> list[str]:
    """Return the settings that a server must not follow: they cost memory or time, or import a module."""
    messages = []
    patterns = {key: config.get(key) or {} for key in ("rank_pattern", "alpha_pattern")}
    ranks = [config.get("r", 8), *(patterns["rank_pattern"].values() if _is_dict(patterns["rank_pattern"]) else ())]
    if not all(type(rank) is int and 1 <= rank <= MAX_RANK for rank in ranks):
        messages.append(f"r and rank_pattern must be integers from 1 to {MAX_RANK}")
    for key, pattern in patterns.items():
        # PEFT matches each layer with the keys as regular expressions.
        if not _is_dict(pattern) or not all(re.fullmatch(r"\^?[\w.-]+\$?", name) for name in pattern):
            messages.append(f"{key} must map names of layers, not regular expressions")
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        if not _are_names(config.get(key)):
            messages.append(f"{key} must be a list of names, not a regular expression")
    messages += [f"{key} is not supported" for key in ("layer_replication", "megatron_config") if config.get(key)]
    return messages


def _are_names(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) for name in value)
    return value in (None, "", "all-linear")


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_hub_id(name: str) -> bool:
    """Return True for ``owner/name``; KAITO's adapters name a directory of their tuning image instead."""
    return _HUB_ID.fullmatch(name) is not None and name[0] != "." and not Path(name).exists()
