"""The training configuration: flags, and mappings with the keys of KAITO's ``training_config.yaml``.

``training_arguments`` has keys of ``trl.SFTConfig``, ``lora_config`` of ``peft.LoraConfig``, and
``quantization_config`` of ``transformers.BitsAndBytesConfig``. A flag overrides the key of the same meaning.
Unsupported keys are rejected by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from steps.models import sharding
from steps.models.compute_dtype import compute_dtype
from steps.runtime import validation_messages
from steps.runtime.errors import BadInput
from steps.tune import adapted_layers, batching, dpo, lora_init
from steps.tune.adapted_layers import ALL_LINEAR
from steps.tune.unsupported_arguments import NO_CODE, UNSUPPORTED, WITHOUT_EFFECT, unsupported_keys

if TYPE_CHECKING:
    from steps.tune.settings import TrainingOptions

FLAGS = {
    "num_train_epochs": "epochs",
    "max_steps": "max_steps",
    "learning_rate": "learning_rate",
    "per_device_train_batch_size": "batch_size",
    "max_length": "max_length",
    "seed": "seed",
}
MODEL_KEYS = ("torch_dtype", "dtype", "local_files_only", "device_map", "trust_remote_code", "chat_template")
"""PEFT's name for all linear layers except the head."""


@dataclass(frozen=True)
class TrainingConfig:
    """The checked settings of a training."""

    arguments: dict[str, Any]
    """Arguments of ``trl.SFTConfig``, without those that ``trainer_config`` adds."""
    lora: dict[str, Any]
    """Arguments of ``peft.LoraConfig``."""
    dtype: str
    """Dtype of computation, and of weights that are not quantized; empty: the device's fastest."""
    by_epoch: bool
    """Save at the end of each epoch."""
    objective: str = "sft"
    """``sft`` or ``dpo``."""
    beta: float = 0.1
    """Beta of ``dpo``."""
    chat_template: str = ""
    """Jinja template of the rows; empty: the tokenizer's."""


def check(settings: TrainingOptions, preset_targets: Sequence[str]) -> TrainingConfig:
    """Check the mappings and merge them with the flags.

    Raises:
        BadInput: A key is unknown or not supported; the message lists all of them.
    """
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig

    arguments, errors = _parse_numbers(settings.training_arguments, SFTConfig)
    errors += [
        *_unknown("training_arguments", arguments, _fields(SFTConfig)),
        *_unknown("lora_config", settings.lora_config, _fields(LoraConfig)),
        *_unknown("quantization_config", settings.quantization_config, _parameters(BitsAndBytesConfig)),
        *_unknown("model_config", settings.model_config_, MODEL_KEYS),
        *(f"training_arguments.{key}: {reason}" for key, reason in _unsupported_arguments(settings, arguments)),
        *(f"lora_config.{key}: {reason}" for key, reason in lora_init.unsupported_keys(settings.lora_config).items()),
        *_contradictions(settings),
    ]
    if errors:
        raise BadInput("; ".join(errors), "fix these keys of the training configuration")
    if ignored := [key for key in arguments if key in WITHOUT_EFFECT]:
        print(f"ignoring training arguments: {', '.join(ignored)}", flush=True)
    lora = {
        **settings.lora_config,
        "r": settings.rank,
        "lora_alpha": _to_int(settings.alpha),
        "lora_dropout": settings.dropout,
    }
    lora.pop("task_type", None)
    lora["target_modules"] = _targets(settings.target_modules or lora.get("target_modules") or preset_targets)
    return TrainingConfig(
        arguments={
            **{key: value for key, value in arguments.items() if not _is_handled_here(key)},
            **{key: getattr(settings, flag) for key, flag in FLAGS.items()},
        },
        lora=lora,
        dtype=str(settings.model_config_.get("dtype") or settings.model_config_.get("torch_dtype") or ""),
        by_epoch=arguments.get("save_strategy") == "epoch",
        objective=settings.objective,
        beta=settings.beta,
        chat_template=str(settings.model_config_.get("chat_template") or ""),
    )


def trainer_config(config: TrainingConfig, folder: Path, device: str, rows: int, *, padding_free: bool = False) -> Any:
    """Return ``trl.SFTConfig`` or ``trl.DPOConfig``, by the objective.

    Args:
        config: The checked configuration.
        folder: Directory of the checkpoints.
        device: ``cuda`` or ``cpu``.
        rows: Rows that a rank sees in an epoch.
        padding_free: Use padding-free batches unless the user chose otherwise.

    Raises:
        BadInput: The library rejects a value.
    """
    from trl import DPOConfig, SFTConfig

    pairs = config.objective == "dpo"
    arguments = {
        **_default_arguments(config, device, rows, padding_free=padding_free and not pairs),
        **config.arguments,
        **_fixed_arguments(folder, device),
    }
    if pairs:
        # trl turns dropout off by default.
        arguments = {key: value for key, value in arguments.items() if key not in dpo.SFT_ONLY}
        arguments |= {"beta": config.beta, "disable_dropout": not config.lora["lora_dropout"]}
    else:
        arguments["dataset_kwargs"] = {"skip_prepare_dataset": True}
        # Routers are frozen, and trl 1.16 fails for models without experts whose class can have some (Granite 4).
        arguments["router_aux_loss_coef"] = 0.0
    if arguments.get("padding_free") and not arguments.get("packing"):
        arguments["max_length"] = None  # rows are truncated already; trl requires None
    try:
        trainer_arguments = (DPOConfig if pairs else SFTConfig)(**arguments)
    except (TypeError, ValueError) as error:
        raise BadInput(f"training_arguments: {error}", "see the keys of trl's SFTConfig") from None
    trainer_arguments.report_to = []  # transformers adds Kubeflow if its variables are set
    return trainer_arguments


