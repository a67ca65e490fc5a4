"""Train a LoRA or QLoRA adapter on chat rows, on GPUs or on the CPU.

A killed run resumes from its last complete checkpoint, with the loss curve of an undisturbed run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from steps.data.dataset import Rows, dataset_folder, read_messages, read_rejected
from steps.evaluate import lm_tasks
from steps.models import sharding
from steps.models.adapter import CONFIG, WEIGHTS, adapter_digest
from steps.models.model import (
    BaseModel,
    choose_device,
    describe_device,
    fetch_model,
    load_tokenizer,
    lora_targets,
    prepare_libraries,
)
from steps.runtime import files, gpu_time
from steps.runtime.errors import InsufficientCapacity
from steps.runtime.gpu_time import LOADING, TRAINING, GpuTimer
from steps.tune import checkpoints, dpo, launcher, layout, rehearsal, tracking, training, training_config
from steps.tune.checkpoints import Checkpoint
from steps.tune.first_node import FirstNode
from steps.tune.layout import Layout, NodesUnavailable
from steps.tune.node_pods import NodePods
from steps.tune.oom_backoff import with_oom_backoff
from steps.tune.process_group import ALONE, DistributedContext
from steps.tune.settings import NON_ADAPTER_FIELDS, Result, Settings
from steps.tune.training import TrainingInputs


def tune(settings: Settings) -> Result:
    """Train the adapter, or resume from the last checkpoint; after a finished training only write the adapter.

    Raises:
        BadInput: Settings, rows or base model cannot be used, the tracking server is not configured, a task of the
            evaluation cannot run, or the loss is not finite.
        InsufficientCapacity: The device's memory is too small.
        StepError: The base model is unavailable, or was not quantized.
        TimeLimit: The budget is used up.
    """
    lm_tasks.check(settings.tasks)
    _check_settings(settings)
    if layout.is_other_node():
        return _join(settings)
    distribution = launcher.choose_layout(settings.processes, settings.nodes, settings.work)
    if distribution.world_size == 1:
        return train_and_finish(settings, ALONE)
    return _tune_distributed(settings, distribution)


def _join(settings: Settings) -> Result:
    """Train as another node than the first, which has started this pod."""
    processes = launcher.count(settings.processes, settings.work)
    distribution = layout.from_environment(processes, settings.nodes)
    oom_retries = int(os.environ[layout.OOM_RETRIES])
    return launcher.run(
        "steps.tune.worker", settings, distribution, Result, FirstNode(distribution), oom_retries=oom_retries
    )


def train_and_finish(settings: Settings, group: DistributedContext) -> Result:
    """Train alone or as rank 0 of a group, write the adapter, and record the time of both.

    Raises:
        StepError: As ``tune``.
    """
    with gpu_time.measure(settings.work, "tune", settings.budget_hours, _execution(settings)) as timer:
        base, checkpoint = train(settings, group, timer)
        return _finish(settings, base, checkpoint, timer)


def _check_settings(settings: Settings) -> None:
    """Reject settings that a library rejects, before anything is downloaded."""
    prepare_libraries()
    targets = lora_targets(settings.preset, settings.model)
    training_config.check(settings, targets)
    device = choose_device()
    changed = settings.training_arguments or settings.lora_config or settings.quantization_config
    # With a GPU, this process would hold memory of it while others train; there the dryrun step has checked.
    errors = rehearsal.find_errors(settings, device, targets) if changed and device == "cpu" else []
    if errors:
        raise rehearsal.as_bad_input(errors)


def _tune_distributed(settings: Settings, distribution: Layout) -> Result:
    """Train in several processes, sharded if one GPU cannot hold the base; else in one process over all GPUs."""
    num_processes, nodes = distribution.processes, distribution.nodes
    can_shard = sharding.can_shard(settings.quantization_config) and num_processes > 1
    strategies = sharding.strategies(settings.sharding, shardable=can_shard)
    for strategy in strategies:
        sharded = settings.model_copy(update={"sharding": strategy})
        others = NodePods(sharded, distribution) if distribution.node is not None else None
        try:
            return launcher.run(
                "steps.tune.worker", sharded, distribution, Result, others, restarts=settings.preemptions
            )
        except NodesUnavailable:
            raise
        except InsufficientCapacity:
            if strategy == strategies[-1] and (settings.processes or settings.sharding == "full" or nodes > 1):
                raise
        fallback = f"sharding its weights among {num_processes} processes (same training steps)"
        if strategy == strategies[-1]:
            fallback = f"spreading its layers over {num_processes} GPUs in one process (same training steps, slower)"
        print(f"warning: the model does not fit one GPU; {fallback}", flush=True)
    return train_and_finish(settings, DistributedContext(emulated_world_size=num_processes))


def train(
    settings: Settings, group: DistributedContext, timer: GpuTimer | None = None
) -> tuple[BaseModel, Checkpoint]:
    """Train in this process, alone or as one rank of a group, and return the base model and the final checkpoint.

    Rank 0 has the timer, which ends the training of all ranks when the budget is used up.

    Raises:
        OutOfMemory: A rank of a group is out of memory; all ranks must restart with smaller batches.
        StepError: As ``tune``.
        SystemExit: 143 after SIGTERM.
    """
    tracking.check(settings.report_to)
    rows, rejected = _read_rows(settings) if group.node == 0 else (None, ())
    prepare_libraries()
    config = training_config.check(settings, lora_targets(settings.preset, settings.model))
    base = _fetch_base(settings, group)
    fingerprint = group.on_rank_zero("fingerprint", lambda: _fingerprint(settings, base, rows))
    inputs = TrainingInputs(base, rows, rejected, choose_device(), fingerprint, timer)
    return base, with_oom_backoff(
        config, settings.method, lambda smaller: training.run(settings, smaller, inputs, group), group
    )


def _execution(settings: Settings) -> str:
    """Return a digest that all attempts share, on any number of processes; rungs of a search have different ones."""
    return files.sha256_text(settings.model_dump_json(by_alias=True, exclude=NON_ADAPTER_FIELDS - {"stop_after"}))


def _read_rows(settings: Settings) -> tuple[Rows, Sequence[Sequence[dict[str, Any]]]]:
    """Return the rows, and the rejected answers of pairs.

    Raises:
        BadInput: There are no rows, or not those of the objective.
    """
    train_file = dataset_folder(settings) / "train.parquet"
    rows, rejected = read_messages(train_file), read_rejected(train_file)
    dpo.check_data(settings.objective, bool(rejected))
    return rows, rejected


def _fetch_base(settings: Settings, group: DistributedContext) -> BaseModel:
    """Fetch the base model once per node, at the same time, and return it; all nodes get the same commit."""

    def fetch(revision: str) -> BaseModel:
        return fetch_model(settings.preset, settings.model, revision)

    base = group.on_each_node("base", lambda: fetch(settings.revision))
    if group.nodes == 1:
        return base
    commit = group.on_rank_zero("commit", lambda: base.revision)
    # A branch can move between the requests of two nodes.
    return base if base.revision == commit else group.on_each_node("same base", lambda: fetch(commit))


def _finish(settings: Settings, base: BaseModel, checkpoint: Checkpoint, timer: GpuTimer) -> Result:
    """Write the adapter of the final checkpoint and return the training's metrics."""
    _write_adapter(checkpoint, base, settings)
    history = checkpoint.history()
    seconds = history[-1]["seconds"]
    return Result(
        adapter_digest=adapter_digest(settings.work / "adapter"),
        train_loss=round(sum(entry["loss"] for entry in history) / len(history), 4),
        steps=checkpoint.step,
        device=describe_device(choose_device(), checkpoint.processes),
        tokens_per_second=round(sum(entry["tokens"] for entry in history) / max(seconds, 1e-9), 1),
        load_seconds=timer.step_seconds(LOADING),
        train_seconds=timer.step_seconds(TRAINING),
    )


