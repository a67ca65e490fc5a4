"""The gate: compare the adapter with its base, and with the adapter in service, on the rows that were held out."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from steps import files, progress
from steps.adapter import CONFIG, WEIGHTS, adapter_digest
from steps.answers import answer
from steps.bootstrap import LEVEL, ratio_interval
from steps.chat_tokens import ChatTokens, Message, Prepared, stop_ids
from steps.dataset import TEXT, dataset_folder, read_messages
from steps.errors import BadInput
from steps.model import choose_device, describe_device, fetch_model, load_base, load_tokenizer, prepare_libraries
from steps.row_losses import row_losses
from steps.step import main, settings
from steps.token_cache import prepare_cached

WORST = 5
"""Rows listed on which the adapter does worse than its base."""


@settings
class Settings:
    """Compare ``WORK/adapter`` with its base on ``eval.parquet`` of the dataset; writes ``report/evaluation.json``."""

    work: Path
    """Work folder, shared by all steps."""
    dataset: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = None
    """Folder of the rows; by default ``WORK/dataset``."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id of the base model, or a folder; by default the preset's."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    method: Literal["lora", "qlora"] = "qlora"
    """How the base was loaded for training."""
    quantization_config: dict[str, Any] = field(default_factory=dict)
    """Arguments of transformers' BitsAndBytesConfig, as in training."""
    max_length: int = 1024
    """Tokens of a row; longer rows are cut."""
    samples: int = 5
    """Rows whose question both models answer, to be read side by side."""
    max_new_tokens: int = 64
    """Length of these answers."""
    max_loss_ratio: float = 1.0
    """The adapter passes when its loss is below this share of the base's."""
    seed: int = 42
    """Of the choice of samples."""
    adapter_digest: str = ""
    """Digest of the adapter, from the tune step."""
    data_digest: str = ""
    """Digest of the rows, from the download step."""
    previous: str = ""
    """The adapter in service, which this one must be better than: a folder (a path that begins with ``/``) or the
    reference of an image; empty: there is none."""


@dataclass(frozen=True)
class Result:
    """Losses are means over all assistant tokens of the held-out rows."""

    base_loss: float
    adapter_loss: float
    base_perplexity: float
    adapter_perplexity: float
    verdict: str
    """``pass`` or ``fail``."""
    previous_loss: float | None = None
    """Of the adapter in service; None when there is none of this base model."""


@dataclass(frozen=True)
class _Measured:
    losses: list[float]
    """Of each row, summed over its tokens."""
    answers: list[str]


def evaluate(given: Settings) -> Result:
    """Measure base and adapter, let both answer, and give the verdict.

    Raises:
        BadInput: no held-out rows, no adapter, or none that fits the base.
        StepError: the base model can't be had, or was not quantized.
    """
    rows = read_messages(dataset_folder(given) / "eval.parquet")
    folder = _adapter_folder(given)
    prepare_libraries()
    device = choose_device()
    base = fetch_model(given.preset, given.model, given.revision)
    previous = _previous_folder(given, folder)
    tokenizer = load_tokenizer(folder)
    prepared = prepare_cached(tokenizer, rows, given.work / "tokens" / "eval", given.max_length)
    if remark := prepared.remark(len(rows), given.max_length):
        print(remark, flush=True)
    chosen = _choose(rows, prepared, given)
    model = _with_adapter(_load(given, base.folder, device), folder)
    print(f"evaluating on {len(prepared.rows)} rows, {describe_device(device)}", flush=True)
    with model.disable_adapter():
        before = _measure("base", model, tokenizer, prepared, chosen, given)
    after = _measure("adapter", model, tokenizer, prepared, chosen, given)
    in_service = _in_service(model, previous, prepared) if previous else None
    result = _judge(before, after, in_service, prepared.rows, given.max_loss_ratio)
    low, high = ratio_interval(before.losses, after.losses, given.seed)
    files.write_json(
        given.work / "report" / "evaluation.json",
        {
            **dataclasses.asdict(result),
            "max_loss_ratio": given.max_loss_ratio,
            "loss_ratio": {"low": round(low, 4), "high": round(high, 4), "level": LEVEL},
            **_rows(before, after, prepared, rows),
            "samples": _samples(before, after, chosen),
        },
    )
    beside = "" if result.previous_loss is None else f", of the adapter in service {result.previous_loss:.3f}"
    print(
        f"loss {result.base_loss:.3f} -> {result.adapter_loss:.3f}, perplexity {result.base_perplexity:.2f} -> "
        f"{result.adapter_perplexity:.2f}{beside}: {result.verdict}\n"
        f"the adapter's loss is {low:.0%} to {high:.0%} of the base's ({LEVEL:.0%} confidence, over the rows)",
        flush=True,
    )
    return result


