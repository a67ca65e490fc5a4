"""Liger's kernels for norms, rotary positions and gated layers (github.com/linkedin/Liger-Kernel), on a GPU.

They compute the same and hold less for the backward pass. trl leaves Liger's loss out, for it has one of its own that
never holds all logits; adapters and quantized layers are called as before.
"""

from __future__ import annotations

import json
from pathlib import Path

from steps.runtime.errors import BadInput


def is_enabled(wanted: bool | None, device: str, model: Path) -> bool:
    """Whether to train the model in the folder ``model`` with them; ``wanted`` is what the user says of it.

    Raises:
        BadInput: they are wanted and not installed, or don't know the model's architecture.
    """
    if not wanted:
        return False
    if device != "cuda":
        print("use_liger_kernel: without effect, its kernels are for GPUs", flush=True)
        return False
    from transformers.utils import is_liger_kernel_available

    if not is_liger_kernel_available():
        raise BadInput("use_liger_kernel: liger-kernel is not installed", "pip install 'argotune[liger]'")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    architecture = str(json.loads((model / "config.json").read_text()).get("model_type"))
    if architecture not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise BadInput(f"use_liger_kernel: Liger has no kernels for {architecture}", "leave it out")
    return True
