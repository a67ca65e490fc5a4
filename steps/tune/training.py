"""One attempt at a training: set up dataset, model and trainer, then train until finished or stopped."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from steps.data.dataset import Rows
from steps.data.token_cache import prepare_cached
from steps.data.tokenization import Tokenization
from steps.models import sharding
from steps.models.compute_dtype import compute_dtype, describe_compute
from steps.models.model import BaseModel, attention, describe_device, load_base, load_tokenizer
from steps.runtime.errors import BadInput
from steps.runtime.gpu_time import GpuTimer
from steps.runtime.machine import disable_malloc_trim
from steps.tune import (
    batching,
    checkpoints,
    dpo,
    fused_lora,
    ignored_logits,
    liger,
    lora_init,
    packed_attention,
    shared_batches,
    tracking,
    training_config,
)
from steps.tune.checkpoints import Checkpoint
from steps.tune.fused_lora import GIB
from steps.tune.launcher import TERMINATED
from steps.tune.process_group import DistributedContext
from steps.tune.settings import Settings
from steps.tune.training_callbacks import Checkpointing, TrainingLog, attach
from steps.tune.training_config import TrainingConfig


@dataclass(frozen=True)
class TrainingInputs:
    """Inputs that all attempts at a training share."""

    base: BaseModel
    rows: Rows | None
    """None on other nodes than the first, which do not have the rows."""
    rejected: Sequence[Sequence[dict[str, Any]]]
    """Rejected answers of pairs; empty for sft."""
    device: str
    fingerprint: str
    """Identifies the training that a checkpoint belongs to."""
    timer: GpuTimer | None = None
    """Records the time and knows the budget; None on ranks other than 0."""


def run(settings: Settings, config: TrainingConfig, inputs: TrainingInputs, group: DistributedContext) -> Checkpoint:
    """Train to the end or to ``stop_after``, from the last checkpoint if there is one, and return the last checkpoint.

    Raises:
        BadInput: A library rejects the settings, or the loss is not finite.
        SystemExit: 143 after SIGTERM.
        TimeLimit: The budget is used up; a checkpoint is saved.
    """
    checkpoint = group.on_rank_zero(
        "checkpoint", lambda: checkpoints.latest(settings.work / "checkpoints", inputs.fingerprint)
    )
    if checkpoint and checkpoint.has_reached(settings.stop_after):
        return checkpoint
    if checkpoint and group.is_rank_zero:
        checkpoint.report_progress()
    # A resumed training keeps its global batch size, even with another number of processes.
    global_batch_size = (checkpoint and checkpoint.rows) or shared_batches.compute_global_batch_size(
        config.arguments, group.effective_world_size
    )
    arguments = shared_batches.split_batch(config.arguments, global_batch_size, group.size)
    config = dataclasses.replace(config, arguments=arguments)
    tokenizer = load_tokenizer(inputs.base.folder)
    tokenizer.chat_template = config.chat_template or tokenizer.chat_template
    dataset, num_rows = _share_dataset(group, lambda: _prepare_dataset(tokenizer, inputs, settings, config))
    tokens = batching.tokens_per_batch(dataset, config.arguments)
    dtype = config.dtype or (checkpoint and checkpoint.dtype) or _fastest_dtype(inputs, tokens, group)
    config = dataclasses.replace(config, dtype=dtype)
    if checkpoint:
        local = settings.work / "checkpoints" / checkpoint.folder.name
        local = group.copy_to_nodes("resumed checkpoint", checkpoint.folder, local)
        checkpoint = dataclasses.replace(checkpoint, folder=local)
    group.init_process_group(inputs.device)
    sharded = group.processes_per_node > 1 and settings.sharding == "full"
    num_samples = shared_batches.samples_per_rank(len(dataset), config.arguments, global_batch_size, group.size)
    trainer = _create_trainer(settings, config, inputs, group, tokenizer, dataset, num_samples, sharded)
    if not checkpoint:
        lora_init.init_adapter(trainer.model, config.lora)
    data = f"{num_rows} {'pairs' if settings.objective == 'dpo' else 'rows'}, global batch size {global_batch_size}"
    nodes = f"{group.nodes} nodes, " if group.nodes > 1 else ""
    device = nodes + describe_device(inputs.device, group.size) + (", sharded base weights" if sharded else "")
    if group.is_rank_zero:  # it measures the processor
        print(describe_compute(inputs.device, inputs.base.folder, dtype, tokens), flush=True)
    _log_start(trainer, f"{data}, {device}", checkpoint)
    if sharded:
        sharding.shard(trainer, group.nodes)
    shared_batches.shard_sampler(trainer, global_batch_size, len(dataset))
    _attach_callbacks(trainer, settings, config, group)
    checkpointing = Checkpointing(
        inputs.fingerprint, global_batch_size, dtype, group, inputs.timer, settings.stop_after
    )
    attach(trainer, checkpointing)
    report_to = settings.report_to if group.is_rank_zero else "none"
    with (
        _stop_on_sigterm(checkpointing),
        tracking.track_training(trainer, report_to, settings.run_name, settings.work, inputs.fingerprint),
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    if checkpointing.latest is None or not checkpointing.latest.has_reached(settings.stop_after):
        if inputs.timer:
            inputs.timer.check_budget(f"step {trainer.state.global_step} of {trainer.state.max_steps} is saved")
        _exit_terminated(checkpointing.latest)
    return checkpointing.latest


def _fastest_dtype(inputs: TrainingInputs, tokens: int, group: DistributedContext) -> str:
    return group.on_rank_zero("compute dtype", lambda: compute_dtype(inputs.device, inputs.base.folder, tokens))


def _attach_callbacks(trainer: Any, settings: Settings, config: TrainingConfig, group: DistributedContext) -> None:
    from transformers import PrinterCallback

    if frozen := lora_init.freeze_second_half(trainer.model, config.lora):
        attach(trainer, frozen)
    trainer.remove_callback(PrinterCallback)
    if group.is_rank_zero:
        attach(trainer, TrainingLog(settings.work / "report" / "train.jsonl"))


def _share_dataset(group: DistributedContext, prepare: Callable[[], tuple[Any, int]]) -> tuple[Any, int]:
    """Return the dataset that rank 0 prepares, and its number of rows; other nodes get a copy of its files."""
    if group.nodes == 1 or group.folder is None:
        return group.on_rank_zero("dataset", prepare)
    from datasets import load_from_disk

    folder = group.folder / "dataset"

    def prepare_and_save() -> int:
        dataset, num_rows = prepare()
        dataset.save_to_disk(folder)
        return num_rows

    num_rows = group.on_rank_zero("dataset", prepare_and_save)
    copy = group.copy_to_nodes("dataset files", folder, group.folder / f"dataset-{group.node}")
    return load_from_disk(copy), num_rows


def _prepare_dataset(
    tokenizer: Any, inputs: TrainingInputs, settings: Settings, config: TrainingConfig
) -> tuple[Any, int]:
    """Return the tokenized rows, or pairs of answers, and their number."""
    assert inputs.rows is not None
    if settings.objective == "dpo":
        pairs = dpo.pairs(tokenizer, inputs.rows, inputs.rejected, settings.max_length)
        return dpo.dataset(pairs), len(pairs)
    cache = settings.work / "tokens" / "train"
    prepared = prepare_cached(tokenizer, inputs.rows, cache, Tokenization.from_settings(settings))
    for warning in prepared.warnings(len(inputs.rows), settings.max_length):
        print(warning, flush=True)
    return batching.dataset(prepared.rows, config.arguments), len(prepared.rows)


def _create_trainer(
    settings: Settings,
    config: TrainingConfig,
    inputs: TrainingInputs,
    group: DistributedContext,
    tokenizer: Any,
    dataset: Any,
    num_samples: int,
    sharded: bool,
) -> Any:
    """Load the base model and return the library's trainer with a new adapter on it."""
    base, device = inputs.base.folder, inputs.device
    row_attention = attention(device) or packed_attention.register_if_supported(base)
    arguments = training_config.trainer_config(
        config, settings.work / "checkpoints", device, num_samples, padding_free=bool(row_attention)
    )
    arguments.use_liger_kernel = liger.is_enabled(config.arguments.get("use_liger_kernel"), device, base)
    if device == "cpu":
        disable_malloc_trim()
        ignored_logits.skip_ignored_logits()
    model = load_base(
        base,
        settings.method,
        settings.quantization_config,
        device,
        dtype=config.dtype,
        gpu=group.local_rank if group.size > 1 else None,
        attn_implementation=row_attention if batching.is_padding_free(arguments) else "",
        sharded=sharded,
    )
    trainer = new_trainer(model, tokenizer, dataset, arguments, config)
    if device == "cpu" and not sharded:
        layers, kept = fused_lora.fuse(trainer.model)
        print(f"fused: {layers} layers with an adapter, {kept / GIB:.2f} GiB of dequantized weights kept", flush=True)
    return trainer


