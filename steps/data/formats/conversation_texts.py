"""Columns of conversations that files contain in another form: as JSON text, or as lists of maps."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING

from steps.data.formats.file_errors import FileErrors
from steps.data.formats.row_types import RowTypes
from steps.data.formats.value_types import TypeConflict

if TYPE_CHECKING:
    import pyarrow as pa

FIX = "write the messages as JSON text, with json.dumps (to_csv of pandas writes Python's notation)"


class ConversationTexts:
    """Conversion of such columns to lists of objects; types are common to all batches of a file."""

    def __init__(self, used: Collection[str], conversations: Collection[str], errors: FileErrors) -> None:
        """``conversations`` are the columns that can only be lists; other columns of ``used`` can be texts."""
        self._used, self._conversations, self._errors = frozenset(used), frozenset(conversations), errors
        self._types: dict[str, RowTypes | None] = {}
        """Types of each column that is converted; None for the others, once they have values."""
        self._num_rows = 0

    def expand(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch of canonical types with the converted columns.

        Raises:
            TooManyErrors: too many values are invalid.
        """
        import pyarrow as pa

        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name not in self._types and column.null_count < len(column):
                self._types[name] = RowTypes({name}) if self._is_convertible(name, column) else None
            types = self._types.get(name)
            columns.append(self._convert(name, column, types) if types else column)
        self._num_rows += len(batch)
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

    def _is_convertible(self, name: str, column: pa.Array) -> bool:
        return (name in self._used and has_map(column.type)) or (name in self._conversations and has_json(column))

    def _convert(self, name: str, column: pa.Array, types: RowTypes) -> pa.Array:
        rows = []
        for number, value in enumerate(column.to_pylist(maps_as_pydicts="strict")):
            try:
                row = {name: json.loads(value) if isinstance(value, str) else value}
                types.add(row)
                json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError, TypeConflict) as error:
                reason = str(error) if isinstance(error, TypeConflict) else "not valid JSON"
                self._errors.add(None, f"`{name}`: {reason}", FIX, row=self._num_rows + number)
                row = {name: None}
            rows.append(row)
        if name not in types.types:
            types.add({name: None})
        return types.to_batch(rows).column(name)


def has_json(column: pa.Array) -> bool:
    """Return True if the first text of a column is a JSON list."""
    import pyarrow as pa

    if not pa.types.is_string(column.type) or column.null_count == len(column):
        return False
    return bool(column.drop_null()[0].as_py().lstrip().startswith("["))


def has_map(kind: pa.DataType) -> bool:
    """Return True if values of a type contain maps."""
    import pyarrow as pa

    return pa.types.is_map(kind) or any(has_map(kind.field(idx).type) for idx in range(kind.num_fields))
