"""Validation of rows.

Batches are checked with vectorized operations; only an invalid batch is checked row by row, to report the reasons.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from steps.data.row_messages import is_blank, lengths_of

if TYPE_CHECKING:
    import pyarrow as pa

ROLES = ("system", "user", "assistant", "tool")
SYSTEM, USER, ASSISTANT = range(3)

Message = dict[str, Any]


def find_invalid_rows(rows: pa.RecordBatch) -> dict[int, str]:
    """Return index -> reason for each invalid row of a batch from ``row_messages.to_messages``."""
    if "text" in rows.schema.names:
        invalid = is_blank(rows["text"]).to_numpy(zero_copy_only=False).nonzero()[0]
        return {int(number): "no text" if rows["text"][int(number)].is_valid else "null value" for number in invalid}
    sides = [rows[name] for name in rows.schema.names]
    if all(map(_is_valid, sides)) and (len(sides) == 1 or _same_prompt(*sides)):
        return {}
    reasons = {}
    for number, row in enumerate(zip(*(side.to_pylist() for side in sides), strict=True)):
        if reason := _find_error(row[0]) if len(row) == 1 else _find_pair_error(*row):
            reasons[number] = reason
    return reasons


def count_not_learned(rows: pa.RecordBatch) -> int:
    """Return the number of rows of which no message is learned: none has weight 1, all assistant turns weight 0."""
    import numpy as np
    import pyarrow.compute as pc

    message, lengths = rows["messages"].flatten(), lengths_of(rows["messages"])
    by_role = pc.equal(message.field("role"), "assistant")
    learned = pc.fill_null(pc.coalesce(message.field("train"), by_role), False).to_numpy(zero_copy_only=False)
    return int((np.add.reduceat(learned.astype(int), lengths.cumsum() - lengths) == 0).sum()) if len(lengths) else 0


def _is_valid(rows: pa.ListArray) -> bool:
    """Return True if ``_find_error`` finds no error in any row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    message, lengths = rows.flatten(), lengths_of(rows)
    full = message.type.get_field_index("fields") >= 0
    if rows.null_count or message.null_count or (lengths < 2).any():
        return False
    if full and message.field("error").null_count < len(message):
        return False
    blank = is_blank(message.field("content"))
    if full:
        # A tool call can replace the text.
        blank = pc.and_(blank, message.field("fields").is_null())
    roles = pc.fill_null(pc.index_in(message.field("role"), pa.array(ROLES)), -1).to_numpy(zero_copy_only=False)
    ends = lengths.cumsum()
    starts = ends - lengths
    has_system = roles[starts] == SYSTEM
    return bool(
        (roles >= 0).all()
        and not blank.true_count
        and (roles == SYSTEM).sum() == has_system.sum()
        and (roles[starts + has_system] == USER).all()
        and (roles[ends - 1] == ASSISTANT).all()
    )


def _same_prompt(chosen: pa.ListArray, rejected: pa.ListArray) -> bool:
    """Return True if both sides of each pair differ in their last message, and only in that."""
    import numpy as np
    import pyarrow.compute as pc

    lengths = lengths_of(chosen)
    if (lengths != lengths_of(rejected)).any():
        return False
    left, right = chosen.flatten(), rejected.flatten()
    same = pc.and_(*(pc.equal(left.field(part), right.field(part)) for part in ("role", "content")))
    if left.type.get_field_index("fields") >= 0:
        fields = (pc.fill_null(side.field("fields"), "") for side in (left, right))
        same = pc.and_(pc.fill_null(same, False), pc.equal(*fields))
    expected = np.ones(len(left), bool)
    expected[lengths.cumsum() - 1] = False
    return bool((same.to_numpy(zero_copy_only=False) == expected).all())


def _find_error(row: list[Message] | None) -> str:
    """Return the reason why a row is invalid; empty if it is valid."""
    if row is None:
        return "null value"
    if not all(row):
        return "null message"
    if errors := [message["error"] for message in row if message.get("error")]:
        return f"message whose {errors[0]}"
    roles = [message["role"] for message in row]
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        return f"unknown role {json.dumps(unknown[0])}; must be one of {', '.join(ROLES)}"
    if "assistant" not in roles:
        return "no assistant turn"
    if any(not (message["content"] or "").strip() and not message.get("fields") for message in row):
        return "message without text"
    if "system" in roles[1:]:
        return "system message is not the first"
    if roles[roles[0] == "system"] != "user":
        return "no user turn before the assistant turn"
    return "" if roles[-1] == "assistant" else "the last turn is not an assistant turn"


def _find_pair_error(chosen: list[Message] | None, rejected: list[Message] | None) -> str:
    """Return the reason why a pair of conversations is invalid; empty if it is valid.

    They must differ only in the last answer, so that all messages before it are the prompt.
    """
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if reason := _find_error(side):
            return f"{name}: {reason}"
    assert chosen and rejected
    if chosen[:-1] != rejected[:-1]:
        return "chosen and rejected differ before their last message"
    return "" if chosen[-1] != rejected[-1] else "chosen and rejected are the same"
