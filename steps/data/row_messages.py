"""Vectorized conversion of each format's columns to messages.

A message is ``{role, content}``, or, if the files have other fields, ``{role, content, train, fields, error}``
(``message_fields.py``). Nulls stay null, and are reported by ``row_checks.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steps.data import message_fields
from steps.data.row_formats import FORMATS, Format

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
FIELDS = ("role", "content", "train", "fields", "error")
"""Fields of a message while rows are checked; ``error`` is not written."""
Values = Mapping[str, "pa.Array"]
"""Column name of the format -> the column."""


def output_schema(data_format: Format, *, full: bool = False) -> pa.Schema:
    """Return the schema of the rows written for a format; with ``full`` messages have ``train`` and ``fields``."""
    import pyarrow as pa

    if data_format == "text":
        return pa.schema([("text", pa.string())])
    fields = [("role", pa.string()), ("content", pa.string())]
    fields += [("train", pa.bool_()), ("fields", pa.string())] if full else []
    messages = pa.list_(pa.struct(fields))
    names = ("messages", "rejected") if data_format == "preference" else ("messages",)
    return pa.schema([(name, messages) for name in names])


def has_other_fields(data_format: Format, schema: pa.Schema, used: Mapping[str, str]) -> bool:
    """Return True if the messages of a file have fields besides role and content, or its rows have tools."""
    names = FORMATS[data_format].lists
    if data_format == "text" or names is None:
        return "tools" in used
    return "tools" in used or any(
        message_fields.other_fields(schema.field(column).type, names) for column in used.values()
    )


def to_messages(data_format: Format, values: Values, *, full: bool = False) -> pa.RecordBatch:
    """Return rows with the column ``messages``; with ``rejected`` too, including the prompt; or with ``text`` only.

    With ``full``, messages have all of ``FIELDS``.

    Raises:
        ArrowInvalid: invalid UTF-8.
    """
    import pyarrow as pa

    if data_format == "text":
        return pa.RecordBatch.from_pydict({"text": _to_text(values["text"])})
    columns = _messages(data_format, values)
    if "system" in values:
        columns = {name: _add_system(column, _to_text(values["system"])) for name, column in columns.items()}
    if full:
        columns = {name: _add_fields(column, values.get("tools")) for name, column in columns.items()}
    return pa.RecordBatch.from_pydict(columns)


def finalize(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return checked rows as they are written: only the answer of ``rejected``, no errors of messages."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        if name == "rejected":
            lengths = lengths_of(column)
            column = build_lists(np.ones(len(column), int), column.flatten().take(pa.array(np.cumsum(lengths) - 1)))
        if name != "text":
            message = column.flatten()
            fields = {part.name: message.field(part.name) for part in message.type if part.name != "error"}
            if "fields" in fields:
                fields["content"] = pc.fill_null(fields["content"], "")
            column = build_lists(
                lengths_of(column), pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
            )
        columns[name] = column
    return pa.RecordBatch.from_pydict(columns)


def lengths_of(column: pa.Array) -> np.ndarray:
    """Return the number of elements of each list; 0 for null."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)


def build_lists(lengths: np.ndarray, elements: pa.Array, missing: pa.Array | None = None) -> pa.ListArray:
    """Return lists of these lengths with consecutive ``elements``; null where ``missing``."""
    import numpy as np
    import pyarrow as pa

    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(
        offsets, elements, mask=missing if missing is not None and missing.true_count else None
    )


def is_blank(texts: pa.Array) -> pa.BooleanArray:
    """Return True for each text that is null, empty or white space."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts)), True)


def _messages(data_format: Format, values: Values) -> dict[str, pa.Array]:
    if data_format == "messages":
        return {"messages": _read_conversation(values["messages"])}
    if data_format == "sharegpt":
        return {"messages": _read_sharegpt(values["conversations"])}
    if data_format == "prompt-completion":
        prompt, completion = _read_side(values["prompt"], "user"), _read_side(values["completion"], "assistant")
        return {"messages": _concat(prompt, completion)}
    if data_format == "instruction":
        return {
            "messages": _concat(_read_instruction(values), _single_message(_to_text(values["output"]), "assistant"))
        }
    return {name: _read_answer(values, column) for name, column in (("messages", "chosen"), ("rejected", "rejected"))}


def _read_answer(values: Values, column: str) -> pa.ListArray:
    """Return prompt and answer; an answer that does not begin with the assistant is the whole conversation."""
    import pyarrow.compute as pc

    answer = _read_side(values[column], "assistant")
    if "prompt" not in values:
        return answer
    lengths = lengths_of(answer)
    roles = answer.flatten().field("role")
    first = (lengths.cumsum() - lengths)[lengths > 0]
    whole = lengths > 0
    whole[whole] = ~pc.fill_null(pc.equal(roles, "assistant"), False).to_numpy(zero_copy_only=False)[first]
    return _concat(_read_side(values["prompt"], "user"), answer, alone=whole)


def _read_sharegpt(column: pa.Array) -> pa.ListArray:
    """Convert ShareGPT messages; unknown roles are kept, to be reported as errors of the row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    turns = _read_conversation(column, ("from", "value"))
    message = turns.flatten()
    source_role = message.field("role")
    known = pc.index_in(source_role, pa.array(list(SHAREGPT_ROLES)))
    role = pc.coalesce(pa.array(list(SHAREGPT_ROLES.values())).take(known), source_role)
    rest = [message.field(index) for index in range(2, message.type.num_fields)]
    return build_lists(
        lengths_of(turns), _struct([role, message.field("content"), *rest], message.is_null()), turns.is_null()
    )