def still_there(given: Settings, result: Result) -> bool:
    """Whether the evaluation of an earlier run may be kept: it is there, and the adapter is the one it was made of."""
    digest = given.adapter_digest
    whole = bool(digest) and adapter_digest(given.work / "adapter") == digest
    return whole and (given.work / "report" / "evaluation.json").is_file()


def _adapter_folder(given: Settings) -> Path:
    folder = given.work / "adapter"
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise BadInput(f"there is no {' and no '.join(missing)} in {folder}", "run the tune step before")
    if given.adapter_digest and adapter_digest(folder) != given.adapter_digest:
        raise BadInput(f"the adapter in {folder} is not the one that was tuned: its digest differs", "tune again")
    return folder


def _previous_folder(given: Settings, adapter: Path) -> Path | None:
    """The files of the adapter in service; None when there is none, or it is of another base model.

    Raises:
        BadInput: it can't be had, or is no adapter.
        StepError: its registry can't be reached.
    """
    if not given.previous:
        return None
    folder = Path(given.previous)
    if not folder.is_absolute():
        from steps import reference
        from steps.registry import pull_adapter

        folder = pull_adapter(reference.parse(given.previous), given.work / "previous")
    base, own = _base_of(folder), _base_of(adapter)
    if base != own:
        print(f"the adapter in service is of {base}, not of {own}: they are not compared", flush=True)
        return None
    return folder


def _base_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / CONFIG).read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder} holds no adapter: {error}", "put a whole adapter there, or none") from None


