"""How an adapter begins (``init_lora_weights`` of ``peft.LoraConfig``), always as a plain LoRA of the original base.

PiSSA (arXiv 2404.02948) and OLoRA (arXiv 2406.01775) begin with the main directions of a layer's weight W: they take
them out of the base, W - s B0 A0, and train what the adapter puts back, s B A. PEFT changes the base for that, in
which 16 or 4 bits lose a little, and a server would have to change it the same way. Here the base stays as it is: the
adapter has twice the rank, and its second half, -B0 and A0, is frozen. W + s (B A - B0 A0) is the same function with
the same gradients, exact beside quantized weights too, and what a checkpoint holds is the adapter that is served.

Orthogonal matrices are made here too, for PEFT makes none beside quantized weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from steps.runtime.errors import BadInput

_DATA = "it passes over the rows before training begins; write pissa"
UNSUPPORTED_INITS: Mapping[str, str] = {
    "loftq": "it makes up for what 4 bits lose, and an adapter is served on weights that lost nothing; write pissa, "
    "or method: lora",
    "eva": _DATA,
    "corda": _DATA,
    "lora_ga": _DATA,
    "mica": "PEFT has it for weights that are not quantized only; write orthogonal",
}
"""Initialisations that PEFT has and an adapter can't begin with here."""
INITS = ("gaussian", "orthogonal", "olora", "pissa", "pissa_niter_16")
_KNOWN = re.compile(r"gaussian|orthogonal|olora|pissa(_niter_[1-9][0-9]?)?")
_OF_WEIGHTS = ("pissa", "olora")
_OURS = (*_OF_WEIGHTS, "orthogonal")
NAME = "default"
"""What PEFT calls the adapter."""


def unsupported_keys(lora: Mapping[str, Any]) -> dict[str, str]:
    """Each key of ``lora_config`` that can't be honoured as it is set, and why."""
    init = lora.get("init_lora_weights")
    if not isinstance(init, str):
        return {}
    if why := UNSUPPORTED_INITS.get(init.partition("_niter")[0].lower()):
        return {"init_lora_weights": f"{init} is not honoured: {why}"}
    if not _KNOWN.fullmatch(init):
        return {"init_lora_weights": f"must be true, false, {', '.join(INITS[:-1])} or {INITS[-1]}, not {init}"}
    if doubles_rank(lora) and lora.get("use_dora"):
        what = f"DoRA scales the base and the adapter together, and {init} takes from the base: leave one of them out"
        return {"use_dora": what}
    return {}


def doubles_rank(lora: Mapping[str, Any]) -> bool:
    """Whether the adapter that is written has twice the rank that was asked for."""
    return str(lora.get("init_lora_weights", "")).startswith(_OF_WEIGHTS)


def written_rank(rank: int, lora: Mapping[str, Any]) -> int:
    """The rank of the adapter that is written: what servers and memory must be ready for."""
    return 2 * rank if doubles_rank(lora) else rank


def as_trained(lora: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``peft.LoraConfig`` for the adapter that is trained and written, which ``init_adapter`` fills.

    Where the rank doubles, alpha grows with it, so that the scale stays: alpha / r, or alpha / sqrt(r) of rsLoRA.
    """
    trained = dict(lora)
    if str(lora.get("init_lora_weights", "")).startswith(_OURS):
        trained["init_lora_weights"] = True
    if doubles_rank(lora):
        growth = math.sqrt(2) if lora.get("use_rslora") else 2
        trained |= {"r": 2 * lora["r"], "lora_alpha": lora["lora_alpha"] * growth}
        trained["rank_pattern"] = {name: 2 * rank for name, rank in lora.get("rank_pattern", {}).items()}
        trained["alpha_pattern"] = {name: alpha * growth for name, alpha in lora.get("alpha_pattern", {}).items()}
    return trained


def init_adapter(model: Any, lora: Mapping[str, Any]) -> None:
    """Fill the fresh adapter of ``model`` with what ``lora`` asks for, which PEFT makes of a copy of each weight.

    Raises:
        BadInput: PEFT can't make them of a layer.
    """
    init = str(lora.get("init_lora_weights", ""))
    if not init.startswith(_OURS):
        return
    import torch

    with torch.no_grad():
        for name, layer in _layers(model):
            first, second = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            rank = len(first) // 2 if doubles_rank(lora) else len(first)
            try:
                a, b = _made(layer, init, rank)
            except (TypeError, ValueError, RuntimeError) as error:
                raise BadInput(f"init_lora_weights {init}: layer {name}: {error}", "write another, or true") from None
            # A layer may have fewer directions than the rank; the rest begins as a plain LoRA does.
            count = len(a)
            first[:count], second[:, :count] = a, b
            if doubles_rank(lora):
                second[:, rank:] = 0
                first[rank : rank + count], second[:, rank : rank + count] = a, -b


def freeze_second_half(model: Any, lora: Mapping[str, Any]) -> FrozenHalf | None:
    """Keep the half of the adapter that stands for what was taken out of the base as it is.

    Gradients of it are zero from now on, which leaves it alone with every optimizer. Weight decay would not: who is
    given must hear the trainer's events.
    """
    if not doubles_rank(lora):
        return None
    for _, layer in _layers(model):
        rank = layer.r[NAME] // 2
        layer.lora_A[NAME].weight.register_hook(lambda gradient, rank=rank: _without(gradient, rank, 0))
        layer.lora_B[NAME].weight.register_hook(lambda gradient, rank=rank: _without(gradient, rank, 1))
    return FrozenHalf(model)


class FrozenHalf:
    """Takes weight decay of the frozen half back after each step."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the half, of the checkpoint where there is one."""
        self.kept = [(half, half.clone()) for half in self._halves()] if args.weight_decay else []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write it again."""
        for half, kept in self.kept:
            half.copy_(kept)

    def _halves(self) -> Iterator[Any]:
        for _, layer in _layers(self.model):
            rank = layer.r[NAME] // 2
            yield layer.lora_A[NAME].weight.detach()[rank:]
            yield layer.lora_B[NAME].weight.detach()[:, rank:]


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Linear layers with an adapter, by name."""
    from peft.tuners.lora import LoraLayer

    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and NAME in layer.lora_A:
            yield name, layer


def _made(layer: Any, init: str, rank: int) -> tuple[Any, Any]:
    """The two matrices that PEFT makes of the layer's weight; of a copy, for it takes them out of the weight."""
    import torch
    from peft import LoraConfig
    from peft.tuners.lora import Linear
    from peft.utils.integrations import dequantize_module_weight

    from steps.models.model import choose_device

    # A model that is to be divided is in main memory, where this takes far longer.
    weight = dequantize_module_weight(layer.get_base_layer()).detach().to(choose_device(), torch.float32, copy=True)
    plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = torch.nn.Parameter(weight, requires_grad=False)
    # With this alpha the scale is that of the layer.
    alpha: Any = layer.scaling[NAME] * rank
    config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights=init)  # type: ignore[arg-type]
    made = Linear(plain, NAME, config, r=rank, lora_alpha=alpha)
    return made.lora_A[NAME].weight, made.lora_B[NAME].weight


def _without(gradient: Any, rank: int, along: int) -> Any:
    """A gradient that is zero from ``rank`` on."""
    import torch

    kept = gradient.narrow(along, 0, rank)
    return torch.cat([kept, torch.zeros_like(gradient.narrow(along, rank, gradient.shape[along] - rank))], along)
