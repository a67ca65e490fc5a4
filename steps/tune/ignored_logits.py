"""Skipping of logits at ignored positions on CPUs."""

from __future__ import annotations


def skip_ignored_logits() -> None:
    """Make trl's loss skip positions with ignored labels: prompts and padding.

    trl does so only with Triton kernels, because compilers of other accelerators need batches of one shape
    (``add_fused_lm_head``). PyTorch on CPUs does not, and the output layer takes up to half of a small model's time.
    The loss is the same.
    """
    from trl.trainer import utils

    utils._use_triton = lambda device: True  # the kernels use another reference to this function
