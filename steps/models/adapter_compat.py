"""Whether an adapter can be served on a base model by a server: told before anything is started."""

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
    """An adapter on disk and the name that requests call it by."""

    name: str
    folder: Path
    config: Mapping[str, Any]

    @property
    def rank(self) -> int:
        """Largest LoRA rank of its layers."""
        return max([int(self.config.get("r") or 0), *(self.config.get("rank_pattern") or {}).values()])


def read(name: str, folder: Path) -> ServedAdapter:
    """Read the adapter in ``folder``.

    Raises:
        ValueError: with what is missing or broken.
    """
    missing = [file for file in ADAPTER_FILES if not (folder / file).is_file()]
    if missing:
        raise ValueError(f"adapter {name}: no {' and no '.join(missing)} in {folder}")
    try:
        config = json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise ValueError(f"adapter {name}: {CONFIG} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"adapter {name}: {CONFIG} is not that of a LoRA adapter (peft_type LORA)")
    return ServedAdapter(name, folder, config)


def problems(adapter: ServedAdapter, model: str, base: Path, kind: str, largest_rank: int | None) -> list[str]:
    """Everything that keeps ``adapter`` from being served on ``model`` (its files in ``base``) by ``kind``."""
    found = _of_base(adapter, model, base)
    if kind == "vllm":
        found += _of_vllm(adapter, largest_rank)
    return [f"adapter {adapter.name}: {problem}" for problem in found]


def vllm_rank(ranks: Iterable[int]) -> int:
    """The smallest ``--max-lora-rank`` of vLLM that holds all ``ranks``."""
    largest = max(ranks)
    return next((allowed for allowed in VLLM_RANKS if allowed >= largest), VLLM_RANKS[-1])


def _of_base(adapter: ServedAdapter, model: str, base: Path) -> list[str]:
    taught = str(adapter.config.get("base_model_name_or_path") or "")
    if _is_hub_id(taught) and _is_hub_id(model) and taught.lower() != model.lower():
        return [f"it was tuned on {taught}, not on {model}"]
    try:
        shapes = {key: value for file in base.glob("*.safetensors") for key, value in _tensors(file).items()}
        return _misfits(_tensors(adapter.folder / WEIGHTS), shapes, model)
    except (ValueError, struct.error, OSError) as error:
        return [f"not a safetensors file: {error}"]


def _of_vllm(adapter: ServedAdapter, largest_rank: int | None) -> list[str]:
    found = []
    limit = largest_rank or VLLM_RANKS[-1]
    if adapter.rank > limit:
        found.append(f"its rank {adapter.rank} is above max-lora-rank {limit}")
    # vLLM: vllm/lora/peft_helper.py refuses the first three when the adapter is loaded, and knows no pattern.
    if adapter.config.get("use_dora"):
        found.append("vLLM can't serve DoRA (use_dora)")
    if adapter.config.get("modules_to_save"):
        found.append("vLLM can't serve fully tuned layers (modules_to_save)")
    if adapter.config.get("bias", "none") != "none":
        found.append("vLLM can't serve tuned biases (bias)")
    if patterns := [key for key in ("rank_pattern", "alpha_pattern") if adapter.config.get(key)]:
        found.append(f"vLLM would scale its layers by one alpha and rank, whatever {' and '.join(patterns)} says")
    return found


def _misfits(adapter: Mapping[str, Any], base: Mapping[str, Any], model: str) -> list[str]:
    """The first layer whose LoRA matrices have other sizes than the base's; layers not found say nothing."""
    for key, tensor in adapter.items():
        layer, found, _ = key.removeprefix("base_model.model.").partition(".lora_A.")
        weight = base.get(f"{layer}.weight")
        other = adapter.get(key.replace(".lora_A.", ".lora_B."))
        if not found or weight is None or other is None or weight["dtype"] not in FLOATS:
            continue  # quantized weights are packed: their shape is not the layer's
        sizes = [other["shape"][0], tensor["shape"][-1]]
        if sorted(sizes) != sorted(weight["shape"]):
            return [f"layer {layer} is {sizes} here and {weight['shape']} in {model}: another base model"]
    return []


def _tensors(file: Path) -> dict[str, Any]:
    """Header of a safetensors file: dtype and shape of each tensor."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > file.stat().st_size:
            raise ValueError(file.name)
        header = json.loads(stream.read(length))
    return {key: value for key, value in header.items() if key != "__metadata__"}


def _is_hub_id(name: str) -> bool:
    """``owner/name``; KAITO's own adapters name a folder of the image they were tuned in instead."""
    return name.count("/") == 1 and name[0] not in "./~" and not Path(name).exists()
