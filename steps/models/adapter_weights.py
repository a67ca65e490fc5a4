"""Checks of an adapter's weights: complete, finite, of the configured rank, and of the base model's shapes.

Standard library only, and numpy where weights are read: vLLM runs these checks in an environment without our packages.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from steps.runtime.json_text import parse_json

Header = dict[str, dict[str, Any]]
"""Entries of a safetensors header by tensor: dtype, shape, data_offsets."""
FLOATS = ("F64", "F32", "F16", "BF16")
EXPONENTS = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
"""Integer type and exponent bits by dtype; all of the bits are set in NaN and infinity only."""
MAX_HEADER_BYTES = 100_000_000  # of the safetensors library


def read_header(file: Path) -> Header:
    """Return the header of a safetensors file.

    Raises:
        ValueError: It is not a complete safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise ValueError(f"{file.name} is truncated")
        header = parse_json(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} has no tensors")
    header.pop("__metadata__", None)
    try:
        is_valid = all(_is_entry(entry, size - 8 - length) for entry in header.values())
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise ValueError(f"{file.name} is truncated or has an invalid header")
    return header


def read_base_header(base: Path) -> Header:
    """Return the tensors of all weight files of a base model; empty if there are none."""
    return {key: entry for file in sorted(base.glob("*.safetensors")) for key, entry in read_header(file).items()}


def find_problems(adapter: Header, base: Header, config: Mapping[str, Any], model: str) -> list[str]:
    """Return the first problem of each kind in the layers of an adapter.

    Args:
        adapter: Header of the adapter's weights.
        base: Tensors of the base model; empty if they are not known.
        config: The adapter's configuration.
        model: Name of the base model in messages.
    """
    pairs, problems = _pair_layers(adapter)
    if not problems and not pairs and not any("lora_" in key for key in adapter):
        problems = ["it has no LoRA weights"]
    problems += _rank_problems(pairs, config)[:1]
    problems += (_shape_problems(pairs, base, model) or _layer_problems(pairs, base, config, model))[:1]
    return problems


def find_non_finite(file: Path, header: Header) -> str:
    """Return the first tensor with NaN or infinity, or ""."""
    import numpy

    with file.open("rb") as stream:
        start = 8 + struct.unpack("<Q", stream.read(8))[0]
        for key, entry in header.items():
            if entry["dtype"] not in EXPONENTS:
                continue
            kind, bits = EXPONENTS[entry["dtype"]]
            begin, end = entry["data_offsets"]
            stream.seek(start + begin)
            values = numpy.frombuffer(stream.read(end - begin), kind)
            if ((values & bits) == bits).any():
                return key
    return ""


def _pair_layers(adapter: Header) -> tuple[dict[str, tuple[list[int], list[int]]], list[str]]:
    """Return the shapes of A and B by layer, and the first layer without one of them."""
    shapes: dict[str, dict[str, list[int]]] = {}
    for key, entry in adapter.items():
        if match := re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight", key):
            shapes.setdefault(match[1], {})[match[2]] = entry["shape"]
    incomplete = [layer for layer, pair in shapes.items() if set(pair) != {"A", "B"}]
    flat = [layer for layer, pair in shapes.items() if any(len(shape) != 2 for shape in pair.values())]
    pairs = {
        layer: (pair["A"], pair["B"])
        for layer, pair in shapes.items()
        if layer not in incomplete and layer not in flat  # convolutions have more dimensions
    }
    return pairs, [f"layer {layer} has only one of lora_A and lora_B" for layer in incomplete[:1]]


def _rank_problems(pairs: Mapping[str, tuple[list[int], list[int]]], config: Mapping[str, Any]) -> list[str]:
    ranks = {config.get("r"), *(config.get("rank_pattern") or {}).values()}
    problems = []
    for layer, (a, b) in pairs.items():
        if a[0] != b[1]:
            problems.append(f"layer {layer} has rank {a[0]} in lora_A and {b[1]} in lora_B")
        elif None not in ranks and a[0] not in ranks:
            allowed = ", ".join(str(rank) for rank in sorted(ranks))
            problems.append(f"layer {layer} has rank {a[0]}, but adapter_config.json has {allowed}")
    return problems


def _shape_problems(pairs: Mapping[str, tuple[list[int], list[int]]], base: Header, model: str) -> list[str]:
    """Return the layers whose LoRA matrices do not match the base's shape; unknown layers are skipped."""
    problems = []
    for layer, (a, b) in pairs.items():
        weight = base.get(f"{layer}.weight")
        if weight is None or weight["dtype"] not in FLOATS:
            continue  # quantized weights are packed: their shape is not the layer's
        shape = [b[0], a[1]]
        if sorted(shape) != sorted(weight["shape"]):  # transformers' Conv1D stores the transpose
            problems.append(f"layer {layer} has shape {shape}, but {weight['shape']} in {model}: another base model")
    return problems


def _layer_problems(
    pairs: Mapping[str, tuple[list[int], list[int]]], base: Header, config: Mapping[str, Any], model: str
) -> list[str]:
    """Return layers that only one of the adapter and the base has.

    Checkpoints can name their layers differently from the loaded model, so the check needs a layer in common, and
    expects a layer of the base only if the adapter has the same one at another depth.
    """
    layers = {re.sub(r"\.q?weight$", "", key) for key in base if re.search(r"\.q?weight$", key)}
    if not layers & set(pairs):
        return []
    kinds = _kinds(layers)
    if unknown := sorted(layer for layer in pairs if layer not in layers and _kind(layer) in kinds):
        return [f"layer {unknown[0]} does not exist in {model}: another base model"]
    if config.get("layers_to_transform") is not None or config.get("exclude_modules"):
        return []
    tuned = _kinds(pairs)
    missing = sorted(layer for layer in layers - set(pairs) if _kind(layer) in tuned)
    return [f"layer {layer} has no weights: the file is incomplete" for layer in missing]


def _kinds(layers: Iterable[str]) -> set[str]:
    return {_kind(layer) for layer in layers}


def _kind(layer: str) -> str:
    """Return the name of a layer without its depth."""
    return re.sub(r"\.\d+(?=\.|$)", ".N", layer)


def _is_entry(entry: Any, data_bytes: int) -> bool:
    """Return True for a tensor with a shape, and offsets within the data."""
    begin, end = entry["data_offsets"]
    is_within = type(begin) is type(end) is int and 0 <= begin <= end <= data_bytes
    return is_within and isinstance(entry["dtype"], str) and _is_shape(entry["shape"])


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(size, int) and size >= 0 for size in value)
