"""Liger kernels for norms, rotary embeddings and gated layers (github.com/linkedin/Liger-Kernel), on GPUs.

They compute the same with less memory for the backward pass. trl does not use Liger's loss, since trl's loss never
holds all logits; adapters and quantized layers are unaffected.
"""

from __future__ import annotations

from pathlib import Path

from steps.runtime.errors import BadInput
from steps.runtime.json_text import parse_json


def is_enabled(use_liger_kernel: bool | None, device: str, model: Path) -> bool:
    """Return True if the model in the directory ``model`` is to be trained with Liger kernels.

    Raises:
        BadInput: Liger is requested, but not installed, or does not support the architecture.
    """
    if not use_liger_kernel:
        return False
    if device != "cuda":
        print("ignoring use_liger_kernel: Liger kernels need a GPU", flush=True)
        return False
    from transformers.utils import is_liger_kernel_available

    if not is_liger_kernel_available():
        raise BadInput("use_liger_kernel: the package liger-kernel is not installed", "pip install 'argotune[liger]'")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    architecture = str(parse_json((model / "config.json").read_text()).get("model_type"))
    if architecture not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise BadInput(f"use_liger_kernel: Liger does not support {architecture}", "remove use_liger_kernel")
    return True
