"""Chat rows as tokens, with labels on what the assistant says.

A label stands on each token of an assistant turn and on the token that ends it, so that the model learns to stop; all
other tokens have ``IGNORED``, and the loss leaves them out. The turns are found in the text that the chat template
writes: what it writes for the messages before a turn, ready for an answer, must be how the whole row begins.

A row of mere text (``dataset.TEXT``) is written by no template: each of its tokens is learned, and an end after them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from steps.data.dataset import TEXT
from steps.runtime.errors import BadInput

IGNORED = -100
ROWS_AT_ONCE = 512
"""Rows handed to the tokenizer at once, which takes them on all processors."""
Message = dict[str, Any]
Learned = Literal["assistant", "last", "all"]
"""What is learned: each assistant turn, only the last one, or every token."""


@dataclass(frozen=True)
class ChatTokens:
    """One row."""

    input_ids: list[int]
    labels: list[int]
    """``input_ids`` where something is learned, else ``IGNORED``."""

    @property
    def learned(self) -> int:
        """How many tokens the loss counts."""
        return sum(label != IGNORED for label in self.labels)

    def cut(self, length: int, keep: str = "keep_start") -> ChatTokens:
        """The row cut to ``length`` tokens, at its end or (``keep_end``) at its beginning."""
        part = slice(-length, None) if keep == "keep_end" else slice(None, length)
        return ChatTokens(self.input_ids[part], self.labels[part])


@dataclass(frozen=True)
class Prepared:
    """Rows that fit, and what became of the others."""

    rows: Sequence[ChatTokens]
    numbers: array[int]
    """Which of the rows given each one is."""
    cut: int
    """Rows that were cut to the length."""
    longest: int
    """Tokens of the longest row given."""

    def remark(self, given: int, max_length: int) -> str:
        """What the user should know of the rows, or nothing."""
        left_out = given - len(self.rows)
        if not self.cut and not left_out:
            return ""
        parts = [f"{self.cut} cut to {max_length} tokens"] if self.cut else []
        parts += [f"{left_out} left out, for no assistant token is left in them"] if left_out else []
        advice = f"; the longest has {self.longest} tokens (max_length)" if self.longest > max_length else ""
        return f"of {given} rows {' and '.join(parts)}{advice}"


def prepare(
    tokenizer: Any,
    rows: Iterable[Sequence[Message]],
    max_length: int,
    *,
    learned: Learned = "assistant",
    keep: str = "keep_start",
    into: Callable[[ChatTokens], object] | None = None,
) -> Prepared:
    """Tokenize rows of messages and cut them to ``max_length``; with ``into`` they go there, one by one.

    Raises:
        BadInput: the template refuses a row or is missing; no row has an assistant token within ``max_length``.
    """
    kept: list[ChatTokens] = []
    take, numbers = into or kept.append, array("I")
    count = cut = longest = answered = 0
    for count, whole in enumerate(tokenized(tokenizer, rows, learned=learned), 1):
        row, length = whole.cut(max_length, keep), len(whole.input_ids)
        longest = max(longest, length)
        if row.learned:
            take(row)
            numbers.append(count - 1)
            cut += length > max_length
        elif not answered:
            answered += whole.learned > 0
    if not numbers and not answered:
        raise BadInput(f"none of the {count} rows has an assistant message", "add what the model should answer")
    if not numbers:
        raise BadInput(
            f"max_length {max_length} leaves no assistant token in any of the {count} rows",
            f"raise max_length; the longest row has {longest} tokens",
        )
    return Prepared(kept, numbers, cut, longest)


def tokenized(
    tokenizer: Any, rows: Iterable[Sequence[Message]], *, learned: Learned = "assistant"
) -> Iterator[ChatTokens]:
    """Tokenize rows, many at once.

    Raises:
        BadInput: as ``prepare``.
    """
    coming, number = iter(rows), 1
    while batch := list(islice(coming, ROWS_AT_ONCE)):
        yield from _tokenized(tokenizer, batch, learned, number)
        number += len(batch)


def tokenize(
    tokenizer: Any, messages: Sequence[Message], *, learned: Learned = "assistant", number: int = 1
) -> ChatTokens:
    """Tokenize one row. ``number`` is the row's, for messages.

    Raises:
        BadInput: as ``prepare``.
    """
    return _tokenized(tokenizer, [messages], learned, number)[0]


def render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool = False, number: int = 1) -> str:
    """The text that the chat template writes; with ``prompt`` it ends where the assistant is to answer.

    Raises:
        BadInput: there is no template, or it refuses the messages.
    """
    import jinja2

    if not tokenizer.chat_template:
        raise BadInput(
            "the base model's tokenizer has no chat template, so it is not known how it writes a conversation",
            "use a model that was tuned for chat, whose tokenizer has one",
        )
    try:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise BadInput(
            f"row {number}: the model's chat template refuses it: {error}",
            "most templates want user and assistant in turn, some no system message",
        ) from None
    return text


def stop_ids(tokenizer: Any, rows: Iterable[ChatTokens]) -> list[int]:
    """Tokens that end an assistant turn: the tokenizer's own end, and what ends the turns of ``rows``."""
    special = set(tokenizer.get_added_vocab().values())
    found = {row.labels[-1 - offset] for row in rows for offset in [_trailing(row.labels)] if offset < len(row.labels)}
    own = {tokenizer.eos_token_id} - {None}
    return sorted((found & special) | own)


