"""Whether rows can be tuned on, and if not, why.

Batches are checked as a whole; only one that does not pass is gone through row by row, to tell which and why.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from steps.data.row_messages import blank, lengths_of

if TYPE_CHECKING:
    import pyarrow as pa

ROLES = ("system", "user", "assistant")
SYSTEM, USER, ASSISTANT = range(3)

Message = dict[str, Any]


def faults(rows: pa.RecordBatch) -> dict[int, str]:
    """Number in the batch of each row that cannot be used -> why; ``row_messages.to_messages`` makes such ``rows``."""
    if "text" in rows.schema.names:
        wrong = blank(rows["text"]).to_numpy(zero_copy_only=False).nonzero()[0]
        return {
            int(number): "no text" if rows["text"][int(number)].is_valid else "no value (null)" for number in wrong
        }
    sides = [rows[name] for name in rows.schema.names]
    if all(map(_sound, sides)) and (len(sides) == 1 or _same_prompt(*sides)):
        return {}
    told = {}
    for number, row in enumerate(zip(*(side.to_pylist() for side in sides), strict=True)):
        if fault := _fault(row[0]) if len(row) == 1 else _pair_fault(*row):
            told[number] = fault
    return told


def _sound(rows: pa.ListArray) -> bool:
    """Whether ``_fault`` has nothing to say of any row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    message, lengths = rows.flatten(), lengths_of(rows)
    extra = message.field("extra")
    if rows.null_count or message.null_count or extra.null_count < len(extra) or (lengths < 2).any():
        return False
    roles = pc.fill_null(pc.index_in(message.field("role"), pa.array(ROLES)), -1).to_numpy(zero_copy_only=False)
    ends = lengths.cumsum()
    starts = ends - lengths
    led = roles[starts] == SYSTEM
    return bool(
        (roles >= 0).all()
        and not blank(message.field("content")).true_count
        and (roles == SYSTEM).sum() == led.sum()
        and (roles[starts + led] == USER).all()
        and (roles[ends - 1] == ASSISTANT).all()
    )


def _same_prompt(chosen: pa.ListArray, rejected: pa.ListArray) -> bool:
    """Whether both sides of each pair are the same up to their last message, and are not in that."""
    import numpy as np
    import pyarrow.compute as pc

    lengths = lengths_of(chosen)
    if (lengths != lengths_of(rejected)).any():
        return False
    one, other = chosen.flatten(), rejected.flatten()
    same = pc.and_(*(pc.equal(one.field(part), other.field(part)) for part in ("role", "content")))
    wanted = np.ones(len(one), bool)
    wanted[lengths.cumsum() - 1] = False
    return bool((same.to_numpy(zero_copy_only=False) == wanted).all())


def _fault(row: list[Message] | None) -> str:
    """Why a row cannot be used; empty if it can."""
    if row is None:
        return "no value (null)"
    if not all(row):
        return "a message that is null"
    if extra := [message["extra"] for message in row if message["extra"]]:
        return f"a message with `{extra[0]}`, which is not learned"
    roles = [message["role"] for message in row]
    strange = [role for role in roles if role not in ROLES]
    if strange:
        return f"a role {json.dumps(strange[0])}; known are {', '.join(ROLES)}"
    if "assistant" not in roles:
        return "no assistant turn"
    if any(not (message["content"] or "").strip() for message in row):
        return "a message without text"
    if "system" in roles[1:]:
        return "a system message that is not the first"
    if roles[roles[0] == "system"] != "user":
        return "no user turn before the assistant's"
    return "" if roles[-1] == "assistant" else "the last turn is not the assistant's"


def _pair_fault(chosen: list[Message] | None, rejected: list[Message] | None) -> str:
    """Why a pair of conversations cannot be used.

    They differ in the last answer alone, so that it is plain where the prompt ends: it is all that comes before.
    """
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if fault := _fault(side):
            return f"{name}: {fault}"
    assert chosen and rejected
    if chosen[:-1] != rejected[:-1]:
        return "chosen and rejected differ before their last message"
    return "" if chosen[-1] != rejected[-1] else "chosen and rejected are the same"