def _load(given: Settings, folder: Path, device: str) -> Any:
    model = load_base(folder, given.method, given.quantization_config, device)
    # The same numbers: a processor takes each layer out of 4 bits at every token otherwise.
    return model.dequantize() if given.method == "qlora" and device == "cpu" else model


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder), local_files_only=True).eval()
    except (ValueError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise BadInput(f"the adapter doesn't fit the base model: {reason}", "give the base it was tuned on") from None


def _in_service(model: Any, folder: Path, prepared: Prepared) -> list[float]:
    """Loss of each row by the adapter in service."""
    try:
        model.load_adapter(str(folder), adapter_name="previous", local_files_only=True)
    except (ValueError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise BadInput(
            f"the adapter in service doesn't fit the base model: {reason}", "give another tag or volume as output"
        ) from None
    model.set_adapter("previous")
    print(f"adapter in service: loss of {len(prepared.rows)} rows", flush=True)
    return row_losses(model, prepared.rows, lambda more: None)


def _choose(rows: Sequence[Sequence[Message]], prepared: Prepared, given: Settings) -> list[Sequence[Message]]:
    """Rows to answer, each up to its last assistant message; rows of mere text ask nothing."""
    if rows[0][0]["role"] == TEXT:
        return []
    numbers = random.Random(given.seed).sample(prepared.numbers, min(given.samples, len(prepared.numbers)))
    ends = [max(place for place, message in enumerate(rows[n]) if message["role"] == "assistant") for n in numbers]
    return [rows[number][: end + 1] for number, end in zip(numbers, ends, strict=True)]


def _measure(
    name: str,
    model: Any,
    tokenizer: Any,
    prepared: Prepared,
    chosen: Sequence[Sequence[Message]],
    given: Settings,
) -> _Measured:
    count, total = len(prepared.rows), 2 * (len(prepared.rows) + len(chosen))
    offset = total // 2 if name == "adapter" else 0
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        progress.report(offset + done, total, f"{name}: loss of {done}/{count} rows")

    losses = row_losses(model, prepared.rows, tell)
    ends = stop_ids(tokenizer, prepared.rows)
    answers = answer(model, tokenizer, [row[:-1] for row in chosen], ends, given.max_new_tokens)
    progress.report(offset + count + len(chosen), total, f"{name}: {len(answers)} answers")
    return _Measured(losses, answers)


def _judge(
    before: _Measured,
    after: _Measured,
    in_service: list[float] | None,
    rows: Sequence[ChatTokens],
    max_loss_ratio: float,
) -> Result:
    """Better than the base by the ratio asked for, and than the adapter in service by anything."""
    tokens = sum(row.learned for row in rows)
    base_loss, adapter_loss = sum(before.losses) / tokens, sum(after.losses) / tokens
    if not math.isfinite(base_loss) or not math.isfinite(adapter_loss):
        name = "adapter" if math.isfinite(base_loss) else "base model"
        raise BadInput(f"the loss of the {name} is not a number", "lower the learning rate, or use method lora")
    previous_loss = None if in_service is None else sum(in_service) / tokens
    # One in service whose loss is no number is worse than anything.
    good = previous_loss is None or not math.isfinite(previous_loss) or adapter_loss < previous_loss
    return Result(
        base_loss=round(base_loss, 4),
        adapter_loss=round(adapter_loss, 4),
        base_perplexity=_perplexity(base_loss),
        adapter_perplexity=_perplexity(adapter_loss),
        verdict="pass" if good and adapter_loss < max_loss_ratio * base_loss else "fail",
        previous_loss=round(previous_loss, 4) if previous_loss is not None and math.isfinite(previous_loss) else None,
    )


def _perplexity(loss: float) -> float:
    return round(math.exp(min(loss, 700.0)), 4)  # a float ends soon after


def _rows(
    before: _Measured, after: _Measured, prepared: Prepared, rows: Sequence[Sequence[Message]]
) -> dict[str, Any]:
    """Loss of each row, and the rows on which the adapter does worse than its base."""
    measured: list[dict[str, Any]] = [
        {
            "row": number,
            "question": _question(rows[number]),
            "tokens": tokens.learned,
            "base_loss": round(base / tokens.learned, 4),
            "adapter_loss": round(adapter / tokens.learned, 4),
        }
        for number, tokens, base, adapter in zip(
            prepared.numbers, prepared.rows, before.losses, after.losses, strict=True
        )
    ]
    worse = [row for row in measured if row["adapter_loss"] > row["base_loss"]]
    worse.sort(key=lambda row: row["base_loss"] - row["adapter_loss"])
    return {
        "rows": len(measured),
        "tokens": sum(row["tokens"] for row in measured),
        "row_losses": measured,
        "regressions": worse[:WORST],
    }


def _samples(before: _Measured, after: _Measured, chosen: Sequence[Sequence[Message]]) -> list[dict[str, Any]]:
    return [
        {
            "question": _question(row[:-1]),
            "messages": row[:-1],
            "reference": row[-1]["content"],
            "base_answer": base,
            "adapter_answer": adapter,
        }
        for row, base, adapter in zip(chosen, before.answers, after.answers, strict=True)
    ]


def _question(row: Sequence[Message]) -> str:
    """The last thing the user says."""
    return next((str(message["content"]) for message in reversed(row) if message["role"] == "user"), "")


if __name__ == "__main__":
    main(Settings, evaluate, still_there=still_there, result_type=Result)
