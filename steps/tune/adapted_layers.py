"""Layers of a model that get an adapter: those of its language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steps.runtime.errors import BadInput

ALL_LINEAR = "all-linear"


def select(model: Any, lora: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys of ``peft.LoraConfig`` with the target modules as names, and without the model's other parts.

    Raises:
        BadInput: No linear layer matches a name.
    """
    targets = _target_modules(model, lora["target_modules"])
    selected = {**lora, "target_modules": targets}
    excluded = lora.get("exclude_modules") or []
    if isinstance(targets, list) and isinstance(excluded, list) and (others := _outside_text(model, targets)):
        selected["exclude_modules"] = [*excluded, *others]
    return selected


def _target_modules(model: Any, targets: Sequence[str] | str) -> list[str] | str:
    """Return the target modules as names that PEFT and vLLM match with the ends of the layers' full names.

    Raises:
        BadInput: No linear layer matches a name.
    """
    import torch

    head = model.get_output_embeddings()
    # Quantized layers are subclasses of torch's.
    modules = list(_text_modules(model))
    linear = [name for name, layer in modules if isinstance(layer, torch.nn.Linear) and layer is not head]
    names = sorted({name.rpartition(".")[2] for name in linear})
    if targets == ALL_LINEAR:
        return names
    if isinstance(targets, str):
        return targets  # a regular expression, which PEFT checks
    if unknown := [name for name in targets if not any(f".{layer}".endswith(f".{name}") for layer in linear)]:
        raise BadInput(
            f"target_modules: the model has no linear layer {', '.join(unknown)}",
            f"use {ALL_LINEAR}, or some of {', '.join(names)}",
        )
    return list(targets)


def _text_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and module of the language model: all modules, unless the model also has images or sound."""
    prefix = _text_prefix(model)
    return ((name, module) for name, module in model.named_modules() if f"{name}.".startswith(prefix))


def _text_prefix(model: Any) -> str:
    """Return the beginning of the names in the language model; empty if the model is nothing else."""
    decoder = model.get_decoder() if hasattr(model.config, "vision_config") else None
    return next((f"{name}." for name, module in model.named_modules() if module is decoder and name), "")


def _outside_text(model: Any, targets: Sequence[str]) -> list[str]:
    """Return modules with the names of targets that are not in the language model.

    vLLM serves no adapters of image and sound towers.
    """
    prefix = _text_prefix(model)
    others = [name for name, _ in model.named_modules() if not f"{name}.".startswith(prefix)]
    return [name for name in others if any(f".{name}".endswith(f".{target}") for target in targets)]