def _tokenized(tokenizer: Any, rows: Sequence[Sequence[Message]], learned: Learned, first: int) -> list[ChatTokens]:
    """Tokenize rows that begin with the number ``first``."""
    if rows[0] and rows[0][0]["role"] == TEXT:
        return _of_texts(tokenizer, [str(row[0]["content"]) for row in rows])
    texts = [render(tokenizer, row, number=number) for number, row in enumerate(rows, first)]
    try:
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    except NotImplementedError:
        raise BadInput(
            "this tokenizer doesn't tell where its tokens lie in the text", "use a fast tokenizer"
        ) from None
    if learned == "all":
        return [ChatTokens(list(ids), list(ids)) for ids in encoded["input_ids"]]
    special = set(tokenizer.get_added_vocab().values())
    made = []
    for number, (row, text, ids, offsets) in enumerate(
        zip(rows, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True), first
    ):
        turns = [index for index, message in enumerate(row) if message["role"] == "assistant"]
        spans = [_span(tokenizer, row, index, text, number) for index in (turns[-1:] if learned == "last" else turns)]
        known = [span for span in spans if span is not None]
        if len(known) < len(spans):
            made.append(_by_training_template(tokenizer, row, learned, number))
        else:
            made.append(ChatTokens(list(ids), _labels(ids, offsets, known, special, text)))
    return made


def _of_texts(tokenizer: Any, texts: Sequence[str]) -> list[ChatTokens]:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    made = [list(ids) if list(ids[-1:]) == end else [*ids, *end] for ids in tokenizer(list(texts))["input_ids"]]
    return [ChatTokens(ids, list(ids)) for ids in made]


def _labels(
    ids: Sequence[int], offsets: Sequence[Any], spans: Sequence[tuple[int, int]], special: set[int], text: str
) -> list[int]:
    """Labels on the tokens that begin within a span, and on what ends its turn."""
    import numpy as np

    labels = [IGNORED] * len(ids)
    first, last = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
    for start, end in spans:
        inside = np.flatnonzero((start <= first) & (first < end) & (last > first))
        after = np.flatnonzero(first >= end)
        beyond = _end_of_turn(ids, offsets, int(after[0]) if len(after) else len(ids), special, text)
        for place in [*inside.tolist(), *beyond]:
            labels[place] = ids[place]
    return labels


def _trailing(labels: Sequence[int]) -> int:
    """How many tokens at the end are not learned."""
    return next((count for count, label in enumerate(reversed(labels)) if label != IGNORED), len(labels))


def _span(tokenizer: Any, messages: Sequence[Message], index: int, text: str, number: int) -> tuple[int, int] | None:
    """Where in ``text`` the assistant begins to write message ``index`` and where its content ends, if it is known."""
    before = render(tokenizer, messages[:index], prompt=True, number=number) if index else ""
    content = str(messages[index]["content"]).strip()
    start = len(before)
    found = text.find(content, start) if text.startswith(before) else -1
    return None if found < 0 or text[start:found].strip() else (start, found + len(content))


def _by_training_template(tokenizer: Any, messages: Sequence[Message], learned: Learned, number: int) -> ChatTokens:
    """By a template that marks the assistant's turns: the tokenizer's own, or the one that trl has for it.

    Needed for models that think: what their templates ask with is not how they write what was answered.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    template = tokenizer.chat_template
    try:
        if not has_generation_markers(template):
            template = get_training_chat_template(tokenizer)
    except ValueError:
        raise BadInput(
            f"row {number}: this model's chat template writes an answer otherwise than it asks for one, so it is not "
            "known where the assistant's turns begin",
            "use a model whose template does so",
        ) from None
    encoded = tokenizer.apply_chat_template(
        list(messages), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    if learned == "last" and 1 in mask:
        end = len(mask) - 1 - mask[::-1].index(1)
        start = next((place + 1 for place in range(end, -1, -1) if not mask[place]), 0)
        mask = [int(start <= place <= end) for place in range(len(mask))]
    return ChatTokens(list(ids), [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)])


def _end_of_turn(ids: Sequence[int], offsets: Sequence[Any], place: int, special: set[int], text: str) -> list[int]:
    """The special token that ends a turn, if from ``place`` on only white space stands before it.

    None in templates that have none.
    """
    while place < len(ids) and ids[place] not in special and not text[slice(*offsets[place])].strip():
        place += 1
    return [place] if place < len(ids) and ids[place] in special else []
