"""The output layer works for the tokens that are learned, on a processor too."""

from __future__ import annotations


def skip_ignored_logits() -> None:
    """Have trl's loss leave out positions from which nothing is learned: questions, and what only fills a batch.

    trl does so where it has kernels in Triton; elsewhere it scores all, as the compilers of some accelerators want one
    shape for all batches (``add_fused_lm_head``). PyTorch on a processor does not, and this layer, as wide as the
    vocabulary, takes up to half of the time of a small model. The loss is the same.
    """
    from trl.trainer import utils

    utils._use_triton = lambda device: True  # the kernels themselves ask for it by another name
