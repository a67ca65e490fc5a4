"""Attention for several rows packed into one sequence, with PyTorch's SDPA kernels.

The flash attention library has a kernel for such sequences. Without it, transformers masks the whole sequence, with
work and memory quadratic in the packed length. This attention computes each row separately: no mask, the work of
the rows only, and PyTorch's causal kernels.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

NAME = "sdpa_by_rows"
LAYERS = {"full_attention", "sliding_attention"}
MAX_FLOAT32_TOKENS = 192
"""Rows in bfloat16 of up to this many tokens are attended in float32 on CPUs, because the backward pass of PyTorch's
bfloat16 kernel takes milliseconds for the shortest row: with 100 tokens, 4.0 instead of 1.9 ms (benchmarks/tuning)."""


def register_if_supported(folder: Path) -> str:
    """Register the attention in transformers and return its name; an empty string if the model is not supported.

    Supported are models whose layers use the attention interface. Excluded are capped scores and attention sinks,
    which SDPA lacks, and layers with a state across rows (Mamba, linear attention).
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    if not _is_supported(folder):
        return ""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _mask)
    return NAME


def _is_supported(folder: Path) -> bool:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    model: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    return (
        model is not None
        and bool(model._supports_attention_backend and model._supports_sdpa and not model._is_stateful)
        and getattr(config, "attn_logit_softcapping", None) is None
        and set(getattr(config, "layer_types", None) or ()) <= LAYERS
    )


def packed_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    cu_seq_lens_q: Any = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Compute attention as a function of transformers' attention interface.

    Args:
        module: The attention layer.
        query: States of shape (batch, heads, tokens, head size), as ``key`` and ``value``.
        key: States of the keys.
        value: States of the values.
        attention_mask: Mask of a batch that is not packed, or None.
        cu_seq_lens_q: Cumulative row lengths from trl's collator, starting with 0; None: the batch is not packed.
        sliding_window: Attention window of the layer in tokens, or None.
        kwargs: Passed to SDPA.

    Returns:
        States of shape (batch, tokens, heads, head size), and None for the attention weights.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        if attention_mask is None:
            attention_mask = _window(query.shape[2], sliding_window, query.device)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    lengths = _row_lengths(cu_seq_lens_q)
    rows = []
    # Slices would each fill a gradient of the whole batch with zeros; the gradient of split is one concatenation.
    for row_query, row_key, row_value in zip(
        *(states.split(lengths, 2) for states in (query, key, value)), strict=True
    ):
        mask = _window(row_query.shape[2], sliding_window, query.device)
        states = (row_query, row_key, row_value)
        if _is_faster_in_float32(row_query):
            with torch.autocast("cpu", enabled=False):  # it would cast them back
                states = tuple(part.float() for part in states)
                row = sdpa_attention_forward(module, *states, mask, **kwargs)[0].to(query.dtype)
        else:
            row = sdpa_attention_forward(module, *states, mask, **kwargs)[0]
        rows.append(row)
    return torch.cat(rows, dim=1), None


def _is_faster_in_float32(row: Any) -> bool:
    import torch

    return row.device.type == "cpu" and row.dtype is torch.bfloat16 and row.shape[2] <= MAX_FLOAT32_TOKENS


@lru_cache(maxsize=1)
def _row_lengths(cu_seq_lens: Any) -> list[int]:
    """Convert once per step instead of once per layer, since this synchronizes with the GPU."""
    return [end - start for start, end in pairwise(cu_seq_lens.tolist())]


def _mask(**kwargs: Any) -> Any:
    """Create a mask for padded rows only, without transformers' mask of packed rows."""
    from transformers.masking_utils import sdpa_mask

    return None if kwargs.get("attention_mask") is None else sdpa_mask(**kwargs)


def _window(length: int, window: int | None, device: Any) -> Any:
    """Return the causal mask of a sliding window; None if the row fits the window."""
    if window is None or length <= window:
        return None
    import torch

    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return ((distance >= 0) & (distance < window))[None, None]
