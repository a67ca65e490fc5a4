"""Checks that an adapter can be served on a base model, before a server is started."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.models.adapter import ADAPTER_FILES, CONFIG, WEIGHTS

# vLLM: vllm/config/lora.py, MaxLoRARanks.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
FLOATS = ("F64", "F32", "F16", "BF16")


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
        config = json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise ValueError(f"adapter {name}: {CONFIG} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"adapter {name}: {CONFIG}: peft_type must be LORA")
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
    return [f"adapter {adapter.name}: {message}" for message in messages]


def vllm_rank(ranks: Iterable[int]) -> int:
    """Return the smallest ``--max-lora-rank`` of vLLM that allows all ``ranks``."""
    max_rank = max(ranks)
    return next((allowed for allowed in VLLM_RANKS if allowed >= max_rank), VLLM_RANKS[-1])


def _base_problems(adapter: ServedAdapter, model: str, base: Path) -> list[str]:
    tuned_on = str(adapter.config.get("base_model_name_or_path") or "")
    if _is_hub_id(tuned_on) and _is_hub_id(model) and tuned_on.lower() != model.lower():
        return [f"it was tuned on {tuned_on}, not on {model}"]
    try:
        shapes = {key: value for file in base.glob("*.safetensors") for key, value in _read_header(file).items()}
        return _shape_problems(_read_header(adapter.folder / WEIGHTS), shapes, model)
    except (ValueError, struct.error, OSError) as error:
        return [f"not a safetensors file: {error}"]


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


def _shape_problems(adapter: Mapping[str, Any], base: Mapping[str, Any], model: str) -> list[str]:
    """Return the first layer whose LoRA matrices do not match the base's shape; unknown layers are skipped."""
    for key, tensor in adapter.items():
        layer, is_lora, _ = key.removeprefix("base_model.model.").partition(".lora_A.")
        weight = base.get(f"{layer}.weight")
        other = adapter.get(key.replace(".lora_A.", ".lora_B."))
        if not is_lora or weight is None or other is None or weight["dtype"] not in FLOATS:
            continue  # quantized weights are packed: their shape is not the layer's
        shape = [other["shape"][0], tensor["shape"][-1]]
        if sorted(shape) != sorted(weight["shape"]):
            return [f"layer {layer} has shape {shape}, but {weight['shape']} in {model}: another base model"]
    return []


def _read_header(file: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: dtype and shape of each tensor."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > file.stat().st_size:
            raise ValueError(file.name)
        header = json.loads(stream.read(length))
    return {key: value for key, value in header.items() if key != "__metadata__"}


def _is_hub_id(name: str) -> bool:
    """Return True for ``owner/name``; KAITO's adapters name a directory of their tuning image instead."""
    return name.count("/") == 1 and name[0] not in "./~" and not Path(name).exists()
