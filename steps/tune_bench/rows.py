"""Rows of a measurement: a random sample of the dataset, or generated conversations."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from steps.runtime import files
from steps.runtime.errors import BadInput

MAX_ROWS = 512
"""Rows of the sample, so that a large dataset is not tokenized for a short measurement."""
GENERATED_ROWS = 64
TEXT = "the pod of a node has no disk space left so restart it and read its log before you drain all other nodes"
WORDS = TEXT.split()


def write_rows(source: Path, target: Path, seed: int) -> int:
    """Write the rows of a measurement to ``target``; return the number of rows in ``source``, 0 if there is no file.

    Raises:
        BadInput: ``source`` has no rows.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():
        return _write_sample(source, target, seed)
    _write_generated(target, seed)
    return 0


def _write_sample(source: Path, target: Path, seed: int) -> int:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as parquet:
        total = parquet.metadata.num_rows
        if not total:
            raise BadInput("the dataset has no rows", "check the data with argotune preview")
        chosen = sorted(random.Random(seed).sample(range(total), min(MAX_ROWS, total)))
        with files.replacing(target) as sink, pq.ParquetWriter(sink, parquet.schema_arrow) as writer:
            for group, (start, end) in enumerate(_groups(parquet.metadata)):
                if indices := [number - start for number in chosen if start <= number < end]:
                    writer.write_table(parquet.read_row_group(group).take(indices))
    return int(total)


def _groups(metadata: Any) -> Iterator[tuple[int, int]]:
    """Yield the first row of each row group, and that of the next one."""
    ends = [0]
    for group in range(metadata.num_row_groups):
        ends.append(ends[-1] + metadata.row_group(group).num_rows)
    return pairwise(ends)


def _write_generated(target: Path, seed: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(seed)
    rows = [
        [
            {"role": role, "content": _text(rng, words)}
            for _ in range(rng.choice((1, 1, 2, 3)))
            for role, words in (("user", 20), ("assistant", 80))
        ]
        for _ in range(GENERATED_ROWS)
    ]
    with files.replacing(target) as sink:
        pq.write_table(pa.table({"messages": rows}), sink)


def _text(rng: random.Random, words: int) -> str:
    """Return random words, half to one and a half times as many."""
    return " ".join(rng.choices(WORDS, k=rng.randint(words // 2, words * 3 // 2))).capitalize() + "."
