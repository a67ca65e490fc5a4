"""Preview training rows as the model sees them, with the learned tokens marked, and warn about data problems.

python -m steps.preview --work work --preset smollm2-135m-instruct
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from steps.data import near_duplicates, row_formats
from steps.data.chat_tokens import IGNORED, ChatTokens, Prepared
from steps.data.tokenization import Tokenization
from steps.preview.settings import Result, Settings

LEARNED, LEARNED_END = (
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}",
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}",
)
MAX_TRUNCATED_SHARE = 0.05


def preview(settings: Settings) -> Result:
    """Print sample rows with the learned tokens in angle quotes, then statistics and warnings.

    Raises:
        BadInput: there are no rows, or the model's chat template rejects them.
        StepError: the tokenizer is not available.
    """
    from steps.data.dataset import read_messages, read_rejected
    from steps.data.token_cache import prepare_cached
    from steps.models.model import fetch_tokenizer, prepare_libraries

    rows = read_messages(settings.work / "dataset" / "train.parquet")
    rejected = read_rejected(settings.work / "dataset" / "train.parquet")
    prepare_libraries()
    tokenizer = fetch_tokenizer(settings.preset, settings.model, settings.revision)
    tokenizer.chat_template = settings.model_config_.get("chat_template") or tokenizer.chat_template
    cache = settings.work / "tokens" / "train"
    prepared = prepare_cached(tokenizer, rows, cache, Tokenization.from_settings(settings))
    samples = sorted(
        random.Random(settings.seed).sample(range(len(prepared.rows)), min(settings.rows, len(prepared.rows)))
    )
    for index in samples:
        print(f"--- row {prepared.numbers[index]}\n{mark_learned(tokenizer, prepared.rows[index])}", flush=True)
        if rejected:
            print(f"--- rejected\n{rejected[prepared.numbers[index]][-1]['content']}", flush=True)
    lengths = sorted(len(row.input_ids) for row in prepared.rows)
    result = Result(
        rows=len(prepared.rows),
        tokens=sum(lengths),
        learned_tokens=sum(row.learned for row in prepared.rows),
        longest=prepared.longest,
        warnings=[
            *_check_lengths(prepared, sum(lengths), len(rows) - len(prepared.rows), settings.max_length),
            *prepared.endless_warnings(),
            *_check_manifest(settings.work / "dataset" / "manifest.json"),
        ],
    )
    share = result.learned_tokens / result.tokens
    print(
        f"--- {result.rows} rows, {result.tokens} tokens, {share:.0%} of them learned (in {LEARNED}{LEARNED_END}); "
        f"tokens per row: median {lengths[len(lengths) // 2]}, longest {result.longest}"
    )
    if prepared.truncated:
        print(f"--- {_describe_truncation(prepared, result.tokens, settings.max_length)}")
    for warning in result.warnings:
        print(f"warning: {warning}", flush=True)
    return result


def mark_learned(tokenizer: Any, row: ChatTokens) -> str:
    """Return a row's text with the learned tokens in angle quotes."""
    parts, start = [], 0
    is_learned = [label != IGNORED for label in row.labels]
    for end in range(1, len(is_learned) + 1):
        if end == len(is_learned) or is_learned[end] != is_learned[start]:
            text = tokenizer.decode(row.input_ids[start:end])
            parts.append(f"{LEARNED}{text}{LEARNED_END}" if is_learned[start] else text)
            start = end
    return "".join(parts)


def _check_lengths(prepared: Prepared, num_tokens: int, num_dropped: int, max_length: int) -> list[str]:
    """Warn about truncation if rows or tokens exceed ``MAX_TRUNCATED_SHARE``; ``num_tokens`` are left of the rows."""
    warnings = []
    row_share = prepared.truncated / len(prepared.rows)
    token_share = prepared.cut_tokens / (num_tokens + prepared.cut_tokens)
    if max(row_share, token_share) > MAX_TRUNCATED_SHARE:
        truncation = _describe_truncation(prepared, num_tokens, max_length)
        warnings.append(f"{truncation}: increase max_length (longest row: {prepared.longest})")
    if num_dropped:
        warnings.append(f"{num_dropped} rows have no learned token within max_length={max_length} and are dropped")
    return warnings


def _describe_truncation(prepared: Prepared, num_tokens: int, max_length: int) -> str:
    share = prepared.cut_tokens / (num_tokens + prepared.cut_tokens)
    return (
        f"{prepared.truncated} of {len(prepared.rows)} rows are truncated to max_length={max_length}, which removes "
        f"{share:.1%} of the tokens"
    )


def _check_manifest(file: Path) -> list[str]:
    manifest = json.loads(file.read_text())
    warnings = row_formats.unused_warnings(manifest["unused_columns"])
    if manifest["rows_not_learned"]:
        warnings.append(f"{manifest['rows_not_learned']} rows have no message to learn (weight 0)")
    if manifest["duplicate_rows"]:
        warnings.append(f"{manifest['duplicate_rows']} rows are duplicates")
    if manifest["held_out_rows_in_train"]:
        warnings.append(
            f"{manifest['held_out_rows_in_train']} held-out rows are also training rows: the evaluation is biased"
        )
    near = near_duplicates.from_manifest(manifest)
    return warnings + near.warnings(manifest["rows"], manifest["eval_rows"])
