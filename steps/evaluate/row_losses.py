"""Per-row losses of a model, computed in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from steps.data.chat_tokens import IGNORED, ChatTokens

MAX_BATCH_TOKENS = 2048
"""Tokens of a batch, padding included: with the largest vocabularies the logits of 2048 tokens take about 1 GB."""


def row_losses(model: Any, rows: Sequence[ChatTokens], on_batch: Callable[[int], None]) -> list[float]:
    """Return the summed loss of the labelled tokens of each row.

    Args:
        model: A causal language model.
        rows: Tokens and labels; ``IGNORED`` labels do not count.
        on_batch: Called after each batch with its number of rows.
    """
    import torch

    losses = [0.0] * len(rows)
    for batch in _batches(rows):
        ids, labels, mask = _padded([rows[number] for number in batch], model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        targets = labels[:, 1:]
        labelled = targets != IGNORED
        # Only labelled positions, to avoid a second copy of all logits.
        loss = torch.nn.functional.cross_entropy(logits[labelled].float(), targets[labelled], reduction="none")
        sums = torch.zeros(len(batch), device=loss.device).index_add(0, labelled.nonzero()[:, 0], loss)
        for number, value in zip(batch, sums.tolist(), strict=True):
            losses[number] = value
        on_batch(len(batch))
    return losses


def _batches(rows: Sequence[ChatTokens]) -> Iterator[list[int]]:
    """Yield batches of row indices with similar lengths, each of at most ``MAX_BATCH_TOKENS``."""
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number].input_ids)):
        if batch and len(rows[number].input_ids) * (len(batch) + 1) > MAX_BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _padded(rows: Sequence[ChatTokens], device: Any) -> tuple[Any, Any, Any]:
    import torch

    width = max(len(row.input_ids) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)  # ids at masked positions are ignored
    labels = torch.full((len(rows), width), IGNORED)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for idx, row in enumerate(rows):
        length = len(row.input_ids)
        ids[idx, :length] = torch.tensor(row.input_ids)
        labels[idx, :length] = torch.tensor(row.labels)
        mask[idx, :length] = 1
    return ids.to(device), labels.to(device), mask.to(device)