def _read_instruction(values: Values) -> pa.ListArray:
    import pyarrow.compute as pc

    prompt = _to_text(values["instruction"])
    if "input" in values:
        context = _to_text(values["input"])
        prompt = pc.if_else(is_blank(context), prompt, pc.binary_join_element_wise(prompt, context, "\n\n"))
    return _single_message(prompt, "user")


def _read_side(column: pa.Array, role: str) -> pa.ListArray:
    """Return a text as one message of ``role``, or messages unchanged."""
    import pyarrow as pa

    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    return _read_conversation(column) if is_list else _single_message(_to_text(column), role)


def _read_conversation(column: pa.Array, names: tuple[str, str] = ("role", "content")) -> pa.ListArray:
    import pyarrow.compute as pc

    message = column.flatten()
    parts = [_to_text(pc.struct_field(message, name)) for name in names]
    if others := message_fields.other_fields(column.type, names):
        parts += message_fields.read_fields(message, others)
    return build_lists(lengths_of(column), _struct(parts, message.is_null()), column.is_null())


def _single_message(text: pa.Array, role: str) -> pa.ListArray:
    import pyarrow as pa

    valid = text.is_valid()
    content = text.drop_null()
    message = _struct([pa.repeat(role, len(content)), content])
    return build_lists(valid.to_numpy(zero_copy_only=False).astype(int), message, text.is_null())


def _concat(first: pa.ListArray, second: pa.ListArray, alone: np.ndarray | None = None) -> pa.ListArray:
    """Concatenate the messages of ``first`` and ``second`` in each row; only those of ``second`` where ``alone``.

    Null where either is null.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = pc.or_(first.is_null(), second.is_null())
    sizes = [lengths_of(first), lengths_of(second)]
    starts = [lengths.cumsum() - lengths for lengths in sizes]
    starts[1] = starts[1] + sizes[0].sum()
    is_missing = missing.to_numpy(zero_copy_only=False)
    num_first = np.where(is_missing if alone is None else is_missing | alone, 0, sizes[0])
    num_second = np.where(is_missing, 0, sizes[1])
    lengths = num_first + num_second
    position = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    first_end, first_start, second_start = (
        np.repeat(part, lengths) for part in (num_first, starts[0], starts[1] - num_first)
    )
    parts = [first.flatten(), second.flatten()]
    if len({part.type for part in parts}) > 1:
        parts = [_with_all_fields(part) for part in parts]
    messages = pa.concat_arrays(parts)
    indices = np.where(position < first_end, first_start + position, second_start + position)
    return build_lists(lengths, messages.take(pa.array(indices)), missing)


def _struct(parts: list[pa.Array], missing: pa.Array | None = None) -> pa.StructArray:
    import pyarrow as pa

    some = missing is not None and missing.true_count
    return pa.StructArray.from_arrays(parts, names=FIELDS[: len(parts)], mask=missing if some else None)


def _with_all_fields(message: pa.StructArray) -> pa.StructArray:
    import pyarrow as pa

    if message.type.num_fields == len(FIELDS):
        return message
    nulls = [pa.nulls(len(message), kind) for kind in (pa.bool_(), pa.string(), pa.string())]
    return _struct([message.field("role"), message.field("content"), *nulls], message.is_null())


def _add_system(messages: pa.ListArray, system: pa.StringArray) -> pa.ListArray:
    """Prepend the system message to each row that has one."""
    import pyarrow.compute as pc

    alone = is_blank(system).to_numpy(zero_copy_only=False)
    return _concat(_single_message(pc.fill_null(system, ""), "system"), messages, alone=alone)


def _add_fields(rows: pa.ListArray, tools: pa.Array | None) -> pa.ListArray:
    """Return rows whose messages have all fields, the first one with the row's tools."""
    import pyarrow as pa

    message, lengths = _with_all_fields(rows.flatten()), lengths_of(rows)
    if tools is None:
        return build_lists(lengths, message, rows.is_null())
    firsts = lengths.cumsum() - lengths
    fields, errors = message_fields.add_tools(message.field("fields"), firsts.tolist(), tools)
    reasons = message.field("error").to_pylist()
    for row, reason in errors.items():
        if lengths[row]:
            reasons[firsts[row]] = reason
    parts = [*(message.field(name) for name in FIELDS[:3]), fields, pa.array(reasons, pa.string())]
    return build_lists(lengths, _struct(parts, message.is_null()), rows.is_null())


def _to_text(column: pa.Array) -> pa.StringArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
    text.validate(full=True)
    return text
