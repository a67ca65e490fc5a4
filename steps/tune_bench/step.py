"""Measure how fast this machine tunes, by short trainings of the tune step itself.

python -m steps.tune_bench --work work --preset smollm2-135m-instruct
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steps.runtime.errors import BadInput
from steps.tune.settings import Settings as TuneSettings
from steps.tune_bench import rows, trial
from steps.tune_bench.settings import Result, Settings, Speed

if TYPE_CHECKING:
    from steps.tune.training_config import TrainingConfig

CPU_TYPES = ("float32", "bfloat16")
GPU_TYPES = ("bfloat16", "float16")
OLD_GPU_TYPES = ("float16", "float32")
"""Below compute capability 8.0, which has no bfloat16."""
PRECISION_ARGUMENTS = ("bf16", "fp16")


def measure_tuning(settings: Settings) -> Result:
    """Train in each dtype for some seconds, in separate processes, and print and return speed and memory.

    Raises:
        BadInput: There are no rows, or a training rejects the settings.
        InsufficientCapacity: The memory is too small.
        StepError: The base model is unavailable, or a training failed.
    """
    from steps.models import compute_dtype
    from steps.models.model import choose_device, describe_device, fetch_model, lora_targets, prepare_libraries
    from steps.tune import training_config

    prepare_libraries()
    config = training_config.check(settings, lora_targets(settings.preset, settings.model))
    base = fetch_model(settings.preset, settings.model, settings.revision)
    device = choose_device()
    dataset = settings.work / "sample" / "train.parquet"
    num_rows = rows.write_rows(settings.work / "dataset" / "train.parquet", dataset, settings.seed)
    tokens_per_row, learned_share = _count_tokens(settings, base.folder, dataset)
    global_batch_size = _global_batch_size(settings, config)
    batch_tokens = round(tokens_per_row * settings.batch_size)
    dtype = config.dtype or compute_dtype.compute_dtype(device, base.folder, batch_tokens)
    probe = str(compute_dtype.measure(base.folder, batch_tokens)) if device == "cpu" else ""
    types = _types(config, device, dtype)
    speeds = []
    for measured in types:
        print(f"training in {measured} for {settings.seconds / len(types):.0f} s", flush=True)
        curve = trial.train_for(_tune_settings(settings, measured, dataset.parent), settings.seconds / len(types))
        speed = _speed(settings, measured, curve, tokens_per_row, global_batch_size)
        print(
            f"{measured}: {speed.tokens_per_second:,.1f} tokens/s, {speed.memory_gib:.2f} GiB, {speed.steps} steps",
            flush=True,
        )
        speeds.append(speed)
    return Result(
        device=describe_device(device),
        dtype=dtype,
        probe=probe,
        speeds=speeds,
        tokens_per_row=round(tokens_per_row, 1),
        rows=round(num_rows * learned_share),
        global_batch_size=global_batch_size,
    )


def _types(config: TrainingConfig, device: str, dtype: str) -> Sequence[str]:
    """Return the dtypes to measure: only the user's if the settings name one or a precision."""
    if config.dtype or any(key in config.arguments for key in PRECISION_ARGUMENTS):
        return (dtype,)
    if device == "cpu":
        return CPU_TYPES
    return GPU_TYPES if dtype == GPU_TYPES[0] else OLD_GPU_TYPES


def _count_tokens(settings: Settings, base: Path, dataset: Path) -> tuple[float, float]:
    """Return the mean tokens of a row, and the share of the rows that have tokens to learn."""
    from steps.data.dataset import read_messages
    from steps.data.token_cache import prepare_cached
    from steps.data.tokenization import Tokenization
    from steps.models.model import load_tokenizer

    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = settings.model_config_.get("chat_template") or tokenizer.chat_template
    messages = read_messages(dataset)
    prepared = prepare_cached(tokenizer, messages, dataset.parent / "tokens", Tokenization.from_settings(settings))
    if not prepared.rows:
        raise BadInput("no row has a token to learn", "check the data with argotune preview")
    return sum(len(row.input_ids) for row in prepared.rows) / len(prepared.rows), len(prepared.rows) / len(messages)


def _global_batch_size(settings: Settings, config: TrainingConfig) -> int:
    from steps.tune import launcher, shared_batches

    return shared_batches.compute_global_batch_size(
        config.arguments, launcher.count(settings.processes, settings.work)
    )


def _tune_settings(settings: Settings, dtype: str, dataset: Path) -> TuneSettings:
    values = settings.model_dump(by_alias=True, exclude={"seconds"})
    config = {key: value for key, value in settings.model_config_.items() if key != "dtype"}
    values |= {"work": settings.work / dtype, "dataset": dataset, "model_config": {**config, "torch_dtype": dtype}}
    return TuneSettings(**values)


def _speed(settings: Settings, dtype: str, curve: trial.Curve, tokens_per_row: float, global_batch_size: int) -> Speed:
    # A step with packing has more rows, and the tokens of pairs are those of both answers.
    num_rows = curve.steps * global_batch_size if settings.objective == "dpo" else curve.tokens / tokens_per_row
    return Speed(
        dtype=dtype,
        tokens_per_second=round(curve.tokens / curve.seconds, 1),
        rows_per_second=round(num_rows / curve.seconds, 4),
        memory_gib=round(curve.memory_gib, 3),
        steps=curve.steps,
    )