def _default_arguments(config: TrainingConfig, device: str, rows: int, *, padding_free: bool) -> dict[str, Any]:
    """Return the training arguments that the user can override."""
    compute = config.dtype or compute_dtype(device)
    return {
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,  # below 1: a fraction of all steps
        "max_grad_norm": 1.0,
        # A precision that the user chooses turns the default one off.
        "bf16": compute == "bfloat16" and not config.arguments.get("fp16"),
        "fp16": compute == "float16" and device == "cuda" and not config.arguments.get("bf16"),
        "gradient_checkpointing": False,  # steps/tune/oom_backoff.py turns it on if needed
        "dataloader_pin_memory": device == "cuda",
        "ddp_find_unused_parameters": False,  # all adapter weights are used, and the search takes time
        "save_steps": _epoch_steps(config.arguments, rows) if config.by_epoch else 0.1,  # a tenth of all steps
        "save_total_limit": 2,
        **batching.defaults(config.arguments, padding_free=padding_free),
    }


def _fixed_arguments(folder: Path, device: str) -> dict[str, Any]:
    """Return the training arguments that the step sets."""
    return {
        "output_dir": str(folder),
        "use_cpu": device == "cpu",
        "save_strategy": "steps",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a diverged training
        "disable_tqdm": True,
        "report_to": "none",  # steps/tune/tracking.py reports
    }


def lora_config(config: TrainingConfig, model: Any) -> Any:
    """Return PEFT's configuration of an adapter for ``model``.

    Raises:
        BadInput: The library rejects a value, or the model has no such layers.
    """
    from peft import LoraConfig

    lora = lora_init.as_trained(config.lora)
    lora = adapted_layers.select(model, lora)
    try:
        return LoraConfig(**lora, task_type="CAUSAL_LM")
    except (TypeError, ValueError) as error:
        raise BadInput(f"lora_config: {error}", "see the keys of peft's LoraConfig") from None


def _epoch_steps(arguments: Mapping[str, Any], rows: int) -> int:
    batch_size = int(arguments["per_device_train_batch_size"])
    batches = rows // batch_size if arguments.get("dataloader_drop_last") else math.ceil(rows / batch_size)
    return max(1, math.ceil(batches / int(arguments.get("gradient_accumulation_steps", 1))))


def _fields(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _parameters(cls: Any) -> list[str]:
    return [
        *(name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "kwargs")),
        "quant_method",
    ]


def _parse_numbers(values: Mapping[str, Any], cls: Any) -> tuple[dict[str, Any], list[str]]:
    """Parse numbers that YAML reads as strings (``1e-4``) by the type of their field; return values and errors."""
    types = {field.name: field.type for field in dataclasses.fields(cls)}
    simple = {int, float, bool, int | None, float | None, bool | None}
    parsed, errors = dict(values), []
    for key, value in values.items():
        field_type: Any = types.get(key)
        if isinstance(value, str) and field_type in simple:
            try:
                parsed[key] = pydantic.TypeAdapter(field_type).validate_python(value)
            except pydantic.ValidationError as error:
                errors.append(f"training_arguments.{key}: {validation_messages.describe(error.errors()[0])}")
    return parsed, errors


def _unknown(section: str, keys: Iterable[str], known: Sequence[str]) -> list[str]:
    errors = []
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            errors.append(f"{section}.{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
    return errors


def _contradictions(settings: TrainingOptions) -> list[str]:
    errors = []
    if settings.lora_config.get("task_type", "CAUSAL_LM") != "CAUSAL_LM":
        errors.append("lora_config.task_type: must be CAUSAL_LM")
    if settings.model_config_.get("trust_remote_code"):
        errors.append(f"model_config.trust_remote_code: not supported: {NO_CODE}")
    if settings.training_arguments.get("report_to", "none") not in ("none", [], ["none"]):
        errors.append("training_arguments.report_to: use --report-to instead")
    if reason := sharding.unsupported_reason(settings.sharding, settings.quantization_config):
        errors.append(f"sharding full: {reason}")
    quantized = [key for key in ("load_in_4bit", "load_in_8bit") if settings.quantization_config.get(key)]
    if settings.method == "lora" and quantized:
        errors.append(f"quantization_config.{quantized[0]}: method lora does not quantize; use qlora")
    return errors


def _unsupported_arguments(settings: TrainingOptions, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from unsupported_keys(arguments).items()
    if settings.objective == "dpo":
        yield from dpo.unsupported_keys(arguments).items()


def _is_handled_here(key: str) -> bool:
    return key in (*WITHOUT_EFFECT, *UNSUPPORTED, "assistant_only_loss", "completion_only_loss", "truncation_mode")


def _targets(targets: Sequence[str] | str) -> list[str] | str:
    if isinstance(targets, str):
        return targets
    return ALL_LINEAR if not targets or list(targets) == [ALL_LINEAR] else sorted(targets)


def _to_int(number: float) -> float:
    """Return an int if the number is one, since readers of an adapter can expect it."""
    return int(number) if float(number).is_integer() else number
