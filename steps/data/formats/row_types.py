"""Types of the columns of a file that is being converted, and its rows as Arrow batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steps.data.formats import value_types
from steps.data.formats.object_parser import parse_objects
from steps.data.formats.value_types import JSON, Type, TypeConflict

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]
MAX_COLUMNS = 10_000


class RowTypes:
    """Common types of the columns of all rows so far.

    The values of columns that are not in ``used`` are not kept, only their names, as these values would have to agree
    in types for no purpose.
    """

    def __init__(self, used: Collection[str]) -> None:
        self.used = frozenset(used)
        self.types: dict[str, Type] = {}
        self._schemas: dict[bool, pa.Schema] = {}
        self._matchers: dict[str, Callable[[Any], bool]] = {}

    def add(self, row: Row) -> None:
        """Add the types of a row.

        Raises:
            TypeConflict: a value has no common type with those of other rows; the row is not added.
        """
        merged: dict[str, Type] = {}
        for name, value in row.items():
            matches = self._matchers.get(name)
            if (matches is None or not matches(value)) and (kind := self._merge(name, value)) is not None:
                merged[name] = kind
        if merged:
            if len(self.types) + len(merged) > MAX_COLUMNS:
                raise TypeConflict(f"the rows have more than {MAX_COLUMNS} columns")
            self.types |= merged
            self._matchers |= {name: value_types.matcher(kind, name) for name, kind in merged.items()}
            self._schemas.clear()

    def schema(self, *, parsed: bool = False) -> pa.Schema:
        """Return the Arrow schema of the batches; with ``parsed`` that of the values in the file."""
        import pyarrow as pa

        if parsed not in self._schemas:
            self._schemas[parsed] = pa.schema(
                [
                    (name, value_types.to_arrow(kind) if parsed or name in self.used else pa.null())
                    for name, kind in self.types.items()
                ]
            )
        return self._schemas[parsed]

    def to_batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        """Return rows, whose types are added, as a batch of ``schema()``."""
        import pyarrow as pa

        schema = self.schema()
        kept = pa.schema([field for field in schema if not pa.types.is_null(field.type)])
        converters = {name: value_types.fitter(self.types[name], name) for name in kept.names}
        values = [
            {name: convert(row[name]) if convert else row[name] for name, convert in converters.items() if name in row}
            for row in rows
        ]
        # Several times faster than pyarrow's conversion of Python objects.
        text = "\n".join(json.dumps(value, ensure_ascii=False) for value in values).encode()
        parsed = parse_objects(text, kept) if values and len(kept) else None
        parsed = parsed if parsed is not None and len(parsed) == len(rows) else None
        columns = {
            field.name: parsed.column(field.name)
            if parsed
            else pa.array([value.get(field.name) for value in values], field.type)
            for field in kept
        }
        return pa.RecordBatch.from_arrays(
            [columns[name] if name in columns else pa.nulls(len(rows)) for name in schema.names], schema=schema
        )

    def without_unused(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch of the types in the file as one of ``schema()``."""
        import pyarrow as pa

        columns = [
            batch.column(field.name) if field.name in self.used else pa.nulls(len(batch)) for field in self.schema()
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema())

    def _merge(self, name: str, value: Any) -> Type | None:
        """Return the new type of a column; None if it has not changed."""
        known, is_used = self.types.get(name), name in self.used
        try:
            kind = value_types.type_of(value, name)
            if kind == known:
                return None
            if kind == JSON and is_used and name not in value_types.OPEN_KEYS:
                raise TypeConflict(f"`{name}` is an object with more than {value_types.MAX_KEYS} keys")
            kind = kind if known is None else value_types.merge(known, kind, name, strict=is_used)
        except TypeConflict:
            if is_used:
                raise
            kind = JSON
        return kind if kind != known else None
