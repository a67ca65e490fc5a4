"""Keys of ``trl.SFTConfig`` that are not supported or have no effect.

The tune step and the validation of ``training_config.yaml`` both use this list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

EVALUATE = "the evaluate step compares adapter and base after training"
PROCESSES = "the step starts one process per GPU"
SHARDING = "pipeline.tune.sharding sets how the model is sharded"
HUB = "nothing is pushed to a model hub; the adapter is written to tuning.output"
RESUME = "a run must resume exactly where it stopped"
DATA = "the download step reads and prepares the rows"
NO_CODE = "code from a model repository is not executed"
CURVE = "the loss curve has every step"
PATHS = "the paths of checkpoints, adapter and report are fixed"

UNSUPPORTED: Mapping[str, str] = {
    "eval_packing": EVALUATE,
    "save_only_model": f"{RESUME}, and the optimizer's state would be missing",
    "ignore_data_skip": RESUME,
    "auto_find_batch_size": RESUME,
    "resume_from_checkpoint": "a run finds its last checkpoint automatically",
    "eval_strategy": EVALUATE,
    "eval_steps": EVALUATE,
    "eval_on_start": EVALUATE,
    "load_best_model_at_end": EVALUATE,
    "metric_for_best_model": EVALUATE,
    "push_to_hub": HUB,
    "hub_model_id": HUB,
    "hub_token": "a configuration must not contain a secret",
    "fsdp": SHARDING,
    "deepspeed": SHARDING,
    "parallelism_config": PROCESSES,
    "accelerator_config": PROCESSES,
    "trust_remote_code": NO_CODE,
    "dataset_kwargs": DATA,
    "dataset_text_field": DATA,
    "shuffle_dataset": "pipeline.data sets the shuffling",
    "chat_template_path": "the image does not contain this file",
    "model_init_kwargs": "ModelConfig sets how the model is loaded",
}
"""Keys that are rejected unless their value turns the feature off, and why."""
WITHOUT_EFFECT: Mapping[str, str] = {
    "output_dir": PATHS,
    "logging_strategy": CURVE,
    "logging_steps": CURVE,
    "logging_first_step": CURVE,
    "disable_tqdm": "progress is reported to Argo and the live view",
    "log_level": CURVE,
    "remove_unused_columns": DATA,
    "dataset_num_proc": DATA,
    "do_train": "the tune step always trains",
    "per_device_eval_batch_size": EVALUATE,
    "length_column_name": "the lengths of the rows are known",
}
"""Keys that are accepted without effect, and why."""
GPU_ONLY: Mapping[str, str] = {
    "fp16": "float16 training needs a GPU: accelerate does not scale gradients on a CPU",
    "tf32": "TF32 is a format of GPUs",
    "activation_offloading": "activations are moved from a GPU to main memory",
}
"""Keys that a training on the CPU rejects, and why."""
OFF = (False, None, "no", "none", "")


def is_off(value: Any) -> bool:
    """Return True if a value turns a feature off."""
    return any(type(value) is type(off) and value == off for off in OFF)


def unsupported_keys(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return each key of ``training_arguments`` whose value is not supported, and why."""
    return dict(_unsupported(arguments))


def requires_gpu(arguments: Mapping[str, Any], device: str) -> dict[str, str]:
    """Return each key that is on, but has no meaning on ``device`` (``cuda`` or ``cpu``), and why."""
    if device == "cuda":
        return {}
    return {key: reason for key, reason in GPU_ONLY.items() if arguments.get(key) is True}


def _unsupported(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, reason in UNSUPPORTED.items():
        if key in arguments and not is_off(arguments[key]):
            yield key, f"not supported: {reason}"
    if arguments.get("packing") is True and arguments.get("padding_free") is False:
        yield "padding_free", "packed rows have no padding: remove padding_free"
    if not _is_one_of(arguments.get("save_strategy"), "steps", "epoch"):
        yield "save_strategy", "must be no, steps or epoch"
    if isinstance(limit := arguments.get("save_total_limit"), int) and limit < 2:
        yield "save_total_limit", "must be 2 or more, since a kill can leave the newest checkpoint incomplete"
    if isinstance(steps := arguments.get("save_steps"), float) and steps > 1 and not steps.is_integer():
        yield "save_steps", "must be an integer, or a fraction of all steps below 1"
    if arguments.get("bf16") is True and arguments.get("fp16") is True:
        yield "fp16", "cannot be combined with bf16"
    if not arguments.get("dataloader_num_workers"):
        for key in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
            if not is_off(arguments.get(key)):
                yield key, "requires dataloader_num_workers above 0"


def _is_one_of(value: Any, *allowed: str) -> bool:
    return is_off(value) or value in allowed
