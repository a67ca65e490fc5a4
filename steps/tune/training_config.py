"""What the user set for training: flags, and maps with the keys of KAITO's ``training_config.yaml``.

The keys of ``training_arguments`` are those of ``trl.SFTConfig``, of ``lora_config`` those of ``peft.LoraConfig``, of
``quantization_config`` those of ``transformers.BitsAndBytesConfig``. A flag wins over the map's key of the same
meaning. Keys that this step can't honour are refused by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from steps.data.chat_tokens import Learned
from steps.models import sharding
from steps.models.model import compute_dtype
from steps.runtime.errors import BadInput
from steps.tune import batching, dpo, lora_init
from steps.tune.unsupported_arguments import NO_CODE, UNSUPPORTED, WITHOUT_EFFECT, unsupported_keys

if TYPE_CHECKING:
    from steps.tune.settings import Settings as TuneSettings

FLAGS = {
    "num_train_epochs": "epochs",
    "max_steps": "max_steps",
    "learning_rate": "learning_rate",
    "per_device_train_batch_size": "batch_size",
    "max_length": "max_length",
    "seed": "seed",
}
MODEL_KEYS = ("torch_dtype", "dtype", "local_files_only", "device_map", "trust_remote_code", "chat_template")
ALL_LINEAR = "all-linear"
"""PEFT's word for each linear layer but the head."""


@dataclass(frozen=True)
class TrainingConfig:
    """The checked settings of a training."""

    arguments: dict[str, Any]
    """Of ``trl.SFTConfig``, less what ``trainer_config`` adds."""
    lora: dict[str, Any]
    """Of ``peft.LoraConfig``."""
    dtype: str
    """Of what is not quantized; empty: what suits the device."""
    loss_scope: Learned
    keep: str
    """Which end of a row that is too long is kept: ``keep_start`` or ``keep_end``."""
    by_epoch: bool
    """Save at the end of each epoch."""
    objective: str = "sft"
    """``sft``, or ``dpo``."""
    beta: float = 0.1
    """Of ``dpo``."""
    chat_template: str = ""
    """Jinja text that renders the rows; empty: the tokenizer's own."""


def check(given: TuneSettings, preset_targets: Sequence[str]) -> TrainingConfig:
    """Check the maps and merge them with the flags.

    Raises:
        BadInput: with every key that is unknown or can't be honoured.
    """
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig

    arguments, wrong = _typed(given.training_arguments, SFTConfig)
    wrong += [
        *_unknown("training_arguments", arguments, _fields(SFTConfig)),
        *_unknown("lora_config", given.lora_config, _fields(LoraConfig)),
        *_unknown("quantization_config", given.quantization_config, _parameters(BitsAndBytesConfig)),
        *_unknown("model_config", given.model_config_, MODEL_KEYS),
        *(f"training_arguments.{key}: {why}" for key, why in unsupported_keys(arguments).items()),
        *(f"training_arguments.{key}: {why}" for key, why in _of_pairs(given, arguments).items()),
        *(f"lora_config.{key}: {why}" for key, why in lora_init.unsupported_keys(given.lora_config).items()),
        *_contradictions(given),
    ]
    if wrong:
        raise BadInput("; ".join(wrong), "correct these keys of the training configuration")
    if idle := [key for key in arguments if key in WITHOUT_EFFECT]:
        print(f"without effect here: {', '.join(idle)}", flush=True)
    lora = {**given.lora_config, "r": given.rank, "lora_alpha": _plain(given.alpha), "lora_dropout": given.dropout}
    lora.pop("task_type", None)
    lora["target_modules"] = _targets(given.target_modules or lora.get("target_modules") or preset_targets)
    return TrainingConfig(
        arguments={
            **{key: value for key, value in arguments.items() if not _is_ours(key)},
            **{key: getattr(given, flag) for key, flag in FLAGS.items()},
        },
        lora=lora,
        dtype=str(given.model_config_.get("dtype") or given.model_config_.get("torch_dtype") or ""),
        loss_scope=loss_scope(arguments),
        keep=arguments.get("truncation_mode", "keep_start"),
        by_epoch=arguments.get("save_strategy") == "epoch",
        objective=given.objective,
        beta=given.beta,
        chat_template=str(given.model_config_.get("chat_template") or ""),
    )


def trainer_config(config: TrainingConfig, folder: Path, device: str, rows: int, *, padding_free: bool = False) -> Any:
    """The trainer's configuration, of the library's class for the objective; checkpoints go to ``folder``.

    ``padding_free`` is chosen, where it can be and the user chose nothing else.

    Raises:
        BadInput: a value that the library refuses.
    """
    from trl import DPOConfig, SFTConfig

    compute = compute_dtype(device)
    pairs = config.objective == "dpo"
    defaults: dict[str, Any] = {
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,  # below 1: a share of all steps
        "max_grad_norm": 1.0,
        "bf16": compute == "bfloat16" and config.dtype != "float32",
        "fp16": compute == "float16" and config.dtype != "float32",
        "gradient_checkpointing": False,  # until memory asks for it: steps/tune/oom_backoff.py
        "dataloader_pin_memory": device == "cuda",
        "ddp_find_unused_parameters": False,  # an adapter is used as a whole, and looking for parts takes time
        "save_steps": _epoch_steps(config.arguments, rows) if config.by_epoch else 0.1,  # a tenth of all steps
        "save_total_limit": 2,
        **batching.defaults(config.arguments, padding_free=padding_free and not pairs),
    }
    fixed = {
        "output_dir": str(folder),
        "use_cpu": device == "cpu",
        "save_strategy": "steps",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a training that has gone wrong
        "disable_tqdm": True,
        "report_to": "none",  # steps/tune/tracking.py sends what is asked for
        **({} if pairs else {"dataset_kwargs": {"skip_prepare_dataset": True}}),
    }
    whole = {**defaults, **config.arguments, **fixed}
    if pairs:
        # trl switches dropout off unless told otherwise; here it is as it was set.
        whole = {key: value for key, value in whole.items() if key not in dpo.SFT_ONLY}
        whole |= {"beta": config.beta, "disable_dropout": not config.lora["lora_dropout"]}
    if whole.get("padding_free") and not whole.get("packing"):
        whole["max_length"] = None  # rows are cut already; trl wants it said
    try:
        made = (DPOConfig if pairs else SFTConfig)(**whole)
    except (TypeError, ValueError) as error:
        raise BadInput(f"training_arguments: {error}", "see the keys of trl's SFTConfig") from None
    made.report_to = []  # where Kubeflow's variables are set, transformers would tell it unasked
    return made


