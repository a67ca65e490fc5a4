"""Attention within each of the rows that stand one after the other in one sequence, by PyTorch's own kernels.

Flash attention's library has a kernel for such sequences. Without it, transformers tells the rows apart by a mask over
all of the sequence, whose work and memory grow with the square of a whole batch. Here each row is attended to by
itself: the work of the rows, no mask, and the kernels that PyTorch has for a plain causal row.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

NAME = "sdpa_by_rows"
LAYERS = {"full_attention", "sliding_attention"}


def register_if_supported(folder: Path) -> str:
    """The name under which transformers has it, for a model that it suits; else empty.

    It suits where layers take an attention function and each looks at the tokens of its row alone. Not so where scores
    are capped or have sinks, which PyTorch's kernels don't know, nor where a state goes on from row to row (Mamba,
    linear attention).
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    if not _suits(folder):
        return ""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _mask)
    return NAME


def _suits(folder: Path) -> bool:
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
    """An attention function of transformers: heads x tokens in, tokens x heads out.

    ``cu_seq_lens_q`` says where rows begin and end, as ``trl``'s collator gives it; a row longer than the layer's
    window gets a mask of its own. Without it the batch is an ordinary one.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        if attention_mask is None:
            attention_mask = _window(query.shape[2], sliding_window, query.device)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows = []
    for begin, end in pairwise(_bounds(cu_seq_lens_q)):
        asked, found, taken = (states[:, :, begin:end] for states in (query, key, value))
        mask = _window(end - begin, sliding_window, query.device)
        rows.append(sdpa_attention_forward(module, asked, found, taken, mask, **kwargs)[0])
    return torch.cat(rows, dim=1), None


@lru_cache(maxsize=1)
def _bounds(cumulated: Any) -> list[int]:
    """Read once a step, not once a layer: on a GPU, reading waits for all that it has to do."""
    return list(cumulated.tolist())


def _mask(**named: Any) -> Any:
    """A mask for padded rows alone: not even the one by which transformers tells rows apart."""
    from transformers.masking_utils import sdpa_mask

    return None if named.get("attention_mask") is None else sdpa_mask(**named)


def _window(length: int, window: int | None, device: Any) -> Any:
    if window is None or length <= window:
        return None
    import torch

    place = torch.arange(length, device=device)
    behind = place[:, None] - place[None, :]
    return ((behind >= 0) & (behind < window))[None, None]
