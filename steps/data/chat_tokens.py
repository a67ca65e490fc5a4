"""Tokenization of chat rows, with labels on the assistant's tokens.

Each token of an assistant turn and the token that ends it has a label, so that the model learns to stop; all other
tokens have ``IGNORED``, which the loss skips. ``train`` of a message overrides this. Turns are located in the rendered
text: the messages before a turn, rendered with the generation prompt, must be a prefix of the whole row.

A text row (``dataset.TEXT``) uses no template: all its tokens are learned, with an end token appended.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from steps.data import message_turns, training_mask
from steps.data.chat_rendering import UNRENDERED, Message, render
from steps.data.dataset import TEXT
from steps.data.tokenization import Learned, Tokenization
from steps.data.unrendered_fields import check_rendered
from steps.runtime.errors import BadInput

IGNORED = -100
BATCH_ROWS = 512
"""Rows per call of the tokenizer, which uses all processors."""


@dataclass(frozen=True)
class ChatTokens:
    """Tokens and labels of one row."""

    input_ids: list[int]
    labels: list[int]
    """``input_ids`` at learned tokens, else ``IGNORED``."""

    @property
    def learned(self) -> int:
        """Number of tokens in the loss."""
        return sum(label != IGNORED for label in self.labels)

    def truncate(self, length: int, keep: str = "keep_start") -> ChatTokens:
        """Return the row truncated to ``length`` tokens, at its end or (``keep_end``) at its start."""
        part = slice(-length, None) if keep == "keep_end" else slice(None, length)
        return ChatTokens(self.input_ids[part], self.labels[part])


@dataclass(frozen=True)
class Prepared:
    """Tokenized rows, and statistics of truncated and dropped ones."""

    rows: Sequence[ChatTokens]
    numbers: array[int]
    """Index of each row in the input."""
    truncated: int
    """Number of rows truncated to the maximum length."""
    longest: int
    """Tokens of the longest input row."""
    cut_tokens: int
    """Tokens removed from the truncated rows."""
    endless: int
    """Number of rows without a learned stop token."""

    def warnings(self, num_rows: int, max_length: int) -> list[str]:
        """Return warnings about truncated, dropped and endless rows."""
        missing = self._describe_missing(num_rows, max_length)
        return [*([missing] if missing else []), *self.endless_warnings()]

    def endless_warnings(self) -> list[str]:
        """Return a warning if there are rows without a stop token: such a model generates until the server's limit."""
        if not self.endless:
            return []
        return [f"{self.endless} rows contain no learned stop token: the model may not learn to stop"]

    def _describe_missing(self, num_rows: int, max_length: int) -> str:
        num_dropped = num_rows - len(self.rows)
        if not self.truncated and not num_dropped:
            return ""
        parts = [f"{self.truncated} truncated to {max_length} tokens"] if self.truncated else []
        parts += [f"{num_dropped} dropped because no assistant token remains"] if num_dropped else []
        advice = f" (longest row: {self.longest} tokens; increase max_length)" if self.longest > max_length else ""
        return f"of {num_rows} rows, {' and '.join(parts)}{advice}"


def prepare(
    tokenizer: Any,
    rows: Iterable[Sequence[Message]],
    tokenization: Tokenization,
    *,
    into: Callable[[ChatTokens], object] | None = None,
) -> Prepared:
    """Tokenize rows of messages and truncate them; pass each to ``into`` if set.

    Raises:
        BadInput: the template rejects a row, ignores a field of it, or is missing; no row has an assistant token
            within the maximum length.
    """
    max_length, keep = tokenization.max_length, tokenization.keep
    collected: list[ChatTokens] = []
    append, numbers = into or collected.append, array("I")
    stops = _special_ids(tokenizer) | ({tokenizer.eos_token_id} - {None})
    count = truncated = longest = cut_tokens = endless = num_with_answer = 0
    for count, full in enumerate(tokenize_rows(tokenizer, rows, learned=tokenization.learned), 1):
        row, length = full.truncate(max_length, keep), len(full.input_ids)
        longest = max(longest, length)
        if row.learned:
            append(row)
            numbers.append(count - 1)
            truncated += length > max_length
            cut_tokens += max(length - max_length, 0)
            endless += stops.isdisjoint(row.labels)
        elif not num_with_answer:
            num_with_answer += full.learned > 0
    if not numbers and not num_with_answer:
        raise BadInput(f"none of the {count} rows has an assistant message", "add assistant messages")
    if not numbers:
        raise BadInput(
            f"max_length={max_length} truncates all assistant tokens in all {count} rows",
            f"increase max_length (longest row: {longest} tokens)",
        )
    return Prepared(collected, numbers, truncated, longest, cut_tokens, endless)


