"""The gate: compare the adapter with its base, and with the adapter in service, on the rows that were held out."""

from __future__ import annotations

import dataclasses
import math
import random
import sys
from collections.abc import Sequence
from typing import Any

from steps.data.chat_tokens import Message, Prepared, stop_ids
from steps.data.dataset import TEXT, dataset_folder, read_messages
from steps.data.token_cache import prepare_cached
from steps.evaluate import answer_metrics, evaluated_models, evaluation_record, gate, lm_tasks
from steps.evaluate.answer_metrics import Scores
from steps.evaluate.answers import answer
from steps.evaluate.bootstrap import LEVEL, ratio_interval
from steps.evaluate.evaluation_record import Measured, Models
from steps.evaluate.row_losses import row_losses
from steps.evaluate.settings import Result, Settings
from steps.models.adapter import adapter_digest
from steps.models.model import choose_device, describe_device, fetch_model, load_tokenizer, prepare_libraries
from steps.runtime import files, progress
from steps.runtime.errors import BadInput


def evaluate(given: Settings) -> Result:
    """Measure base, adapter and the adapter in service, let all answer, and give the verdict.

    Raises:
        BadInput: no held-out rows, no adapter, or none that fits the base; a rule about answers, but no answers; tasks
            that can't be asked.
        StepError: the base model or the data of a task can't be had, or the base was not quantized.
    """
    rows = read_messages(dataset_folder(given) / "eval.parquet")
    folder = evaluated_models.adapter_folder(given.work, given.adapter_digest)
    prepare_libraries()
    tasks = lm_tasks.load(given.tasks, given.min_task_scores, given.task_limit, chat=rows[0][0]["role"] != TEXT)
    device = choose_device()
    base = fetch_model(given.preset, given.model, given.revision)
    previous = evaluated_models.previous_folder(given.previous, given.work, folder)
    tokenizer = load_tokenizer(folder)
    prepared = prepare_cached(tokenizer, rows, given.work / "tokens" / "eval", given.max_length)
    if remark := prepared.remark(len(rows), given.max_length):
        print(remark, flush=True)
    chosen = _choose(rows, prepared, given)
    _check_rules(given, chosen)
    model = evaluated_models.load(base.folder, folder, given.method, given.quantization_config, device)
    print(f"evaluating on {len(prepared.rows)} rows, {describe_device(device)}", flush=True)
    ends = stop_ids(tokenizer, prepared.rows)
    turns = evaluated_models.turns(model, previous)
    models = {}
    for name in turns:
        measured = _measure(name, model, tokenizer, prepared, chosen, ends, given.max_new_tokens, bool(previous))
        if tasks:
            print(f"{name}: tasks {', '.join(given.tasks)}", flush=True)
            measured = dataclasses.replace(measured, tasks=tasks.ask(model, tokenizer, given.seed))
        models[name] = measured
    means = {name: answer_metrics.mean(measured.scores) for name, measured in models.items()}
    losses = _losses(models, prepared)
    interval = ratio_interval(models["base"].losses, models["adapter"].losses, given.seed)
    outcomes = gate.judge(given, _gate_measures(models, losses, interval[1], means["adapter"], prepared, given))
    result = _result(losses, means, gate.reason(outcomes))
    files.write_json(
        given.work / "report" / "evaluation.json",
        {
            **dataclasses.asdict(result),
            "adapter_digest": given.adapter_digest or adapter_digest(folder),
            "gate": [dataclasses.asdict(outcome) for outcome in outcomes],
            "loss_ratio": {"low": round(interval[0], 4), "high": round(interval[1], 4), "level": LEVEL},
            "scores": evaluation_record.scores(means),
            "tasks": evaluation_record.tasks(models),
            "max_new_tokens": given.max_new_tokens,
            **evaluation_record.rows(models, prepared, rows),
            "samples": evaluation_record.samples(models, chosen),
        },
    )
    _tell(result, outcomes, interval, len(chosen))
    for line in evaluation_record.task_lines(models):
        print(line, flush=True)
    return result


def outputs_intact(given: Settings, result: Result) -> bool:
    """Whether the evaluation of an earlier run may be kept: it is there, and the adapter is the one it was made of."""
    digest = given.adapter_digest
    whole = bool(digest) and adapter_digest(given.work / "adapter") == digest
    return whole and (given.work / "report" / "evaluation.json").is_file()


def _choose(rows: Sequence[Sequence[Message]], prepared: Prepared, given: Settings) -> list[Sequence[Message]]:
    """Rows to answer, each up to its last assistant message; rows of mere text ask nothing."""
    if rows[0][0]["role"] == TEXT:
        return []
    numbers = random.Random(given.seed).sample(prepared.numbers, min(given.samples, len(prepared.numbers)))
    ends = [max(place for place, message in enumerate(rows[n]) if message["role"] == "assistant") for n in numbers]
    return [rows[number][: end + 1] for number, end in zip(numbers, ends, strict=True)]


