"""Place of each message in the rendered text of its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steps.data.chat_rendering import Message, render, render_changed
from steps.runtime.errors import BadInput

MARK = "ARGOTUNE-7f3a9c"
"""Text that replaces a content to find its place."""
MAX_OPENING = 64
"""Characters that a template writes at most between the generation prompt and an answer."""


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
    if len(content) < MAX_OPENING and _has_opening(tokenizer, messages, index, start, number):
        return None
    position = text.find(content, start)
    return None if position < 0 or text[start:position].strip() else (start, position + len(content))


def _has_opening(tokenizer: Any, row: Sequence[Message], index: int, start: int, number: int) -> bool:
    """Return True if the template writes text between the generation prompt and the content, such as `<think>`.

    A short answer could be found in that text instead of after it.
    """
    example = [{"role": "user", "content": "a"}, {"role": "assistant", "content": MARK}]
    prompt = render(tokenizer, example[:1], prompt=True, number=number)
    if not _text_before_mark(render(tokenizer, example, number=number), len(prompt)):
        return False  # the usual case, without rendering the row again
    marked = render_changed(tokenizer, [*row[:index], row[index] | {"content": MARK}, *row[index + 1 :]], number)
    return bool(_text_before_mark(marked or "", start))


def _text_before_mark(text: str, start: int) -> str:
    return text[start:].partition(MARK)[0].strip()


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
    marked = render_changed(tokenizer, [*row[:index], row[index] | {"content": MARK}, *row[index + 1 :]], number) or ""
    before, found, after = marked.partition(MARK)
    if not found or not text.startswith(before) or not text.endswith(after):
        raise BadInput(
            f"row {number}: cannot locate the {row[index]['role']} message with weight 1 in the rendered text",
            "set weight 1 on assistant messages only",
        )
    return len(before), len(text) - len(after)
