"""Rows that count more or less than once: which are trained on, how often, and the places that their copies get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MAX_ROWS = 2**32 - 1
"""That are written: places are numbers of 32 bits."""


def weighted(
    train: np.ndarray, counts: Sequence[int], weights: Sequence[float], shuffle: bool, seed: int
) -> tuple[np.ndarray, list[int]]:
    """Row numbers to train on, some several times and some not at all, and how many there are of each file.

    A file's rows in ``train`` count ``weight`` times on the whole: each as often as the whole part of it says, and of
    the rest a share, drawn by ``seed``, once more. With ``shuffle`` the copies lie among the other rows; otherwise
    those that are seen again follow when all have been seen.

    ``counts``: rows of each file.

    Raises:
        BadInput: no row is left, or there are too many.
    """
    import numpy as np

    times = np.zeros(sum(counts), np.uint8)
    times[train] = 1
    of_files = []
    start = 0
    for number, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        part = times[start : start + count]  # a view: what is written to it is written to `times`
        rows = np.flatnonzero(part)
        start += count
        again = int(weight)
        part[rows] = again
        # Half a row counts as one, so that 0.5 of a file with one row is not nothing.
        drawn = int((weight - again) * len(rows) + 0.5)
        if drawn:
            np.random.RandomState([seed, number]).shuffle(rows)
            part[rows[:drawn]] += 1
        of_files.append(again * len(rows) + drawn)
    if not 0 < sum(of_files) <= MAX_ROWS - (len(times) - len(train)):
        what = f"with these weights there are {sum(of_files)} rows to train on"
        raise BadInput(what, "raise the weights" if not sum(of_files) else "lower the weights")
    passes, left = [], train[times[train] > 0]
    while len(left):
        passes.append(left)
        left = left[times[left] > len(passes)]
    order = np.concatenate(passes)
    if shuffle:
        np.random.RandomState(seed).shuffle(order)
    return order, of_files


class RowPlacement:
    """Where the copies of each row go: rows to train on come first, then those held out, each in the order given."""

    def __init__(self, train: np.ndarray, held_out: np.ndarray, count: int) -> None:
        """``train`` and ``held_out`` hold numbers of ``count`` rows, of some several times and of some not at all."""
        import numpy as np

        order = np.concatenate([train, held_out])
        times = np.bincount(order, minlength=count)
        self.starts: np.ndarray | None = None
        self.taken = 0
        if (times == 1).all():
            self.places = np.empty(count, np.uint32)
            self.places[order] = np.arange(count, dtype=np.uint32)
        else:
            # The places of row n are those from starts[n] on.
            self.places = np.argsort(order, kind="stable").astype(np.uint32)
            self.starts = np.concatenate([[0], np.cumsum(times)])

    def of(self, rows: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """The next rows with their places, once for each copy, so that no more is in memory at once than was given."""
        import numpy as np
        import pyarrow as pa

        first, self.taken = self.taken, self.taken + len(rows)
        if self.starts is None:
            yield rows, self.places[first : self.taken]
            return
        starts = self.starts[first : self.taken + 1]
        times = np.diff(starts)
        for copy in range(times.max(initial=0)):
            chosen = np.flatnonzero(times > copy)
            part = rows if len(chosen) == len(rows) else rows.take(pa.array(chosen))
            yield part, self.places[starts[chosen] + copy]
