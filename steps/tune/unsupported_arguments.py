"""Which keys of ``trl.SFTConfig`` a training can't honour, and which change nothing: the one list of them.

The tune step refuses by it, and so does whoever reads a ``training_config.yaml`` before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

EVALUATE = "the evaluate step compares adapter and base after training"
PROCESSES = "the step starts its processes itself, one for each GPU"
SHARDING = "pipeline.tune.sharding says how the processes hold the model"
HUB = "nothing is pushed to a model hub; the adapter goes to tuning.output"
RESUME = "a run must go on from its checkpoint exactly where it stopped"
DATA = "the download step finds, reads and prepares the rows"
NO_CODE = "code from a model repository is not run"
CURVE = "the loss curve has every step"
PLACES = "checkpoints, adapter and report have their places on the run's volume"

UNSUPPORTED: Mapping[str, str] = {
    "eval_packing": EVALUATE,
    "save_only_model": f"{RESUME}, and the optimizer's state would be missing",
    "ignore_data_skip": RESUME,
    "auto_find_batch_size": RESUME,
    "resume_from_checkpoint": "a run finds its own last checkpoint",
    "eval_strategy": EVALUATE,
    "eval_steps": EVALUATE,
    "eval_on_start": EVALUATE,
    "load_best_model_at_end": EVALUATE,
    "metric_for_best_model": EVALUATE,
    "push_to_hub": HUB,
    "hub_model_id": HUB,
    "hub_token": "a secret must not stand in a configuration",
    "fsdp": SHARDING,
    "deepspeed": SHARDING,
    "parallelism_config": PROCESSES,
    "accelerator_config": PROCESSES,
    "trust_remote_code": NO_CODE,
    "dataset_kwargs": DATA,
    "dataset_text_field": DATA,
    "shuffle_dataset": "the data has settings of its own",
    "chat_template_path": "it names a file that is not in the image",
    "model_init_kwargs": "the model has settings of its own",
}
"""Keys that are refused, unless their value says that the thing is off."""
WITHOUT_EFFECT: Mapping[str, str] = {
    "output_dir": PLACES,
    "logging_strategy": CURVE,
    "logging_steps": CURVE,
    "logging_first_step": CURVE,
    "disable_tqdm": "progress goes to Argo and the live view",
    "log_level": CURVE,
    "remove_unused_columns": DATA,
    "dataset_num_proc": DATA,
    "do_train": "tuning is what trains",
    "per_device_eval_batch_size": EVALUATE,
    "length_column_name": "the lengths of the rows are known",
}
"""Keys that are taken, and change nothing."""
OFF = (False, None, "no", "none", "")


def is_off(value: Any) -> bool:
    """Whether a value says that something is not asked for."""
    return any(type(value) is type(off) and value == off for off in OFF)


def unsupported_keys(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Each key of ``training_arguments`` that can't be honoured as it is set, and why."""
    return dict(_unsupported(arguments))


def _unsupported(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, why in UNSUPPORTED.items():
        if key in arguments and not is_off(arguments[key]):
            yield key, f"not honoured: {why}"
    if arguments.get("packing") is True and arguments.get("padding_free") is False:
        yield "padding_free", "packed rows have no padding: leave padding_free out"
    if not _is_one_of(arguments.get("save_strategy"), "steps", "epoch"):
        yield "save_strategy", "must be no, steps or epoch"
    if isinstance(kept := arguments.get("save_total_limit"), int) and kept < 2:
        yield "save_total_limit", "must be 2 or more, for a kill may spoil the newest checkpoint"
    if isinstance(steps := arguments.get("save_steps"), float) and steps > 1 and not steps.is_integer():
        yield "save_steps", "must be a whole number, or a share of all steps below 1"
    if arguments.get("bf16") is True and arguments.get("fp16") is True:
        yield "fp16", "at most one of bf16 and fp16 can be true"
    if not arguments.get("dataloader_num_workers"):
        for key in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
            if not is_off(arguments.get(key)):
                yield key, "needs dataloader_num_workers above 0"


def _is_one_of(value: Any, *allowed: str) -> bool:
    return is_off(value) or value in allowed