def _check_rules(given: Settings, chosen: Sequence[Any]) -> None:
    asked = [name for name in ("min_exact_match", "min_rouge_l") if getattr(given, name) is not None]
    if asked and not chosen:
        why, fix = ("samples is 0", "raise it") if not given.samples else ("the rows are mere text", "leave it out")
        raise BadInput(f"{' and '.join(asked)} can't be measured: {why}, so nothing is answered", fix)


def _measure(
    name: str,
    model: Any,
    tokenizer: Any,
    prepared: Prepared,
    chosen: Sequence[Sequence[Message]],
    ends: list[int],
    max_new_tokens: int,
    three: bool,
) -> Measured:
    count, each = len(prepared.rows), len(prepared.rows) + len(chosen)
    total = (3 if three else 2) * each
    before = ("base", "adapter", "previous").index(name) * each
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        progress.report(before + done, total, f"{name}: loss of {done}/{count} rows")

    losses = row_losses(model, prepared.rows, tell)
    answers = answer(model, tokenizer, [row[:-1] for row in chosen], ends, max_new_tokens)
    scores = [answer_metrics.score(said, str(row[-1]["content"])) for said, row in zip(answers, chosen, strict=True)]
    progress.report(before + each, total, f"{name}: {len(answers)} answers")
    return Measured(losses, answers, scores)


def _losses(models: Models, prepared: Prepared) -> dict[str, float]:
    """Mean loss of a token by each model; only that of the adapter in service may be no number."""
    tokens = sum(row.learned for row in prepared.rows)
    losses = {name: sum(measured.losses) / tokens for name, measured in models.items()}
    for name, called in (("base", "base model"), ("adapter", "adapter")):
        if not math.isfinite(losses[name]):
            raise BadInput(f"the loss of the {called} is not a number", "lower the learning rate, or use method lora")
    return losses


def _gate_measures(
    models: Models, losses: dict[str, float], high: float, scores: Scores | None, prepared: Prepared, rules: gate.Rules
) -> gate.Measured:
    pairs = zip(models["base"].losses, models["adapter"].losses, strict=True)
    in_service = losses.get("previous")
    if in_service is not None:
        # One in service whose loss is no number is worse than anything.
        in_service = _ratio(losses["adapter"], in_service) if math.isfinite(in_service) else 0.0
    return gate.Measured(
        loss_ratio=_ratio(losses["adapter"], losses["base"]),
        loss_ratio_high=high,
        regressions=sum(adapter > base for base, adapter in pairs) / len(prepared.rows),
        scores=scores,
        task_scores={name: lm_tasks.of_rule(name, models["adapter"].tasks) for name in rules.min_task_scores},
        previous_loss_ratio=in_service,
    )


def _ratio(loss: float, other: float) -> float:
    return loss / other if other else math.inf


def _result(losses: dict[str, float], means: dict[str, Scores | None], reason: str) -> Result:
    previous = losses.get("previous", math.nan)
    scores = {
        f"{name}_{metric}": value
        for name, mean in means.items()
        if mean
        for metric, value in dataclasses.asdict(mean).items()
    }
    return Result(
        base_loss=round(losses["base"], 4),
        adapter_loss=round(losses["adapter"], 4),
        base_perplexity=_perplexity(losses["base"]),
        adapter_perplexity=_perplexity(losses["adapter"]),
        verdict="fail" if reason else "pass",
        reason=reason,
        previous_loss=round(previous, 4) if math.isfinite(previous) else None,
        **scores,
    )


def _perplexity(loss: float) -> float:
    return round(math.exp(min(loss, 700.0)), 4)  # a float ends soon after


def _tell(result: Result, outcomes: Sequence[gate.Outcome], interval: tuple[float, float], answers: int) -> None:
    beside = "" if result.previous_loss is None else f", of the adapter in service {result.previous_loss:.3f}"
    print(
        f"loss {result.base_loss:.3f} -> {result.adapter_loss:.3f}, perplexity {result.base_perplexity:.2f} -> "
        f"{result.adapter_perplexity:.2f}{beside}: {result.verdict}\n"
        f"the adapter's loss is {interval[0]:.0%} to {interval[1]:.0%} of the base's ({LEVEL:.0%} confidence, over "
        "the rows)"
    )
    if answers:
        print(
            f"exact match {result.base_exact_match:.2f} -> {result.adapter_exact_match:.2f}, "
            f"ROUGE-L {result.base_rouge_l:.2f} -> {result.adapter_rouge_l:.2f} ({answers} answers)"
        )
    for outcome in outcomes:
        print(f"gate: {outcome}: {'ok' if outcome.ok else 'no'}")
    sys.stdout.flush()