def new_trainer(model: Any, tokenizer: Any, dataset: Any, arguments: Any, config: TrainingConfig) -> Any:
    """Return the trainer of an objective, with an adapter in float32.

    Raises:
        BadInput: A library rejects an argument.
    """
    import torch
    from trl import SFTTrainer

    lora = training_config.lora_config(config, model)
    trainer_class: Any = dpo.trainer if config.objective == "dpo" else SFTTrainer
    try:
        trainer: Any = trainer_class(
            model=model,
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora,
        )
    except (ValueError, NotImplementedError) as error:
        raise BadInput(f"training_arguments: {error}", "change this training argument") from None
    if arguments.train_sampling_strategy == batching.GROUPED:
        batching.group_by_length(trainer, batching.lengths(dataset))
    # trl keeps a QLoRA adapter in bfloat16, which loses small updates and cannot scale float16 gradients, and PEFT
    # loads it in float32 to resume.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return trainer


def _log_start(trainer: Any, data: str, checkpoint: Checkpoint | None) -> None:
    trained, total = trainer.model.get_nb_trainable_parameters()
    start = f", resuming from step {checkpoint.step}" if checkpoint else ""
    if checkpoint and checkpoint.processes != trainer.args.world_size:
        plural = "es" if checkpoint.processes > 1 else ""
        start += f" of {checkpoint.processes} process{plural} (with other random numbers for dropout)"
    print(f"training {trained:,} of {total:,} parameters on {data}{start}", flush=True)


@contextmanager
def _stop_on_sigterm(checkpointing: Checkpointing) -> Iterator[None]:
    """On SIGTERM, save a checkpoint at the end of the step and stop."""

    def stop(*_: object) -> None:
        checkpointing.stop = True

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, whose caller stops it in another way
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit_terminated(checkpoint: Checkpoint | None) -> NoReturn:
    state = f"saved step {checkpoint.step}, from which the next start resumes" if checkpoint else "no step was saved"
    print(f"stopped by SIGTERM: {state}", file=sys.stderr, flush=True)
    sys.exit(TERMINATED)
