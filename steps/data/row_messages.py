"""Columns of each format as messages: whole batches at a time, without a Python object for each value.

A message here is ``{role, content, extra}``; ``extra`` names a field of OpenAI's messages that would change what a row
teaches and that is not learned. What is null in the files stays null, for ``row_checks.py`` to tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steps.data.row_formats import Format

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
# Others (name, id, ...) are only remarks.
NOT_LEARNED = ("tool_calls", "function_call", "weight")
Values = Mapping[str, "pa.Array"]
"""Name that the format knows a column by -> the column."""


def schema_of(data_format: Format) -> pa.Schema:
    """Columns that rows of a format have in the end."""
    import pyarrow as pa

    if data_format == "text":
        return pa.schema([("text", pa.string())])
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    names = ("messages", "rejected") if data_format == "preference" else ("messages",)
    return pa.schema([(name, messages) for name in names])


def to_messages(data_format: Format, values: Values) -> pa.RecordBatch:
    """Rows with the column ``messages``; ``rejected`` too, with the prompt before the answer; or with ``text`` alone.

    Raises:
        ArrowInvalid: text that is not UTF-8.
    """
    import pyarrow as pa

    made = {"text": _text(values["text"])} if data_format == "text" else _messages(data_format, values)
    return pa.RecordBatch.from_pydict(made)


def finished(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Checked rows as they are written: of ``rejected`` the answer alone, of messages only role and content."""
    import numpy as np
    import pyarrow as pa

    columns = {}
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        if name == "rejected":
            lengths = lengths_of(column)
            column = in_lists(np.ones(len(column), int), column.flatten().take(pa.array(np.cumsum(lengths) - 1)))
        if name != "text":
            message = column.flatten()
            fields = {part: message.field(part) for part in ("role", "content")}
            column = in_lists(
                lengths_of(column), pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
            )
        columns[name] = column
    return pa.RecordBatch.from_pydict(columns)


def lengths_of(column: pa.Array) -> np.ndarray:
    """How many elements each list of a column has; none where it is null."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)


def in_lists(lengths: np.ndarray, elements: pa.Array, missing: pa.Array | None = None) -> pa.ListArray:
    """Lists of these lengths that take their elements in turn; null where ``missing``."""
    import numpy as np
    import pyarrow as pa

    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(
        offsets, elements, mask=missing if missing is not None and missing.true_count else None
    )


def blank(texts: pa.Array) -> pa.BooleanArray:
    """Where a text is null, empty or white space."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts)), True)


def _messages(data_format: Format, values: Values) -> dict[str, pa.Array]:
    if data_format == "messages":
        return {"messages": _turns(values["messages"])}
    if data_format == "sharegpt":
        return {"messages": _of_sharegpt(values["conversations"])}
    if data_format == "prompt-completion":
        asked, answered = _side(values["prompt"], "user"), _side(values["completion"], "assistant")
        return {"messages": _joined(asked, answered)}
    if data_format == "instruction":
        return {"messages": _joined(_instructed(values), _turn(_text(values["output"]), "assistant"))}
    return {name: _answered(values, column) for name, column in (("messages", "chosen"), ("rejected", "rejected"))}


def _answered(values: Values, column: str) -> pa.ListArray:
    """Prompt and answer; an answer that begins otherwise than with the assistant is the whole conversation."""
    import pyarrow.compute as pc

    answer = _side(values[column], "assistant")
    if "prompt" not in values:
        return answer
    lengths = lengths_of(answer)
    roles = answer.flatten().field("role")
    begins = (lengths.cumsum() - lengths)[lengths > 0]
    whole = lengths > 0
    whole[whole] = ~pc.fill_null(pc.equal(roles, "assistant"), False).to_numpy(zero_copy_only=False)[begins]
    return _joined(_side(values["prompt"], "user"), answer, alone=whole)


def _of_sharegpt(column: pa.Array) -> pa.ListArray:
    """A role that is not known stays, so that it is told as a fault of the row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    turns = _turns(column, ("from", "value"))
    message = turns.flatten()
    said = message.field("role")
    known = pc.index_in(said, pa.array(list(SHAREGPT_ROLES)))
    role = pc.coalesce(pa.array(list(SHAREGPT_ROLES.values())).take(known), said)
    parts = [role, message.field("content"), pa.nulls(len(message), pa.string())]
    return in_lists(lengths_of(turns), _struct(parts, message.is_null()), turns.is_null())


def _instructed(values: Values) -> pa.ListArray:
    import pyarrow.compute as pc

    asked = _text(values["instruction"])
    if "input" in values:
        more = _text(values["input"])
        asked = pc.if_else(blank(more), asked, pc.binary_join_element_wise(asked, more, "\n\n"))
    return _turn(asked, "user")


def _side(column: pa.Array, role: str) -> pa.ListArray:
    """A text as one message of ``role``, or messages as they are."""
    import pyarrow as pa

    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    return _turns(column) if is_list else _turn(_text(column), role)


def _turns(column: pa.Array, names: tuple[str, str] = ("role", "content")) -> pa.ListArray:
    import pyarrow.compute as pc

    message = column.flatten()
    parts = [_text(pc.struct_field(message, name)) for name in names]
    return in_lists(lengths_of(column), _struct([*parts, _extra(message)], message.is_null()), column.is_null())


def _turn(text: pa.Array, role: str) -> pa.ListArray:
    import pyarrow as pa

    there = text.is_valid()
    content = text.drop_null()
    message = _struct([pa.repeat(role, len(content)), content, pa.nulls(len(content), pa.string())])
    return in_lists(there.to_numpy(zero_copy_only=False).astype(int), message, text.is_null())


def _joined(first: pa.ListArray, second: pa.ListArray, alone: np.ndarray | None = None) -> pa.ListArray:
    """Of each row the messages of ``first`` and then those of ``second``; where ``alone``, those of ``second`` only.

    Null where either is.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = pc.or_(first.is_null(), second.is_null())
    taken = [lengths_of(first), lengths_of(second)]
    starts = [lengths.cumsum() - lengths for lengths in taken]
    starts[1] = starts[1] + taken[0].sum()
    left_out = missing.to_numpy(zero_copy_only=False)
    ahead = np.where(left_out if alone is None else left_out | alone, 0, taken[0])
    behind = np.where(left_out, 0, taken[1])
    lengths = ahead + behind
    place = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    ahead_of, first_of, second_of = (np.repeat(part, lengths) for part in (ahead, starts[0], starts[1] - ahead))
    messages = pa.concat_arrays([first.flatten(), second.flatten()])
    wanted = np.where(place < ahead_of, first_of + place, second_of + place)
    return in_lists(lengths, messages.take(pa.array(wanted)), missing)


def _struct(parts: list[pa.Array], missing: pa.Array | None = None) -> pa.StructArray:
    import pyarrow as pa

    some = missing is not None and missing.true_count
    return pa.StructArray.from_arrays(parts, names=["role", "content", "extra"], mask=missing if some else None)


def _text(column: pa.Array) -> pa.StringArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
    text.validate(full=True)
    return text


def _extra(message: pa.StructArray) -> pa.StringArray:
    """The first field of each message that is set and is not learned."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pa.nulls(len(message), pa.string())
    for name in reversed([name for name in NOT_LEARNED if message.type.get_field_index(name) >= 0]):
        field = pc.struct_field(message, name)
        if field.null_count < len(field):
            found = pc.if_else(pa.array([bool(value) for value in field.to_pylist()], pa.bool_()), name, found)
    return found
