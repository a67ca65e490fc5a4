"""Fields of messages besides role and content: which messages are learned, and what chat templates can render.

``weight`` (OpenAI) and ``train`` become ``train``. All other fields are stored as JSON text, because their shapes
differ between rows, and are passed to the chat template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

IDENTIFIERS = ("id", "message_id", "tool_call_id", "name", "index", "timestamp", "created_at")
"""Fields that identify messages or their parts, and need not be rendered."""
CONTENT_ERROR = "argotune: error of content"
"""Field of messages whose content has parts that are not text: the reason."""
LOSS_FIELDS = ("weight", "train")
"""Fields that state whether a message is learned: 0 or false, 1 or true."""
LOSS_TEXTS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""Values as text: a column of CSV, or of JSON in which other rows have another type."""
STRUCTURED_FIELDS = ("tool_calls", "tools", "functions", "function_call")
"""Fields that can be JSON text."""


def other_fields(kind: pa.DataType, names: tuple[str, str]) -> list[str]:
    """Return the fields of a list of messages besides ``names``; empty for other types."""
    import pyarrow as pa

    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return []
    return [field.name for field in kind.value_type if field.name not in names and not pa.types.is_null(field.type)]


def read_fields(message: pa.StructArray, names: Sequence[str]) -> list[pa.Array]:
    """Return ``train`` (bool), ``fields`` (JSON text) and ``error`` (text) of each message; null where absent."""
    import pyarrow as pa

    columns = {name: message.field(message.type.get_field_index(name)) for name in names}
    columns = {name: column for name, column in columns.items() if column.null_count < len(column)}
    train: list[bool | None] = [None] * len(message)
    errors: list[str | None] = [None] * len(message)
    for name in LOSS_FIELDS:
        for index, value in enumerate(columns[name].to_pylist() if name in columns else ()):
            if value is None:
                continue
            value = LOSS_TEXTS.get(value.lower(), value) if isinstance(value, str) else value
            if value not in (0, 1):
                errors[index] = f"`{name}` is {json.dumps(value, default=str)}; must be 0 or 1"
            elif train[index] not in (None, bool(value)):
                errors[index] = "`weight` and `train` contradict each other"
            else:
                train[index] = bool(value)
    fields: list[dict[str, Any]] = [{} for _ in range(len(message))]
    for name, column in columns.items():
        for index, value in enumerate(column.to_pylist() if name not in LOSS_FIELDS else ()):
            if name == CONTENT_ERROR:
                errors[index] = value or errors[index]
                continue
            try:
                value = parse_field(name, value)
            except ValueError:
                errors[index] = f"`{name}` is not JSON"
            if value is not None:
                fields[index][name] = value
    texts = [json.dumps(entry, ensure_ascii=False, default=str) if entry else None for entry in fields]
    return [pa.array(train, pa.bool_()), pa.array(texts, pa.string()), pa.array(errors, pa.string())]


def parse_field(name: str, value: Any) -> Any:
    """Return a field's value without nulls, JSON text of structured fields parsed; None if it is empty.

    Arguments of tool calls become mappings, as chat templates expect them and servers pass them.

    Raises:
        ValueError: a structured field is text that is not JSON.
    """
    if name in STRUCTURED_FIELDS and isinstance(value, str) and value.strip():
        value = json.loads(value)
    value = _without_nulls(value)
    if name == "tool_calls" and isinstance(value, list):
        for call in value:
            function = call.get("function", call) if isinstance(call, dict) else {}
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                function["arguments"] = _parse_arguments(function["arguments"])
    return None if value in ("", [], {}) else value


def add_tools(fields: pa.StringArray, firsts: Sequence[int], tools: pa.Array) -> tuple[pa.StringArray, dict[int, str]]:
    """Add each row's tools to the fields of its first message; return the fields, and errors by row."""
    import pyarrow as pa

    merged, errors = fields.to_pylist(), {}
    for row, (first, value) in enumerate(zip(firsts, tools.to_pylist(), strict=True)):
        try:
            value = parse_field("tools", value)
        except ValueError:
            errors[row] = "`tools` is not JSON"
            continue
        if value is not None and first < len(merged):
            merged[first] = json.dumps(json.loads(merged[first] or "{}") | {"tools": value}, ensure_ascii=False)
    return pa.array(merged, pa.string()), errors


def merge_fields(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages of a dataset file as chat templates take them, with ``train`` where a row states it."""
    return [
        {"role": message["role"], "content": message["content"]}
        | (json.loads(message["fields"]) if message.get("fields") else {})
        | ({"train": message["train"]} if message.get("train") is not None else {})
        for message in messages
    ]


def _parse_arguments(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _without_nulls(value: Any) -> Any:
    """Return a value without null keys: parquet stores all keys of a column in each row."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value if inner is not None]
    return value