def outputs_intact(settings: Settings, result: Result) -> bool:
    """Return True if the adapter of an earlier run is unchanged."""
    return adapter_digest(settings.work / "adapter") == result.adapter_digest


def _fingerprint(settings: Settings, base: BaseModel, rows: Rows | None) -> str:
    """Return a digest of everything that a checkpoint must have been created with to be resumed."""
    assert rows is not None
    fields = settings.model_dump(by_alias=True)
    values = {name: value for name, value in fields.items() if name not in NON_ADAPTER_FIELDS}
    # Settings from another process have 1.0 where these have 1.
    normalized = {name: float(value) if type(value) is int else value for name, value in values.items()}
    content = [normalized, base.origin, base.revision, rows.digest]
    return files.sha256_text(json.dumps(content, sort_keys=True, default=str))


def _write_adapter(checkpoint: Checkpoint, base: BaseModel, settings: Settings) -> None:
    """Write the adapter in PEFT's format; its base is a repository and commit instead of a local path."""
    config = json.loads((checkpoint.folder / CONFIG).read_text())
    config["base_model_name_or_path"] = base.repository
    config["revision"] = base.revision or None
    config["inference_mode"] = True
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # PEFT writes a set in arbitrary order
    with files.replacing_folder(settings.work / "adapter") as folder:
        files.write_json(folder / CONFIG, config)
        with files.replacing(folder / WEIGHTS) as weights:
            weights.write((checkpoint.folder / WEIGHTS).read_bytes())
        load_tokenizer(checkpoint.folder).save_pretrained(folder)
        checkpoints.sync(folder)