def lora_config(config: TrainingConfig, model: Any) -> Any:
    """PEFT's configuration of an adapter of ``model``.

    Raises:
        BadInput: a value that the library refuses, or layers that the model doesn't have.
    """
    from peft import LoraConfig

    lora = lora_init.as_trained(config.lora)
    targets = target_modules(model, lora["target_modules"])
    try:
        return LoraConfig(**{**lora, "target_modules": targets}, task_type="CAUSAL_LM")
    except (TypeError, ValueError) as error:
        raise BadInput(f"lora_config: {error}", "see the keys of peft's LoraConfig") from None


def target_modules(model: Any, wanted: Sequence[str] | str) -> list[str] | str:
    """Layers that get an adapter, by the names that PEFT and vLLM match with the ends of the layers' full names.

    Raises:
        BadInput: with those names that no linear layer has, and the names there are.
    """
    import torch

    head = model.get_output_embeddings()
    # Quantized layers are of subclasses of torch's.
    linear = [n for n, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and layer is not head]
    there = sorted({name.rpartition(".")[2] for name in linear})
    if wanted == ALL_LINEAR:
        return there
    if isinstance(wanted, str):
        return wanted  # a regular expression: PEFT says whether it matches
    if missing := [name for name in wanted if not any(f".{layer}".endswith(f".{name}") for layer in linear)]:
        raise BadInput(
            f"target_modules: no layer is named {', '.join(missing)}",
            f"the model's linear layers: {', '.join(there)}; or {ALL_LINEAR} for all of them",
        )
    return list(wanted)


def _epoch_steps(arguments: Mapping[str, Any], rows: int) -> int:
    batch = int(arguments["per_device_train_batch_size"])
    batches = rows // batch if arguments.get("dataloader_drop_last") else math.ceil(rows / batch)
    return max(1, math.ceil(batches / int(arguments.get("gradient_accumulation_steps", 1))))


def _fields(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _parameters(cls: Any) -> list[str]:
    return [
        *(name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "kwargs")),
        "quant_method",
    ]


def _typed(values: Mapping[str, Any], cls: Any) -> tuple[dict[str, Any], list[str]]:
    """Read numbers that YAML took for text (``1e-4``) by the type of their field."""
    kinds = {field.name: field.type for field in dataclasses.fields(cls)}
    simple = {int, float, bool, int | None, float | None, bool | None}
    typed, wrong = dict(values), []
    for key, value in values.items():
        kind: Any = kinds.get(key)
        if isinstance(value, str) and kind in simple:
            try:
                typed[key] = pydantic.TypeAdapter(kind).validate_python(value)
            except pydantic.ValidationError as error:
                wrong.append(f"training_arguments.{key}: {error.errors()[0]['msg']}")
    return typed, wrong


def _unknown(where: str, keys: Iterable[str], known: Sequence[str]) -> list[str]:
    wrong = []
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            wrong.append(f"{where}.{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
    return wrong


def _contradictions(given: TuneSettings) -> list[str]:
    wrong = []
    if given.lora_config.get("task_type", "CAUSAL_LM") != "CAUSAL_LM":
        wrong.append("lora_config.task_type: must be CAUSAL_LM")
    if given.model_config_.get("trust_remote_code"):
        wrong.append(f"model_config.trust_remote_code: not honoured: {NO_CODE}")
    if given.training_arguments.get("report_to", "none") not in ("none", [], ["none"]):
        wrong.append("training_arguments.report_to: has a flag of its own: --report-to")
    if why := sharding.unsupported_reason(given.sharding, given.quantization_config):
        wrong.append(f"sharding full: {why}")
    quantized = [key for key in ("load_in_4bit", "load_in_8bit") if given.quantization_config.get(key)]
    if given.method == "lora" and quantized:
        wrong.append(f"quantization_config.{quantized[0]}: method lora does not quantize; write qlora")
    return wrong


def _of_pairs(given: TuneSettings, arguments: Mapping[str, Any]) -> dict[str, str]:
    return dpo.unsupported_keys(arguments) if given.objective == "dpo" else {}


def _is_ours(key: str) -> bool:
    return key in (*WITHOUT_EFFECT, *UNSUPPORTED, "assistant_only_loss", "completion_only_loss", "truncation_mode")


def loss_scope(arguments: Mapping[str, Any]) -> Learned:
    """Which tokens the training arguments ask to learn from."""
    if arguments.get("completion_only_loss"):
        return "last"
    return "all" if arguments.get("assistant_only_loss") is False else "assistant"


def _targets(wanted: Sequence[str] | str) -> list[str] | str:
    if isinstance(wanted, str):
        return wanted
    return ALL_LINEAR if not wanted or list(wanted) == [ALL_LINEAR] else sorted(wanted)


def _plain(number: float) -> float:
    """A whole number as such: what reads an adapter may expect one."""
    return int(number) if float(number).is_integer() else number
