"""Evaluate the adapter against its base and the deployed adapter on held-out rows, and apply the gate."""

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
from steps.data.tokenization import Tokenization
from steps.evaluate import answer_metrics, evaluated_models, evaluation_record, first_tokens, gate, lm_tasks
from steps.evaluate.answer_metrics import Scores
from steps.evaluate.answers import answer_questions
from steps.evaluate.bootstrap import LEVEL, ratio_interval
from steps.evaluate.evaluation_record import Measurements, Models
from steps.evaluate.first_tokens import FirstTokens
from steps.evaluate.row_losses import row_losses
from steps.evaluate.settings import GateRules, Result, Settings
from steps.models.adapter import adapter_digest, base_revision
from steps.models.model import choose_device, describe_device, fetch_model, load_tokenizer, prepare_libraries
from steps.runtime import files, gpu_time, progress
from steps.runtime.errors import BadInput
from steps.runtime.gpu_time import EVALUATING, LOADING, GpuTimer


def evaluate(settings: Settings) -> Result:
    """Measure losses, answers and tasks of base, adapter and deployed adapter, and return the verdict.

    Raises:
        BadInput: There are no held-out rows, no adapter, or it does not fit the base; a rule needs answers but samples
            is 0; a task cannot run.
        StepError: The base model or the data of a task is unavailable, or the base was not quantized.
        TimeLimit: The budget is used up.
    """
    execution = settings.adapter_digest  # each rung of a search has another adapter
    with gpu_time.measure(settings.work, "evaluate", settings.budget_hours, execution) as timer:
        return _evaluate(settings, timer)


def outputs_intact(settings: Settings, result: Result) -> bool:
    """Return True if the evaluation of an earlier run exists and the adapter is unchanged."""
    digest = settings.adapter_digest
    unchanged = bool(digest) and adapter_digest(settings.work / "adapter") == digest
    return unchanged and (settings.work / "report" / "evaluation.json").is_file()


def _evaluate(settings: Settings, timer: GpuTimer) -> Result:
    rows = read_messages(dataset_folder(settings) / "eval.parquet")
    folder = evaluated_models.adapter_folder(settings.work, settings.adapter_digest)
    prepare_libraries()
    tasks = lm_tasks.load(
        settings.tasks, settings.min_task_scores, settings.task_limit, chat=rows[0][0]["role"] != TEXT
    )
    device = choose_device()
    base = fetch_model(settings.preset, settings.model, base_revision(folder, settings.model, settings.revision))
    previous = evaluated_models.previous_folder(settings.previous, settings.work, folder)
    tokenizer = load_tokenizer(folder)
    cache = settings.work / "tokens" / "eval"
    prepared = prepare_cached(tokenizer, rows, cache, Tokenization.from_settings(settings))
    for warning in prepared.warnings(len(rows), settings.max_length):
        print(warning, flush=True)
    chosen = _sample_rows(rows, prepared, settings)
    _check_rules(settings, chosen)
    model = evaluated_models.load(base.folder, folder, settings.method, settings.quantization_config, device)
    print(f"evaluating on {len(prepared.rows)} rows, {describe_device(device)}", flush=True)
    ends = stop_ids(tokenizer, prepared.rows)
    timer.switch(EVALUATING)
    models = {}
    first: list[FirstTokens | None] = []
    for name in evaluated_models.iter_models(model, previous):
        timer.check_budget(f"the evaluation stopped before the model {name}; the adapter is kept")
        models[name] = _measure(name, model, tokenizer, prepared, chosen, ends, settings, has_previous=bool(previous))
        if tasks:
            print(f"{name}: tasks {', '.join(settings.tasks)}", flush=True)
            scores = tasks.evaluate(model, tokenizer, settings.seed)
            models[name] = dataclasses.replace(models[name], tasks=scores)
        if name == "adapter":
            first = first_tokens.measure(model, [row[:-1] for row in chosen], models[name].answers)
    means = {name: answer_metrics.mean(measured.scores) for name, measured in models.items()}
    losses = _losses(models, prepared)
    interval = ratio_interval(models["base"].losses, models["adapter"].losses, settings.seed)
    outcomes = gate.judge(settings, _gate_measures(models, losses, interval[1], means["adapter"], prepared, settings))
    result = _result(losses, means, gate.reason(outcomes), timer)
    record = {
        **{key: value for key, value in dataclasses.asdict(result).items() if not key.endswith("_seconds")},
        "adapter_digest": settings.adapter_digest or adapter_digest(folder),
        "gate": [dataclasses.asdict(outcome) for outcome in outcomes],
        "loss_ratio": {"low": round(interval[0], 4), "high": round(interval[1], 4), "level": LEVEL},
        "max_new_tokens": settings.max_new_tokens,
        "quantized": hasattr(model.config, "quantization_config"),
        **evaluation_record.measurements(models, means, prepared, rows, chosen, first),
    }
    files.write_json(settings.work / "report" / "evaluation.json", record)
    _print_summary(result, outcomes, interval, len(chosen))
    for line in evaluation_record.format_tasks(models):
        print(line, flush=True)
    return result


