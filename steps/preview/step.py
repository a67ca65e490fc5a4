"""Show rows as the model will see them, with what it learns from marked, and warn of what would spoil a training.

python -m steps.preview --work work --preset smollm2-135m-instruct
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steps.data.chat_tokens import IGNORED, ChatTokens, Learned, stop_ids
from steps.preview.settings import Result, Settings

LEARNED, END = "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}", "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
MANY_CUT = 0.05


def preview(given: Settings) -> Result:
    """Print rows with the learned part in angle quotes, then figures and warnings.

    Raises:
        BadInput: there are no rows, or the model's chat template refuses them.
        StepError: the tokenizer can't be had.
    """
    from steps.data.dataset import read_messages
    from steps.data.token_cache import prepare_cached
    from steps.models.model import fetch_tokenizer, prepare_libraries
    from steps.tune.training_config import loss_scope

    rows = read_messages(given.work / "dataset" / "train.parquet")
    prepare_libraries()
    tokenizer = fetch_tokenizer(given.preset, given.model, given.revision)
    what: Learned = loss_scope(given.training_arguments)
    keep = given.training_arguments.get("truncation_mode", "keep_start")
    prepared = prepare_cached(
        tokenizer, rows, given.work / "tokens" / "train", given.max_length, learned=what, keep=keep
    )
    places = sorted(random.Random(given.seed).sample(range(len(prepared.rows)), min(given.rows, len(prepared.rows))))
    for place in places:
        print(f"--- row {prepared.numbers[place]}\n{marked(tokenizer, prepared.rows[place])}", flush=True)
    lengths = sorted(len(row.input_ids) for row in prepared.rows)
    result = Result(
        rows=len(prepared.rows),
        tokens=sum(lengths),
        learned_tokens=sum(row.learned for row in prepared.rows),
        longest=prepared.longest,
        warnings=[
            *_of_lengths(lengths, prepared.cut, len(rows) - len(prepared.rows), given.max_length, prepared.longest),
            *_of_ends(prepared.rows, stop_ids(tokenizer, prepared.rows)),
            *_of_manifest(given.work / "dataset" / "manifest.json"),
        ],
    )
    share = result.learned_tokens / result.tokens
    print(
        f"--- {result.rows} rows, {result.tokens} tokens, {share:.0%} of them learned (in {LEARNED}{END}); a row has "
        f"{lengths[len(lengths) // 2]} tokens in the middle, the longest {result.longest}"
    )
    for warning in result.warnings:
        print(f"warning: {warning}", flush=True)
    return result


def marked(tokenizer: Any, row: ChatTokens) -> str:
    """A row's text, with what is learned in angle quotes."""
    parts, start = [], 0
    kinds = [label != IGNORED for label in row.labels]
    for place in range(1, len(kinds) + 1):
        if place == len(kinds) or kinds[place] != kinds[start]:
            text = tokenizer.decode(row.input_ids[start:place])
            parts.append(f"{LEARNED}{text}{END}" if kinds[start] else text)
            start = place
    return "".join(parts)


def _of_lengths(lengths: Sequence[int], cut: int, left_out: int, max_length: int, longest: int) -> list[str]:
    found = []
    if cut > MANY_CUT * len(lengths):
        found.append(
            f"{cut} of {len(lengths)} rows are cut to {max_length} tokens and lose their end: raise max_length (the "
            f"longest row has {longest})"
        )
    if left_out:
        found.append(f"{left_out} rows have no learned token within {max_length} tokens and are left out")
    return found


def _of_ends(rows: Sequence[ChatTokens], stops: Sequence[int]) -> list[str]:
    """A model that never learns to stop goes on until the server's limit."""
    endless = sum(not set(stops) & {label for label in row.labels if label != IGNORED} for row in rows)
    return [f"{endless} rows teach no end of an answer: the model may not learn to stop"] if endless else []


def _of_manifest(file: Path) -> list[str]:
    told = json.loads(file.read_text())
    found = []
    if told["duplicate_rows"]:
        found.append(f"{told['duplicate_rows']} rows repeat an earlier one")
    if told["held_out_rows_in_train"]:
        found.append(f"{told['held_out_rows_in_train']} held-out rows are trained on too: the evaluation flatters")
    return found
