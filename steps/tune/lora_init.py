"""Initialization of the adapter (``init_lora_weights`` of ``peft.LoraConfig``), always as plain LoRA.

PiSSA (arXiv 2404.02948) and OLoRA (arXiv 2406.01775) start from the principal directions of a layer's weight W: they
subtract them from the base, W - s B0 A0, and train the adapter s B A. PEFT changes the base for that, with rounding
errors in 16 or 4 bits, and a server would have to repeat the change. Here the base is unchanged: the adapter has twice
the rank, and its second half, -B0 and A0, is frozen. W + s (B A - B0 A0) is the same function with the same gradients,
exact for quantized weights too, and a checkpoint contains the adapter that is served.

The orthogonal initialization is implemented here too, since PEFT's does not support quantized weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from steps.runtime.errors import BadInput

_DATA = "it needs a pass over the data before training; use pissa"
UNSUPPORTED_INITS: Mapping[str, str] = {
    "loftq": "it compensates quantization, but adapters are served on unquantized weights; use pissa, or method: lora",
    "eva": _DATA,
    "corda": _DATA,
    "lora_ga": _DATA,
    "mica": "PEFT supports it for unquantized weights only; use orthogonal",
}
"""Initializations of PEFT that are not supported, and why."""
INITS = ("gaussian", "orthogonal", "olora", "pissa", "pissa_niter_16")
_KNOWN = re.compile(r"gaussian|orthogonal|olora|pissa(_niter_[1-9][0-9]?)?")
_FROM_WEIGHTS = ("pissa", "olora")
_IMPLEMENTED_HERE = (*_FROM_WEIGHTS, "orthogonal")
NAME = "default"
"""PEFT's name of the adapter."""


def unsupported_keys(lora: Mapping[str, Any]) -> dict[str, str]:
    """Return each key of ``lora_config`` whose value is not supported, and why."""
    init = lora.get("init_lora_weights")
    if not isinstance(init, str):
        return {}
    if reason := UNSUPPORTED_INITS.get(init.partition("_niter")[0].lower()):
        return {"init_lora_weights": f"{init} is not supported: {reason}"}
    if not _KNOWN.fullmatch(init):
        return {"init_lora_weights": f"must be true, false, {', '.join(INITS[:-1])} or {INITS[-1]}, not {init}"}
    if doubles_rank(lora) and lora.get("use_dora"):
        return {"use_dora": f"cannot be combined with init_lora_weights {init}, since DoRA scales the base too"}
    return {}


def doubles_rank(lora: Mapping[str, Any]) -> bool:
    """Return True if the written adapter has twice the configured rank."""
    return str(lora.get("init_lora_weights", "")).startswith(_FROM_WEIGHTS)


def written_rank(rank: int, lora: Mapping[str, Any]) -> int:
    """Return the rank of the written adapter, which servers and memory must allow for."""
    return 2 * rank if doubles_rank(lora) else rank


def as_trained(lora: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``peft.LoraConfig`` for the written adapter, which ``init_adapter`` initializes.

    If the rank is doubled, alpha grows so that the scale is unchanged: alpha / r, or alpha / sqrt(r) for rsLoRA.
    """
    trained = dict(lora)
    if str(lora.get("init_lora_weights", "")).startswith(_IMPLEMENTED_HERE):
        trained["init_lora_weights"] = True
    if doubles_rank(lora):
        growth = math.sqrt(2) if lora.get("use_rslora") else 2
        trained |= {"r": 2 * lora["r"], "lora_alpha": lora["lora_alpha"] * growth}
        trained["rank_pattern"] = {name: 2 * rank for name, rank in lora.get("rank_pattern", {}).items()}
        trained["alpha_pattern"] = {name: alpha * growth for name, alpha in lora.get("alpha_pattern", {}).items()}
    return trained


def init_adapter(model: Any, lora: Mapping[str, Any]) -> None:
    """Initialize the new adapter of ``model`` as set in ``lora``, with PEFT's initialization on a copy of each weight.

    Raises:
        BadInput: PEFT cannot initialize a layer.
    """
    init = str(lora.get("init_lora_weights", ""))
    if not init.startswith(_IMPLEMENTED_HERE):
        return
    import torch

    with torch.no_grad():
        for name, layer in _layers(model):
            first, second = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            rank = len(first) // 2 if doubles_rank(lora) else len(first)
            try:
                a, b = _init_matrices(layer, init, rank)
            except (TypeError, ValueError, RuntimeError) as error:
                message = f"init_lora_weights {init}: layer {name}: {error}"
                raise BadInput(message, "use another initialization, or true") from None
            # A layer can have fewer directions than the rank; the rest keeps the plain LoRA initialization.
            count = len(a)
            first[:count], second[:, :count] = a, b
            if doubles_rank(lora):
                second[:, rank:] = 0
                first[rank : rank + count], second[:, rank : rank + count] = a, -b


def freeze_second_half(model: Any, lora: Mapping[str, Any]) -> FrozenHalf | None:
    """Freeze the second half of a doubled adapter; None if the rank is not doubled.

    Zero gradients freeze it for every optimizer, but weight decay would still change it: attach the returned callback.
    """
    if not doubles_rank(lora):
        return None
    for _, layer in _layers(model):
        rank = layer.r[NAME] // 2
        layer.lora_A[NAME].weight.register_hook(lambda gradient, rank=rank: _zero_from(gradient, rank, 0))
        layer.lora_B[NAME].weight.register_hook(lambda gradient, rank=rank: _zero_from(gradient, rank, 1))
    return FrozenHalf(model)


class FrozenHalf:
    """Callback that undoes weight decay of the frozen half after each step."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy the half, after the checkpoint is loaded."""
        self.copies = [(half, half.clone()) for half in self._halves()] if args.weight_decay else []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restore the half."""
        for half, copy in self.copies:
            half.copy_(copy)

    def _halves(self) -> Iterator[Any]:
        for _, layer in _layers(self.model):
            rank = layer.r[NAME] // 2
            yield layer.lora_A[NAME].weight.detach()[rank:]
            yield layer.lora_B[NAME].weight.detach()[:, rank:]


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and module of each layer with an adapter."""
    from peft.tuners.lora import LoraLayer

    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and NAME in layer.lora_A:
            yield name, layer


def _init_matrices(layer: Any, init: str, rank: int) -> tuple[Any, Any]:
    """Return PEFT's initial A and B for the layer, computed on a copy, since PEFT subtracts them from the weight."""
    import torch
    from peft import LoraConfig
    from peft.tuners.lora import Linear
    from peft.utils.integrations import dequantize_module_weight

    from steps.models.model import choose_device

    # A model that will be sharded is in main memory, where this takes far longer.
    weight = dequantize_module_weight(layer.get_base_layer()).detach().to(choose_device(), torch.float32, copy=True)
    plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = torch.nn.Parameter(weight, requires_grad=False)
    # This alpha gives the layer's scale.
    alpha: Any = layer.scaling[NAME] * rank
    config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights=init)  # type: ignore[arg-type]
    initialized = Linear(plain, NAME, config, r=rank, lora_alpha=alpha)
    return initialized.lora_A[NAME].weight, initialized.lora_B[NAME].weight


def _zero_from(gradient: Any, rank: int, dim: int) -> Any:
    """Return the gradient with zeros from index ``rank`` of dimension ``dim``."""
    import torch

    first = gradient.narrow(dim, 0, rank)
    return torch.cat([first, torch.zeros_like(gradient.narrow(dim, rank, gradient.shape[dim] - rank))], dim)
