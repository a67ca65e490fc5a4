"""Rows as tokens on disk: made once, found again by a later start, and read from there without being in memory.

A cache is of one file of rows, one tokenizer with its chat template, and the settings that decide about tokens. It
takes the place of one of other rows or settings in the same folder.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from steps.data.chat_tokens import ChatTokens, Learned, Prepared, prepare
from steps.data.dataset import Rows
from steps.runtime import files

TOKENS, NUMBERS, FACTS = "tokens.arrow", "numbers.bin", "facts.json"
ROWS_AT_ONCE = 1000
FORM = 1
"""Counts up when the same rows become other tokens than before, or are kept otherwise."""


def prepare_cached(
    tokenizer: Any,
    rows: Rows,
    folder: Path,
    max_length: int,
    *,
    learned: Learned = "assistant",
    keep: str = "keep_start",
) -> Prepared:
    """What ``chat_tokens.prepare`` gives, kept in ``folder``.

    Raises:
        BadInput: as ``chat_tokens.prepare``.
    """
    key = _key(tokenizer, rows, max_length, learned, keep)
    if not _is_of(folder, key):
        with files.replacing_folder(folder) as beside:
            with files.replacing(beside / TOKENS) as sink, _writing(sink) as write:
                made = prepare(tokenizer, rows, max_length, learned=learned, keep=keep, into=write)
            with files.replacing(beside / NUMBERS) as sink:
                sink.write(made.numbers.tobytes())
            files.write_json(beside / FACTS, {"key": key, "cut": made.cut, "longest": made.longest})
    facts = json.loads((folder / FACTS).read_text())
    numbers = array("I", (folder / NUMBERS).read_bytes())
    return Prepared(TokenRows(folder / TOKENS), numbers, facts["cut"], facts["longest"])


class TokenRows(Sequence[ChatTokens]):
    """Rows of a cache, mapped into memory: pages are read when they are asked for, and may be dropped at any time."""

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
            return [self[place] for place in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return ChatTokens(*(self._table[name][number % len(self)].as_py() for name in ("input_ids", "labels")))

    def __iter__(self) -> Iterator[ChatTokens]:
        for batch in self._table.to_batches():
            yield from map(ChatTokens, batch["input_ids"].to_pylist(), batch["labels"].to_pylist())

    def dataset(self) -> Any:
        """The same rows as a ``datasets.Dataset``, mapped too."""
        from datasets import Dataset

        return Dataset.from_file(str(self.file))


def _key(tokenizer: Any, rows: Rows, max_length: int, learned: Learned, keep: str) -> str:
    own = getattr(tokenizer, "backend_tokenizer", None)
    parts = [
        files.sha256_text(own.to_str()) if own else type(tokenizer).__name__,
        tokenizer.chat_template,
        tokenizer.eos_token_id,
        rows.digest,
    ]
    return files.sha256_text(json.dumps([FORM, *parts, max_length, learned, keep]))


def _is_of(folder: Path, key: str) -> bool:
    """Whether a whole cache of this key is there."""
    try:
        kept = json.loads((folder / FACTS).read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(kept == key) and (folder / TOKENS).is_file() and (folder / NUMBERS).is_file()


@contextmanager
def _writing(sink: Any) -> Iterator[Callable[[ChatTokens], None]]:
    """Give a function that writes rows to an Arrow stream, some at once."""
    import pyarrow as pa

    tokens = pa.list_(pa.int32())
    schema = pa.schema([("input_ids", tokens), ("labels", tokens)])
    waiting: list[ChatTokens] = []

    def flush() -> None:
        columns = [[row.input_ids for row in waiting], [row.labels for row in waiting]]
        writer.write_batch(pa.RecordBatch.from_arrays([pa.array(column, tokens) for column in columns], schema=schema))
        waiting.clear()

    def write(row: ChatTokens) -> None:
        waiting.append(row)
        if len(waiting) == ROWS_AT_ONCE:
            flush()

    with pa.ipc.new_stream(sink, schema) as writer:
        yield write
        if waiting:
            flush()