def tokenize_rows(
    tokenizer: Any, rows: Iterable[Sequence[Message]], *, learned: Learned = "assistant"
) -> Iterator[ChatTokens]:
    """Tokenize rows in batches.

    Raises:
        BadInput: as ``prepare``.
    """
    source, number = iter(rows), 1
    while batch := list(islice(source, BATCH_ROWS)):
        yield from _tokenize_batch(tokenizer, batch, learned, number)
        number += len(batch)


def tokenize(
    tokenizer: Any, messages: Sequence[Message], *, learned: Learned = "assistant", number: int = 1
) -> ChatTokens:
    """Tokenize one row; ``number`` identifies it in messages.

    Raises:
        BadInput: as ``prepare``.
    """
    return _tokenize_batch(tokenizer, [messages], learned, number)[0]


def stop_ids(tokenizer: Any, rows: Iterable[ChatTokens]) -> list[int]:
    """Return the tokens that end an assistant turn: EOS and the last learned tokens of ``rows``."""
    special = _special_ids(tokenizer)
    last = {
        row.labels[-1 - offset]
        for row in rows
        for offset in [_num_trailing_ignored(row.labels)]
        if offset < len(row.labels)
    }
    eos = {tokenizer.eos_token_id} - {None}
    return sorted((last & special) | eos)


def _special_ids(tokenizer: Any) -> set[int]:
    return set(tokenizer.get_added_vocab().values())


def _tokenize_batch(
    tokenizer: Any, rows: Sequence[Sequence[Message]], learned: Learned, first: int
) -> list[ChatTokens]:
    """Tokenize rows numbered from ``first``."""
    if rows[0] and rows[0][0]["role"] == TEXT:
        return _tokenize_texts(tokenizer, [str(row[0]["content"]) for row in rows])
    texts = [render(tokenizer, row, number=number) for number, row in enumerate(rows, first)]
    try:
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    except NotImplementedError:
        raise BadInput("the tokenizer does not support offset mapping", "use a fast tokenizer") from None
    check_rendered(tokenizer, rows, texts, first)
    special = _special_ids(tokenizer)
    tokenized = []
    for number, (row, text, ids, offsets) in enumerate(
        zip(rows, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True), first
    ):
        turns = _turns_to_locate(row, learned)
        if learned == "all" and not turns:
            tokenized.append(ChatTokens(list(ids), list(ids)))
            continue
        spans = [message_turns.find_span(tokenizer, row, index, text, number) for index in turns]
        located = [span for span in spans if span is not None]
        if len(located) < len(spans):
            tokenized.append(_tokenize_by_training_template(tokenizer, row, learned, number))
            continue
        labels = _build_labels(ids, offsets, located, special, text)
        if learned == "all":
            labels = [IGNORED if label != IGNORED else token for token, label in zip(ids, labels, strict=True)]
        tokenized.append(ChatTokens(list(ids), labels))
    return tokenized


def _turns_to_locate(row: Sequence[Message], learned: Learned) -> list[int]:
    """Return the indices of the learned messages; with ``all``, those that are not learned."""
    marked = {index: message["train"] for index, message in enumerate(row) if "train" in message}
    if learned == "all":
        return [index for index, train in marked.items() if not train]
    turns = [index for index, message in enumerate(row) if message["role"] == "assistant"]
    default = turns[-1:] if learned == "last" else turns
    return sorted(
        {index for index in default if marked.get(index, True)} | {i for i, train in marked.items() if train}
    )


