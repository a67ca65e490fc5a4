"""Near-duplicate rows, and held-out rows that are nearly training rows, by MinHash.

A row is the set of its 8-grams of bytes, lower-cased and with single spaces. The smallest hashes of 64 bins estimate
the Jaccard similarity of two rows (one permutation hashing: Li, Owen and Zhang 2012; empty bins: Shrivastava and Li
2014). Rows that agree in all 4 hashes of one of 16 bands are compared (locality-sensitive hashing; Leskovec, Rajaraman
and Ullman, Mining of Massive Datasets, chapter 3), so that the time is linear in the rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

GRAM, BINS, BANDS = 8, 64, 16
_EMPTY = 2**64 - 1
SIMILAR = 0.95
"""Estimated Jaccard similarity from which rows are near-duplicates."""
MAX_ROWS = 20_000
"""Rows compared of each file: the first ones, which are a sample if the rows were shuffled."""
MAX_TEXT = 20_000
"""Characters compared of a row."""


@dataclass(frozen=True)
class NearDuplicates:
    """Near-duplicates among the compared rows; equal rows are not counted."""

    rows: int
    """Compared training rows."""
    eval_rows: int
    """Compared held-out rows."""
    duplicates: int
    """Training rows that are nearly an earlier one."""
    leaked: int
    """Held-out rows that are nearly a training row."""

    def warnings(self, rows: int, eval_rows: int) -> list[str]:
        """Return what harms the training or the evaluation; the files have ``rows`` and ``eval_rows``."""
        parts = [(rows, "training"), (eval_rows, "held-out")]
        sampled = [f"the first {MAX_ROWS} of {count} {kind} rows" for count, kind in parts if count > MAX_ROWS]
        scope = f" (compared: {' and '.join(sampled)})" if sampled else ""
        messages = []
        if self.duplicates:
            messages.append(f"{self.duplicates} rows are nearly equal to another row{scope}")
        if self.leaked:
            messages.append(f"{self.leaked} held-out rows are nearly training rows: the evaluation is biased{scope}")
        return messages


def count_near_duplicates(train: Path, held_out: Path) -> NearDuplicates:
    """Compare the first rows of the two files of the download step; ``held_out`` can be absent."""
    texts = list(dict.fromkeys(_read_texts(train)))
    known = set(texts)
    checked = [text for text in _read_texts(held_out) if text not in known] if held_out.is_file() else []
    pairs = similar_pairs([*texts, *checked])
    duplicates = {second for _, second in pairs if second < len(texts)}
    leaked = {second for first, second in pairs if second >= len(texts) > first}
    return NearDuplicates(len(texts), len(checked), len(duplicates), len(leaked))


def from_manifest(manifest: Mapping[str, Any]) -> NearDuplicates:
    """Return the counts recorded by the download step."""
    return NearDuplicates(**manifest["near_duplicates"])


def similar_pairs(texts: Sequence[str]) -> set[tuple[int, int]]:
    """Return pairs of indices of similar texts: the first text of those that agree in a band, with each other one."""
    import numpy as np

    signatures = np.array([signature(text) for text in texts], np.uint64).reshape(len(texts), BINS)
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band::BANDS])
        keys = part.view(f"V{part.shape[1] * 8}").ravel()
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for index, key in enumerate(keys.tolist()):
            buckets[bytes(key)].append(index)
        for members in buckets.values():
            pairs |= {(members[0], other) for other in members[1:]}
    return {pair for pair in pairs if np.mean(signatures[pair[0]] == signatures[pair[1]]) >= SIMILAR}


def signature(text: str) -> np.ndarray:
    """Return the smallest hash of the text's n-grams in each of 64 bins."""
    import numpy as np

    content = " ".join(text.lower().split())[:MAX_TEXT].encode().ljust(GRAM, b" ")
    # Each n-gram is read as one little-endian integer; their memory overlaps.
    hashed = _mix(np.ndarray(len(content) - GRAM + 1, "<u8", content, strides=(1,)))
    smallest = np.full(BINS, _EMPTY, np.uint64)
    np.minimum.at(smallest, (hashed >> np.uint64(64 - BINS.bit_length() + 1)).astype(np.intp), hashed)
    return _fill(smallest)


def _mix(values: np.ndarray) -> np.ndarray:
    """Return the values with all bits depending on each other (the finalizer of SplitMix64)."""
    import numpy as np

    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _fill(smallest: np.ndarray) -> np.ndarray:
    """Fill the empty bins of a short text from the next bin with a hash, so that equal texts stay equal."""
    import numpy as np

    filled = np.flatnonzero(smallest != _EMPTY)
    following = filled[np.searchsorted(filled, np.arange(BINS)) % len(filled)]
    return np.asarray(smallest[following])


def _read_texts(file: Path) -> Iterable[str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        columns = [name for name in ("messages", "text") if name in parquet.schema_arrow.names]
        rows = (row for batch in parquet.iter_batches(512, columns=columns) for row in batch.column(0).to_pylist())
        yield from (_as_text(row) for row in islice(rows, MAX_ROWS))


def _as_text(row: Any) -> str:
    return row if isinstance(row, str) else "\n".join(str(message.get("content") or "") for message in row)