def _sample_rows(rows: Sequence[Sequence[Message]], prepared: Prepared, settings: Settings) -> list[Sequence[Message]]:
    """Return sampled rows up to their last assistant message; none if rows are plain text without questions.

    Rows with tools or reasoning are skipped.
    """
    if rows[0][0]["role"] == TEXT:
        return []
    numbers = random.Random(settings.seed).sample(prepared.numbers, min(settings.samples, len(prepared.numbers)))
    ends = [max(idx for idx, message in enumerate(rows[n]) if message["role"] == "assistant") for n in numbers]
    sampled = [rows[number][: end + 1] for number, end in zip(numbers, ends, strict=True)]
    return [_without_train(row) for row in sampled if _is_plain(row)]


def _is_plain(row: Sequence[Message]) -> bool:
    """Return True if a row has no tools and other fields: their answers are not texts that can be compared."""
    return not any(message.keys() - {"role", "content", "train"} for message in row)


def _without_train(row: Sequence[Message]) -> list[Message]:
    return [{"role": message["role"], "content": message["content"]} for message in row]


def _check_rules(settings: Settings, chosen: Sequence[Any]) -> None:
    rules = [name for name in ("min_exact_match", "min_rouge_l") if getattr(settings, name) is not None]
    if rules and not chosen:
        reason = "the rows are plain text without questions, or have tools or reasoning"
        fix = f"remove {' and '.join(rules)}"
        if not settings.samples:
            reason, fix = "samples is 0", "increase samples"
        raise BadInput(f"{' and '.join(rules)} cannot be measured: {reason}", fix)


def _measure(
    name: str,
    model: Any,
    tokenizer: Any,
    prepared: Prepared,
    chosen: Sequence[Sequence[Message]],
    ends: list[int],
    settings: Settings,
    *,
    has_previous: bool,
) -> Measurements:
    count, per_model = len(prepared.rows), len(prepared.rows) + len(chosen)
    total = (3 if has_previous else 2) * per_model
    offset = ("base", "adapter", "previous").index(name) * per_model
    done = 0

    def report_batch(size: int) -> None:
        nonlocal done
        done += size
        progress.report(offset + done, total, f"{name}: loss of {done}/{count} rows")

    losses = row_losses(model, prepared.rows, report_batch)
    answers = answer_questions(model, tokenizer, [row[:-1] for row in chosen], ends, settings.max_new_tokens)
    pairs = zip(answers, chosen, strict=True)
    scores = [answer_metrics.score(answer.text, str(row[-1]["content"])) for answer, row in pairs]
    progress.report(offset + per_model, total, f"{name}: {len(answers)} answers")
    return Measurements(losses, answers, scores)


def _losses(models: Models, prepared: Prepared) -> dict[str, float]:
    """Return the mean loss per token by model; only the deployed adapter's can be non-finite.

    Raises:
        BadInput: The loss of the base or the adapter is not finite.
    """
    tokens = sum(row.learned for row in prepared.rows)
    losses = {name: sum(measured.losses) / tokens for name, measured in models.items()}
    for name, label in (("base", "base model"), ("adapter", "adapter")):
        if not math.isfinite(losses[name]):
            raise BadInput(f"the loss of the {label} is not finite", "lower the learning rate, or use method lora")
    return losses


def _gate_measures(
    models: Models, losses: dict[str, float], high: float, scores: Scores | None, prepared: Prepared, rules: GateRules
) -> gate.Measurements:
    pairs = zip(models["base"].losses, models["adapter"].losses, strict=True)
    previous_ratio = losses.get("previous")
    if previous_ratio is not None:
        # Any adapter is better than a deployed one whose loss is not finite.
        previous_ratio = _ratio(losses["adapter"], previous_ratio) if math.isfinite(previous_ratio) else 0.0
    return gate.Measurements(
        loss_ratio=_ratio(losses["adapter"], losses["base"]),
        loss_ratio_high=high,
        regressions=sum(adapter > base for base, adapter in pairs) / len(prepared.rows),
        scores=scores,
        task_scores={name: lm_tasks.score_for_rule(name, models["adapter"].tasks) for name in rules.min_task_scores},
        previous_loss_ratio=previous_ratio,
    )


def _ratio(loss: float, other: float) -> float:
    return loss / other if other else math.inf


def _result(losses: dict[str, float], means: dict[str, Scores | None], reason: str, timer: GpuTimer) -> Result:
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
        load_seconds=timer.step_seconds(LOADING),
        evaluate_seconds=timer.step_seconds(EVALUATING),
        **scores,
    )


def _perplexity(loss: float) -> float:
    return round(math.exp(min(loss, 700.0)), 4)  # exp overflows at 710


def _print_summary(
    result: Result, outcomes: Sequence[gate.Outcome], interval: tuple[float, float], num_answers: int
) -> None:
    previous = "" if result.previous_loss is None else f", deployed adapter {result.previous_loss:.3f}"
    print(
        f"loss {result.base_loss:.3f} -> {result.adapter_loss:.3f}, perplexity {result.base_perplexity:.2f} -> "
        f"{result.adapter_perplexity:.2f}{previous}: {result.verdict}\n"
        f"loss ratio adapter/base: {interval[0]:.0%} to {interval[1]:.0%} ({LEVEL:.0%} confidence interval)"
    )
    if num_answers:
        print(
            f"exact match {result.base_exact_match:.2f} -> {result.adapter_exact_match:.2f}, "
            f"ROUGE-L {result.base_rouge_l:.2f} -> {result.adapter_rouge_l:.2f} ({num_answers} answers)"
        )
    for outcome in outcomes:
        print(f"gate: {outcome}: {'passed' if outcome.ok else 'failed'}")
    sys.stdout.flush()
