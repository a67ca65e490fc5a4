"""The loss of a model on each of many rows, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from steps.data.chat_tokens import IGNORED, ChatTokens

TOKENS_AT_ONCE = 2048
"""Of a batch, padding counted: the logits of 2048 tokens take about a gigabyte in the largest vocabularies."""


def row_losses(model: Any, rows: Sequence[ChatTokens], tell: Callable[[int], None]) -> list[float]:
    """Summed loss of the labelled tokens of each row; ``tell`` hears how many rows each batch had."""
    import torch

    losses = [0.0] * len(rows)
    for batch in _batches(rows):
        ids, labels, mask = _padded([rows[number] for number in batch], model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        targets = labels[:, 1:]
        counted = targets != IGNORED
        # Only at the places that count, so that no second copy of all logits is made.
        loss = torch.nn.functional.cross_entropy(logits[counted].float(), targets[counted], reduction="none")
        sums = torch.zeros(len(batch), device=loss.device).index_add(0, counted.nonzero()[:, 0], loss)
        for number, value in zip(batch, sums.tolist(), strict=True):
            losses[number] = value
        tell(len(batch))
    return losses


def _batches(rows: Sequence[ChatTokens]) -> Iterator[list[int]]:
    """Numbers of rows of like length, so many that a batch is not too large."""
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number].input_ids)):
        if batch and len(rows[number].input_ids) * (len(batch) + 1) > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _padded(rows: Sequence[ChatTokens], device: Any) -> tuple[Any, Any, Any]:
    import torch

    width = max(len(row.input_ids) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)  # what stands under a mask of 0 doesn't matter
    labels = torch.full((len(rows), width), IGNORED)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        length = len(row.input_ids)
        ids[place, :length] = torch.tensor(row.input_ids)
        labels[place, :length] = torch.tensor(row.labels)
        mask[place, :length] = 1
    return ids.to(device), labels.to(device), mask.to(device)