def _tokenize_texts(tokenizer: Any, texts: Sequence[str]) -> list[ChatTokens]:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    rows = [list(ids) if list(ids[-1:]) == end else [*ids, *end] for ids in tokenizer(list(texts))["input_ids"]]
    return [ChatTokens(ids, list(ids)) for ids in rows]


def _build_labels(
    ids: Sequence[int], offsets: Sequence[Any], spans: Sequence[tuple[int, int]], special: set[int], text: str
) -> list[int]:
    """Return labels for the tokens that overlap a span and for the token that ends its turn.

    The first token of an answer can begin with the space that ends the generation prompt.
    """
    import numpy as np

    labels = [IGNORED] * len(ids)
    first, last = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
    for start, end in spans:
        inside = np.flatnonzero((start < last) & (first < end) & (last > first))
        after = np.flatnonzero(first >= end)
        ending = _find_ending(ids, offsets, int(after[0]) if len(after) else len(ids), special, text)
        for idx in [*inside.tolist(), *ending]:
            labels[idx] = ids[idx]
    return labels


def _num_trailing_ignored(labels: Sequence[int]) -> int:
    """Return the number of ignored tokens at the end."""
    return next((count for count, label in enumerate(reversed(labels)) if label != IGNORED), len(labels))


def _tokenize_by_training_template(
    tokenizer: Any, messages: Sequence[Message], learned: Learned, number: int
) -> ChatTokens:
    """Tokenize with a template that marks assistant turns: the tokenizer's, or trl's training template for it.

    Required for reasoning models, whose generation prompt is not a prefix of the rendered answer.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    template = tokenizer.chat_template
    try:
        if not has_generation_markers(template):
            template = get_training_chat_template(tokenizer)
    except ValueError:
        raise BadInput(
            f"row {number}: cannot locate the assistant's turns, because the generation prompt of this model's chat "
            "template is not a prefix of the rendered answer",
            "use another model",
        ) from None
    tools = next((message["tools"] for message in messages if message.get("tools")), None)
    encoded = tokenizer.apply_chat_template(
        [{key: value for key, value in message.items() if key not in UNRENDERED} for message in messages],
        tools=tools,
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids = encoded["input_ids"]
    mask = training_mask.trim(tokenizer, ids, encoded["assistant_masks"])
    runs = [idx for idx, marked in enumerate(mask) if marked and (idx == 0 or not mask[idx - 1])]
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    chosen = _turns_to_locate(messages, learned)
    if chosen != turns:
        if len(runs) != len(turns) or not set(chosen) <= set(turns):
            raise BadInput(
                f"row {number}: cannot locate the message with a weight, because the generation prompt of this "
                "model's chat template is not a prefix of the rendered answer",
                "remove the weight, or use another model",
            )
        starts = {start for start, index in zip(runs, turns, strict=True) if index in chosen}
        keep = False
        for idx, marked in enumerate(mask):
            keep = bool(marked) and (idx in starts or (keep and idx not in runs))
            mask[idx] = int(keep)
    if learned == "all":
        mask = [1 - marked for marked in mask]
    return ChatTokens(list(ids), [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)])


def _find_ending(
    ids: Sequence[int], offsets: Sequence[Any], first: int, special: set[int], text: str
) -> Sequence[int]:
    """Return the indices from ``first`` up to the special token that ends a turn; empty for templates without one.

    Only white space can precede that token. It is learned too: a gap in the labels would leave the model without the
    step from an answer that ends in a newline to its end token.
    """
    idx = first
    while idx < len(ids) and ids[idx] not in special and not text[slice(*offsets[idx])].strip():
        idx += 1
    return range(first, idx + 1) if idx < len(ids) and ids[idx] in special else []
