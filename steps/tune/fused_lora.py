"""Linear layers with a LoRA adapter as one operation, on CPUs.

PEFT computes the base layer and the adapter separately: it copies the output, scales and adds in new tensors, and
autograd adds the gradients of the input. On a CPU, these passes over memory take as long as the matrix products. Here
the products accumulate in place. The loss is the same up to rounding.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

GIB = 1024**3
MAX_KEPT_GIB = 1.0
"""Dequantized weights of smaller models are kept instead of being computed twice per step."""


def fuse(model: Any) -> tuple[int, int]:
    """Replace the forward pass of the layers of a PEFT model whose adapter is a plain product.

    Other layers (dropout, DoRA, several adapters, 8-bit weights) keep PEFT's.

    Returns:
        Number of layers, and bytes of dequantized weights that are kept during training.
    """
    import torch

    layers = [layer for layer in model.modules() if _is_plain(layer)]
    quantized = [layer.base_layer for layer in layers if _quant_state(layer.base_layer) is not None]
    size = sum(_quant_state(base).shape.numel() * (base.compute_dtype or torch.float32).itemsize for base in quantized)
    keep = size <= MAX_KEPT_GIB * GIB
    for base in quantized:
        base.support_avx512bf16_for_cpu = False  # the library would repack the weights for inference
    for layer in layers:
        layer.forward = MethodType(_make_forward(layer, keep), layer)
    return len(layers), size if keep else 0


def _is_plain(layer: Any) -> bool:
    """Return True for a linear layer with one LoRA adapter, without dropout and variants."""
    import torch
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora import LoraLayer

    if not isinstance(layer, LoraLayer) or type(layer.base_layer) not in (torch.nn.Linear, Linear4bit):
        return False
    adapters = layer.active_adapters
    return (
        len(adapters) == 1
        and adapters[0] in layer.lora_A
        and adapters[0] not in layer.lora_variant
        and isinstance(layer.lora_dropout[adapters[0]], torch.nn.Identity)
        and layer.lora_A[adapters[0]].bias is None
        and layer.lora_B[adapters[0]].bias is None
        and not getattr(layer, "fan_in_fan_out", False)
    )


def _make_forward(layer: Any, keep: bool) -> Any:
    """Return the layer's forward pass; PEFT's is used while the adapter is disabled or merged."""
    plain = layer.forward
    adapter = layer.active_adapters[0]
    base = layer.base_layer
    weight = _KeptWeight(base) if keep and _quant_state(base) is not None else _Weight(base)

    def forward(self: Any, states: Any, *args: Any, **kwargs: Any) -> Any:
        dtype = _dtype(states)
        another_dtype = getattr(base, "compute_dtype", None) not in (None, dtype)  # as the user configured
        if self.disable_adapters or self.merged or another_dtype or args or kwargs:
            return plain(states, *args, **kwargs)
        down, up = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        return _function().apply(states, dtype, weight, base.bias, down, up, self.scaling[adapter])

    return forward


def _dtype(states: Any) -> Any:
    """Return the dtype that the products are computed in."""
    import torch

    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else states.dtype


class _Weight:
    """Weights of a base layer, dequantized on each call."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def __call__(self, dtype: Any) -> Any:
        state = _quant_state(self.base)
        if state is None:
            return self.base.weight.detach().to(dtype)
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(self.base.weight, state).to(dtype)


class _KeptWeight(_Weight):
    """Weights of a base layer, dequantized once."""

    kept: Any = None

    def __call__(self, dtype: Any) -> Any:
        if self.kept is None or self.kept.dtype != dtype:
            self.kept = super().__call__(dtype)
        return self.kept


def _quant_state(base: Any) -> Any:
    return getattr(base.weight, "quant_state", None)


_cached: list[Any] = []


def _function() -> Any:
    """Return the autograd function; its class needs torch."""
    if not _cached:
        _cached.append(_define())
    return _cached[0]


def _define() -> Any:
    import torch

    class LoraLinear(torch.autograd.Function):
        """``states @ weight.T + scaling * states @ down.T @ up.T`` with a frozen weight."""

        @staticmethod
        def forward(
            ctx: Any, states: Any, dtype: Any, weight: _Weight, bias: Any, down: Any, up: Any, scaling: float
        ) -> Any:
            with torch.autocast("cpu", enabled=False):
                flat = states.reshape(-1, states.shape[-1]).to(dtype)
                low = flat @ down.to(dtype).t()
                result = torch.nn.functional.linear(flat, weight(dtype), None if bias is None else bias.to(dtype))
                result.addmm_(low, up.to(dtype).t(), alpha=scaling)
            ctx.weight, ctx.scaling, ctx.shape, ctx.dtype = weight, scaling, states.shape, states.dtype
            ctx.save_for_backward(flat, low, down, up)
            return result.view(*states.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            flat, low, down, up = ctx.saved_tensors
            dtype = flat.dtype
            gradient = gradients[0].reshape(-1, gradients[0].shape[-1]).to(dtype)
            with torch.autocast("cpu", enabled=False):
                low_gradient = (gradient @ up.to(dtype)).mul_(ctx.scaling)
                up_gradient = (gradient.t() @ low).to(up.dtype).mul_(ctx.scaling)
                down_gradient = (low_gradient.t() @ flat).to(down.dtype)
                states_gradient = None
                if ctx.needs_input_grad[0]:
                    states_gradient = gradient @ ctx.weight(dtype)
                    states_gradient.addmm_(low_gradient, down.to(dtype))
                    states_gradient = states_gradient.view(ctx.shape).to(ctx.dtype)
            return states_gradient, None, None, None, down_gradient, up_gradient, None

    return LoraLinear
