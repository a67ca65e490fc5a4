"""Resampling of rows by file weights, and the positions of the copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MAX_ROWS = 2**32 - 1
"""Maximum number of written rows, as positions have 32 bits."""


def resample(
    train: np.ndarray, counts: Sequence[int], weights: Sequence[float], shuffle: bool, seed: int
) -> tuple[np.ndarray, list[int]]:
    """Return the row numbers to train on, repeated or omitted by weight, and the number of rows of each file.

    A file's rows in ``train`` are repeated ``weight`` times: each as often as the integer part, and a sample of the
    rows, drawn by ``seed``, once more for the fraction. With ``shuffle`` copies are mixed with the other rows;
    otherwise each repetition follows the previous pass. ``counts`` has the rows of each file.

    Raises:
        BadInput: there are no rows, or too many.
    """
    import numpy as np

    times = np.zeros(sum(counts), np.uint8)
    times[train] = 1
    rows_per_file = []
    start = 0
    for number, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        part = times[start : start + count]  # a view into `times`
        rows = np.flatnonzero(part)
        start += count
        repeats = int(weight)
        part[rows] = repeats
        # Round half up, so that 0.5 of a file with one row is one row.
        drawn = int((weight - repeats) * len(rows) + 0.5)
        if drawn:
            np.random.RandomState([seed, number]).shuffle(rows)
            part[rows[:drawn]] += 1
        rows_per_file.append(repeats * len(rows) + drawn)
    if not 0 < sum(rows_per_file) <= MAX_ROWS - (len(times) - len(train)):
        message = f"these weights result in {sum(rows_per_file)} training rows"
        raise BadInput(message, "increase the weights" if not sum(rows_per_file) else "reduce the weights")
    passes, remaining = [], train[times[train] > 0]
    while len(remaining):
        passes.append(remaining)
        remaining = remaining[times[remaining] > len(passes)]
    order = np.concatenate(passes)
    if shuffle:
        np.random.RandomState(seed).shuffle(order)
    return order, rows_per_file


def count_per_file(counts: Sequence[int], selected: np.ndarray) -> list[int]:
    """Return how many of the ``selected`` row numbers (with repetitions) are of each file."""
    import numpy as np

    numbers = np.searchsorted(np.cumsum(counts), selected, side="right")
    return [int(count) for count in np.bincount(numbers, minlength=len(counts))]


class RowPlacement:
    """Positions of the copies of each row: training rows first, then held-out rows, each in their order."""

    def __init__(self, train: np.ndarray, held_out: np.ndarray, count: int) -> None:
        """``train`` and ``held_out`` contain row numbers below ``count``, some repeated and some omitted."""
        import numpy as np

        order = np.concatenate([train, held_out])
        times = np.bincount(order, minlength=count)
        self.starts: np.ndarray | None = None
        self.num_placed = 0
        if (times == 1).all():
            self.places = np.empty(count, np.uint32)
            self.places[order] = np.arange(count, dtype=np.uint32)
        else:
            # The positions of row n begin at starts[n].
            self.places = np.argsort(order, kind="stable").astype(np.uint32)
            self.starts = np.concatenate([[0], np.cumsum(times)])

    def place(self, rows: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield the next rows with their positions, once per copy, so that memory stays bounded by the input."""
        import numpy as np
        import pyarrow as pa

        first, self.num_placed = self.num_placed, self.num_placed + len(rows)
        if self.starts is None:
            yield rows, self.places[first : self.num_placed]
            return
        starts = self.starts[first : self.num_placed + 1]
        times = np.diff(starts)
        for copy in range(times.max(initial=0)):
            selected = np.flatnonzero(times > copy)
            part = rows if len(selected) == len(rows) else rows.take(pa.array(selected))
            yield part, self.places[starts[selected] + copy]
