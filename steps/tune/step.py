"""Train a LoRA or QLoRA adapter on chat rows, on a GPU or on the processor.

What was trained is never lost: a run that was killed goes on from its last whole checkpoint, and its loss curve is
that of a run that was not disturbed.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from steps.data.dataset import Rows, dataset_folder, read_messages, read_rejected
from steps.data.token_cache import prepare_cached
from steps.evaluate import lm_tasks
from steps.models import sharding
from steps.models.adapter import CONFIG, WEIGHTS, adapter_digest
from steps.models.model import (
    BaseModel,
    attention,
    choose_device,
    describe_device,
    fetch_model,
    load_base,
    load_tokenizer,
    lora_targets,
    prepare_libraries,
)
from steps.runtime import files
from steps.runtime.errors import BadInput, InsufficientCapacity
from steps.runtime.machine import disable_malloc_trim
from steps.tune import (
    batching,
    checkpoints,
    dpo,
    ignored_logits,
    launcher,
    liger,
    lora_init,
    packed_attention,
    shared_batches,
    tracking,
    training_config,
)
from steps.tune.checkpoints import Checkpoint
from steps.tune.launcher import TERMINATED
from steps.tune.oom_backoff import with_oom_backoff
from steps.tune.process_group import ALONE, DistributedContext
from steps.tune.settings import NON_ADAPTER_FIELDS, Result, Settings
from steps.tune.training_callbacks import Checkpointing, TrainingLog, attach
from steps.tune.training_config import TrainingConfig


def tune(given: Settings) -> Result:
    """Train the adapter, or go on from the last checkpoint; a finished training is only written out.

    Raises:
        BadInput: settings, rows or base model can't be used, nothing says where metrics are to go, or the tasks of the
            evaluation can't be asked; the loss is no number any more.
        InsufficientCapacity: the device's memory is too small.
        StepError: the base model can't be had, or was not quantized.
    """
    lm_tasks.check(given.tasks)
    count = launcher.count(given.processes, given.work)
    if count == 1:
        return finish(given, *train(given, ALONE))
    ways = sharding.strategies(given.sharding, shardable=sharding.can_shard(given.quantization_config))
    for way in ways:
        try:
            return launcher.run("steps.tune.worker", given.model_copy(update={"sharding": way}), count, Result)
        except InsufficientCapacity:
            if way == ways[-1] and (given.processes or given.sharding == "full"):
                raise
        if way != ways[-1]:
            print(
                f"warning: a GPU can't hold all of the model; going on with its weights divided among {count} "
                "processes: the same steps",
                flush=True,
            )
    print(
        "warning: a GPU can't hold all of the model; going on in one process, with its layers spread over "
        f"{count} GPUs: the same steps, more slowly",
        flush=True,
    )
    return finish(given, *train(given, DistributedContext(emulated_world_size=count)))


def train(given: Settings, group: DistributedContext) -> tuple[BaseModel, Checkpoint]:
    """Train in this process, alone or as one of a group; gives the base model and the last checkpoint.

    Raises:
        OutOfMemory: it is one of a group, and all must begin anew with fewer rows at a time.
        StepError: as ``tune``.
        SystemExit: 143 after SIGTERM.
    """
    tracking.check(given.report_to)
    train_file = dataset_folder(given) / "train.parquet"
    rows, rejected = read_messages(train_file), read_rejected(train_file)
    dpo.check_data(given.objective, bool(rejected))
    prepare_libraries()
    config = training_config.check(given, lora_targets(given.preset, given.model))
    base = group.on_rank_zero("base", lambda: fetch_model(given.preset, given.model, given.revision))
    device = choose_device()
    fingerprint = group.on_rank_zero("fingerprint", lambda: _fingerprint(given, base, rows))

    def attempt(fitting: TrainingConfig) -> Checkpoint:
        return _train(given, fitting, base, rows, rejected, device, fingerprint, group)

    return base, with_oom_backoff(config, given.method, attempt, group)


def finish(given: Settings, base: BaseModel, kept: Checkpoint) -> Result:
    """Write the adapter of the last checkpoint."""
    _write_adapter(kept, base, given)
    history = kept.history()
    seconds = history[-1]["seconds"]
    return Result(
        adapter_digest=adapter_digest(given.work / "adapter"),
        train_loss=round(sum(entry["loss"] for entry in history) / len(history), 4),
        steps=kept.step,
        device=describe_device(choose_device(), kept.processes),
        tokens_per_second=round(sum(entry["tokens"] for entry in history) / max(seconds, 1e-9), 1),
    )


def outputs_intact(given: Settings, result: Result) -> bool:
    """Whether the adapter of an earlier run is whole."""
    return adapter_digest(given.work / "adapter") == result.adapter_digest


def _fingerprint(given: Settings, base: BaseModel, rows: Rows) -> str:
    """What a checkpoint must have been made with to be of use."""
    values = {name: value for name, value in given.model_dump(by_alias=True).items() if name not in NON_ADAPTER_FIELDS}
    # A whole number that a float was set to is one no more where settings come from another process.
    plain = {name: float(value) if type(value) is int else value for name, value in values.items()}
    content = [plain, base.origin, base.revision, rows.digest]
    return files.sha256_text(json.dumps(content, sort_keys=True, default=str))


def _train(
    given: Settings,
    config: TrainingConfig,
    base: BaseModel,
    rows: Rows,
    rejected: Sequence[Sequence[dict[str, Any]]],
    device: str,
    fingerprint: str,
    group: DistributedContext,
) -> Checkpoint:
    from transformers import PrinterCallback

    kept = group.on_rank_zero("kept", lambda: checkpoints.latest(given.work / "checkpoints", fingerprint))
    if kept and kept.finished:
        return kept
    # As many rows as the steps had before, whatever number of processes took them.
    global_batch_size = (kept and kept.rows) or shared_batches.compute_global_batch_size(
        config.arguments, group.effective_world_size
    )
    config = dataclasses.replace(
        config, arguments=shared_batches.split_batch(config.arguments, global_batch_size, group.size)
    )
    tokenizer = load_tokenizer(base.folder)
    tokenizer.chat_template = config.chat_template or tokenizer.chat_template
    dataset, count = group.on_rank_zero("dataset", lambda: _dataset(tokenizer, rows, rejected, given, config))
    group.init_process_group(device)
    mine = shared_batches.samples_per_rank(len(dataset), config.arguments, global_batch_size, group.size)
    by_rows = attention(device) or packed_attention.register_if_supported(base.folder)
    arguments = training_config.trainer_config(
        config, given.work / "checkpoints", device, mine, padding_free=bool(by_rows)
    )
    arguments.use_liger_kernel = liger.is_enabled(config.arguments.get("use_liger_kernel"), device, base.folder)
    if device == "cpu":
        disable_malloc_trim()
        ignored_logits.skip_ignored_logits()
    gpu = group.rank if group.size > 1 else None
    sharded = group.size > 1 and given.sharding == "full"
    model = load_base(
        base.folder,
        given.method,
        given.quantization_config,
        device,
        dtype=config.dtype,
        gpu=gpu,
        kind=by_rows if batching.is_padding_free(arguments) else "",
        sharded=sharded,
    )
    saving = Checkpointing(fingerprint, global_batch_size, group)
    trainer: Any = _trainer(model, tokenizer, dataset, arguments, config)
    if not kept:
        lora_init.init_adapter(trainer.model, config.lora)
    what = f"{count} {'pairs' if given.objective == 'dpo' else 'rows'}, {global_batch_size} a step"
    _say(trainer, describe_device(device, group.size) + sharded * ", each with a share of the weights", what, kept)
    if sharded:
        sharding.shard(trainer)
    if frozen := lora_init.freeze_second_half(trainer.model, config.lora):
        attach(trainer, frozen)
    shared_batches.shard_sampler(trainer, global_batch_size, len(dataset))
    trainer.remove_callback(PrinterCallback)
    if group.is_rank_zero:
        attach(trainer, TrainingLog(given.work / "report" / "train.jsonl"))
    attach(trainer, saving)
    report_to = given.report_to if group.is_rank_zero else "none"
    with _on_sigterm(saving), tracking.track_training(trainer, report_to, given.run_name, given.work, fingerprint):
        trainer.train(resume_from_checkpoint=str(kept.folder) if kept else None)
    if saving.newest is None or not saving.newest.finished:
        _terminated(saving.newest)
    return saving.newest


def _dataset(
    tokenizer: Any,
    rows: Rows,
    rejected: Sequence[Sequence[dict[str, Any]]],
    given: Settings,
    config: TrainingConfig,
) -> tuple[Any, int]:
    """Rows, or pairs of answers, in tokens; and how many of them are left."""
    if given.objective == "dpo":
        pairs = dpo.pairs(tokenizer, rows, rejected, given.max_length)
        return dpo.dataset(pairs), len(pairs)
    place = given.work / "tokens" / "train"
    prepared = prepare_cached(tokenizer, rows, place, given.max_length, learned=config.loss_scope, keep=config.keep)
    if remark := prepared.remark(len(rows), given.max_length):
        print(remark, flush=True)
    return batching.dataset(prepared.rows, config.arguments), len(prepared.rows)


def _trainer(model: Any, tokenizer: Any, dataset: Any, arguments: Any, config: TrainingConfig) -> Any:
    import torch
    from trl import SFTTrainer

    lora = training_config.lora_config(config, model)
    make: Any = dpo.trainer if config.objective == "dpo" else SFTTrainer
    try:
        trainer: Any = make(
            model=model,
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora,
        )
    except (ValueError, NotImplementedError) as error:
        raise BadInput(f"the training can't be set up: {error}", "change this setting") from None
    if arguments.train_sampling_strategy == batching.GROUPED:
        batching.group_by_length(trainer, batching.lengths(dataset))
    # trl keeps a QLoRA adapter in bfloat16, where small updates are lost, float16 gradients can't be scaled, and PEFT
    # makes it float32 when it is loaded again to resume.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return trainer


def _say(trainer: Any, device: str, rows: str, kept: Checkpoint | None) -> None:
    trained, total = trainer.model.get_nb_trainable_parameters()
    start = f", going on from step {kept.step}" if kept else ""
    if kept and kept.processes != trainer.args.world_size:
        start += f" of {kept.processes} process{'es' if kept.processes > 1 else ''} (dropout draws other numbers now)"
    print(f"training {trained:,} of {total:,} parameters on {rows}, {device}{start}", flush=True)


@contextmanager
def _on_sigterm(saving: Any) -> Iterator[None]:
    """While training, SIGTERM asks for a checkpoint at the end of the step and an end."""

    def stop(*_: object) -> None:
        saving.stop = True

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: who calls from there stops it otherwise
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(checkpoint: Checkpoint | None) -> NoReturn:
    step = f"step {checkpoint.step} is saved" if checkpoint else "nothing was trained yet"
    print(f"stopped by SIGTERM; {step}, and the next start goes on from there", file=sys.stderr, flush=True)
    sys.exit(TERMINATED)


def _write_adapter(checkpoint: Checkpoint, base: BaseModel, given: Settings) -> None:
    """Write the adapter as PEFT reads it, naming its base by repository and commit instead of a place on this disk."""
    config = json.loads((checkpoint.folder / CONFIG).read_text())
    config["base_model_name_or_path"] = base.repository
    config["revision"] = base.revision or None
    config["inference_mode"] = True
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # PEFT writes a set in any order
    with files.replacing_folder(given.work / "adapter") as folder:
        files.write_json(folder / CONFIG, config)
        with files.replacing(folder / WEIGHTS) as weights:
            weights.write((checkpoint.folder / WEIGHTS).read_bytes())
        load_tokenizer(checkpoint.folder).save_pretrained(folder)
        checkpoints.sync(folder)
