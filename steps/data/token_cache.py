"""Cache of tokenized rows on disk, reused by later attempts and memory-mapped.

A cache belongs to one file of rows, one tokenizer with its chat template, and the settings of tokenization. It
replaces a cache of other rows or settings in the same directory.
"""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from steps.data.chat_tokens import ChatTokens, Prepared, prepare
from steps.data.dataset import Rows
from steps.data.tokenization import Tokenization
from steps.runtime import files

TOKENS, NUMBERS, FACTS = "tokens.arrow", "numbers.bin", "facts.json"
BATCH_ROWS = 1000
COUNTS = ("truncated", "longest", "cut_tokens", "endless")
"""Fields of ``Prepared`` in ``FACTS``."""
FORMAT_VERSION = 4
"""Increment when tokenization or the file format changes."""


def prepare_cached(tokenizer: Any, rows: Rows, folder: Path, tokenization: Tokenization) -> Prepared:
    """Return ``chat_tokens.prepare``, cached in ``folder``.

    Raises:
        BadInput: as ``chat_tokens.prepare``.
    """
    key = _compute_key(tokenizer, rows, tokenization)
    if not _is_cached(folder, key):
        with files.replacing_folder(folder) as partial:
            with files.replacing(partial / TOKENS) as sink, _open_writer(sink) as write:
                prepared = prepare(tokenizer, rows, tokenization, into=write)
            with files.replacing(partial / NUMBERS) as sink:
                sink.write(prepared.numbers.tobytes())
            facts = {name: getattr(prepared, name) for name in COUNTS}
            files.write_json(partial / FACTS, {"key": key, **facts})
    facts = json.loads((folder / FACTS).read_text())
    numbers = array("I", (folder / NUMBERS).read_bytes())
    return Prepared(TokenRows(folder / TOKENS), numbers, **{name: facts[name] for name in COUNTS})


class TokenRows(Sequence[ChatTokens]):
    """Memory-mapped rows of a cache: the kernel reads pages on access and can evict them at any time."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        self.file = file
        self._table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, number: int) -> ChatTokens: ...
    @overload
    def __getitem__(self, number: slice) -> list[ChatTokens]: ...
    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return [self[idx] for idx in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return ChatTokens(*(self._table[name][number % len(self)].as_py() for name in ("input_ids", "labels")))

    def __iter__(self) -> Iterator[ChatTokens]:
        for batch in self._table.to_batches():
            yield from map(ChatTokens, batch["input_ids"].to_pylist(), batch["labels"].to_pylist())

    def dataset(self) -> Any:
        """Return the rows as a memory-mapped ``datasets.Dataset``."""
        from datasets import Dataset

        return Dataset.from_file(str(self.file))


def _compute_key(tokenizer: Any, rows: Rows, tokenization: Tokenization) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [
        files.sha256_text(backend.to_str()) if backend else type(tokenizer).__name__,
        tokenizer.chat_template,
        tokenizer.eos_token_id,
        rows.digest,
    ]
    return files.sha256_text(json.dumps([FORMAT_VERSION, *parts, *dataclasses.astuple(tokenization)]))


def _is_cached(folder: Path, key: str) -> bool:
    """Return True if ``folder`` contains a complete cache of this key."""
    try:
        cached = json.loads((folder / FACTS).read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(cached == key) and (folder / TOKENS).is_file() and (folder / NUMBERS).is_file()


@contextmanager
def _open_writer(sink: Any) -> Iterator[Callable[[ChatTokens], None]]:
    """Yield a function that writes rows to an Arrow stream in batches."""
    import pyarrow as pa

    tokens = pa.list_(pa.int32())
    schema = pa.schema([("input_ids", tokens), ("labels", tokens)])
    pending: list[ChatTokens] = []

    def flush() -> None:
        columns = [[row.input_ids for row in pending], [row.labels for row in pending]]
        writer.write_batch(pa.RecordBatch.from_arrays([pa.array(column, tokens) for column in columns], schema=schema))
        pending.clear()

    def write(row: ChatTokens) -> None:
        pending.append(row)
        if len(pending) == BATCH_ROWS:
            flush()

    with pa.ipc.new_stream(sink, schema) as writer:
        yield write
        if pending:
            flush()
