"""Place of each message in the rendered text of its row, and fields that a chat template does not render."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from steps.data.chat_rendering import Message, render
from steps.runtime.errors import BadInput

MARK = "ARGOTUNE-7f3a9c"
"""Text that replaces a content to find its place."""
IDENTIFIERS = ("id", "message_id", "tool_call_id", "name", "index", "timestamp", "created_at")
"""Fields that identify messages, which templates need not render."""
MAX_ROWS_SHOWN = 5


def find_span(
    tokenizer: Any, messages: Sequence[Message], index: int, text: str, number: int
) -> tuple[int, int] | None:
    """Return start and end of message ``index`` in ``text``; None if an assistant message cannot be located.

    An answer begins after the generation prompt, and ends before its end token.

    Raises:
        BadInput: a message of another role cannot be located.
    """
    message = messages[index]
    if message["role"] != "assistant":
        return _find_other(tokenizer, messages, index, text, number)
    before = render(tokenizer, messages[:index], prompt=True, number=number) if index else ""
    start = len(before)
    if not text.startswith(before):
        return None
    if message.keys() - {"role", "content", "train", "tools"}:
        return start, _find_end(tokenizer, messages, index, text, start, number)
    content = str(message["content"]).strip()
    position = text.find(content, start)
    return None if position < 0 or text[start:position].strip() else (start, position + len(content))


def check_rendered(tokenizer: Any, rows: Sequence[Sequence[Message]], texts: Sequence[str], first: int) -> None:
    """Check that the template renders all fields of messages.

    Raises:
        BadInput: it ignores a field, whose content would not be learned; the message lists all fields with their rows.
    """
    ignored: dict[str, list[int]] = {}
    for number, (row, text) in enumerate(zip(rows, texts, strict=True), first):
        if row[0]["role"] == "system" and str(row[0]["content"]).strip() not in text:
            marked = _render_changed(tokenizer, row, 0, row[0] | {"content": MARK}, number)
            if marked is not None and MARK not in marked:
                ignored.setdefault("content of the system message", []).append(number)
        if any(len(message) > 2 for message in row):
            for name in dict.fromkeys(_ignored_fields(tokenizer, row, text, number)):
                ignored.setdefault(name, []).append(number)
    if not ignored:
        return
    lines = []
    for name, numbers in ignored.items():
        shown = ", ".join(map(str, numbers[:MAX_ROWS_SHOWN])) + (", ..." if len(numbers) > MAX_ROWS_SHOWN else "")
        lines.append(f"`{name}` in row{'s' * (len(numbers) > 1)} {shown}")
    raise BadInput(
        f"the model's chat template does not render these fields of messages: {'; '.join(lines)}",
        "remove them, move their text into content, or use a model or a ModelConfig.chat_template that renders them",
    )


def _ignored_fields(tokenizer: Any, row: Sequence[Message], text: str, number: int) -> Iterator[str]:
    for index, message in enumerate(row):
        names = [name for name in message if name not in ("role", "content", "train", *IDENTIFIERS)]
        for name in names:
            without = {key: value for key, value in message.items() if key != name}
            if _render_changed(tokenizer, row, index, without, number) == text:
                yield name
        if names and str(message["content"]).strip():
            marked = _render_changed(tokenizer, row, index, message | {"content": MARK}, number)
            if marked is not None and MARK not in marked:
                yield "content"


def _render_changed(tokenizer: Any, row: Sequence[Message], index: int, message: Message, number: int) -> str | None:
    """Render a row with another message; None if the template rejects it."""
    try:
        return render(tokenizer, [*row[:index], message, *row[index + 1 :]], number=number)
    except BadInput:
        return None


def _find_end(tokenizer: Any, row: Sequence[Message], index: int, text: str, start: int, number: int) -> int:
    """Return the end of what the template writes for an assistant message, before its end token."""
    through = text if index == len(row) - 1 else render(tokenizer, row[: index + 1], number=number)
    limit = next((idx for idx, (one, other) in enumerate(zip(text, through, strict=False)) if one != other), None)
    limit = min(len(text), len(through)) if limit is None else limit
    example = [{"role": "user", "content": "a"}, {"role": "assistant", "content": MARK}]
    after = render(tokenizer, example, number=number).partition(MARK)[2].lstrip()
    endings = [token for token in tokenizer.get_added_vocab() if after.startswith(token)]
    end = text.find(max(endings, key=len), start, limit) if endings else -1
    return end if end >= 0 else max(start, len(text[:limit].rstrip()))


def _find_other(tokenizer: Any, row: Sequence[Message], index: int, text: str, number: int) -> tuple[int, int]:
    marked = _render_changed(tokenizer, row, index, row[index] | {"content": MARK}, number) or ""
    before, found, after = marked.partition(MARK)
    if not found or not text.startswith(before) or not text.endswith(after):
        raise BadInput(
            f"row {number}: cannot locate the {row[index]['role']} message with weight 1 in the rendered text",
            "set weight 1 on assistant messages only",
        )
    return len(before), len(text) - len(after)
