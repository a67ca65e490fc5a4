"""All keys of KAITO's ``training_config.yaml`` by section: the type, or the reason why it is not supported.

The keys are those of the classes that KAITO parses the sections into: its ``ModelConfig`` and ``DatasetConfig``
(presets/workspace/tuning/text-generation/cli.py), ``transformers.BitsAndBytesConfig``, ``peft.LoraConfig``,
``trl.SFTConfig`` and ``transformers.DataCollatorForLanguageModeling``. Values can be strings that spell the type
(``"2e-4"``), because KAITO passes them as command-line arguments. A test compares these tables with those classes.
``steps.tune.unsupported_arguments`` lists arguments that the tune step rejects too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from steps.download.settings import DatasetOptions
from steps.runtime.options import Options
from steps.tune import unsupported_arguments
from steps.tune.settings import TrainingOptions
from steps.tune.unsupported_arguments import EVALUATE, HUB, NO_CODE, PROCESSES, RESUME, SHARDING, WITHOUT_EFFECT
from workflows.spec.key_rules import (
    Below1,
    ChatTemplate,
    Count,
    DType,
    FixedValue,
    Ignored,
    IgnoredWithWarning,
    Interval,
    Keys,
    Map,
    Modules,
    Name,
    Names,
    NotBool,
    NotNegative,
    Positive,
    Unsupported,
)

# Values of transformers.training_args.OptimizerNames that run with the packages of the image.
Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adafactor",
    "adagrad",
    "rmsprop",
    "sgd",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_8bit",
    "paged_ademamix_32bit",
    "lion_8bit",
    "lion_32bit",
    "paged_lion_8bit",
    "paged_lion_32bit",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
]

_DEVICE = "the device is detected automatically"
_PRESET = "the preset sets the model"
_MLM = "causal language models have no masked-language objective"
_METHOD = "only plain LoRA adapters are supported, which KAITO, vLLM and PEFT can load"
_COLUMNS_FIX = "write pipeline: {data: {columns: {prompt: ..., completion: ...}}}"
_SHARDING_FIX = "write pipeline: {tune: {sharding: full}}, or remove it"
_COMPILE = "each new row length triggers a recompilation (minutes per step with lora, then a failure)"
_DEVELOPERS = "it is for developers of the library"
_TRACKIO = "metrics go to the report, and to MLflow or W&B if report_to is set"


def _single(value: Any) -> Any:
    """Convert a list with one tool to the tool; transformers accepts lists."""
    return (value or ["none"])[0] if isinstance(value, list) and len(value) < 2 else value


def _idle(key: str, kind: Any) -> Ignored:
    """Return the rule for a key without effect in the tune step."""
    return Ignored(kind, WITHOUT_EFFECT[key])


def _never(key: str, fix: str = "remove it") -> Unsupported:
    """Return the rule for a key that the tune step rejects."""
    return Unsupported(unsupported_arguments.UNSUPPORTED[key], fix)


def _option(options: type[Options], name: str) -> Any:
    """Return the type of an option with its bounds, for a key that sets it."""
    field = options.model_fields[name]
    return Annotated[field.annotation, *field.metadata, NotBool]


MODEL: Keys = {
    "torch_dtype": DType,
    "dtype": DType,
    "local_files_only": Ignored(bool, "weights are cached on the models volume"),
    "device_map": FixedValue(("auto",), _DEVICE, "write auto"),
    "trust_remote_code": FixedValue((False,), NO_CODE, "choose a preset without custom code"),
    "force_download": FixedValue((False,), "weights are fetched once"),
    "resume_download": FixedValue((True, False), "a download is always resumed"),
    "chat_template": ChatTemplate,
    "pretrained_model_name_or_path": Unsupported(_PRESET, "set tuning.preset.name"),
    "revision": Unsupported("the preset pins the revision", "use --set model.revision=COMMIT"),
    "load_in_4bit": Unsupported("quantization is a separate section", "write it under QuantizationConfig"),
    "load_in_8bit": Unsupported("quantization is a separate section", "write it under QuantizationConfig"),
    "state_dict": Unsupported(_PRESET),
    "cache_dir": Unsupported("the models volume is the cache", "set storage.modelsClaim in the site profile"),
    "from_tf": Unsupported("TensorFlow weights are not supported"),
    "proxies": Unsupported("proxies are set by environment variables", "set HTTPS_PROXY"),
    "output_loading_info": Unsupported("it is not used"),
    "allow_remote_files": Unsupported("only files of the pinned revision are used"),
}

QUANTIZATION: Keys = {
    "load_in_4bit": bool,
    "load_in_8bit": bool,
    "bnb_4bit_quant_type": Literal["nf4", "fp4"],
    "bnb_4bit_compute_dtype": DType,
    "bnb_4bit_use_double_quant": bool,
    "bnb_4bit_quant_storage": Literal["uint8", "bfloat16", "float16", "float32"],
    "llm_int8_threshold": NotNegative,
    "llm_int8_skip_modules": Names,
    "llm_int8_has_fp16_weight": bool,
    "llm_int8_enable_fp32_cpu_offload": FixedValue((False,), _DEVICE),
    "quant_method": FixedValue(("bitsandbytes",), "bitsandbytes quantizes the model"),
}

LORA: Keys = {
    "r": _option(TrainingOptions, "rank"),
    "lora_alpha": _option(TrainingOptions, "alpha"),
    "lora_dropout": _option(TrainingOptions, "dropout"),
    "target_modules": Modules,
    "exclude_modules": Names | str,
    "bias": Literal["none", "all", "lora_only"],
    "use_rslora": bool,
    "use_dora": bool,
    "modules_to_save": Names,
    "layers_to_transform": list[int] | int,
    "layers_pattern": Names | str,
    "rank_pattern": dict[str, Count],
    "alpha_pattern": dict[str, Positive],
    "fan_in_fan_out": bool,
    "init_lora_weights": bool | Name,  # validated by steps.tune.lora_init
    "task_type": FixedValue(("CAUSAL_LM",), "presets are causal language models"),
    "peft_type": FixedValue(("LORA",), _METHOD),
    "inference_mode": FixedValue((False,), "training is not inference mode"),
    "base_model_name_or_path": Unsupported(_PRESET, "set tuning.preset.name"),
    "revision": Unsupported("the preset pins the revision", "use --set model.revision=COMMIT"),
    "auto_mapping": Unsupported(_METHOD),
    "peft_version": Unsupported("PEFT writes it"),
    "megatron_config": Unsupported(_METHOD),
    "megatron_core": Unsupported(_METHOD),
    "trainable_token_indices": Unsupported(_METHOD),
    "loftq_config": Unsupported(_METHOD),
    "eva_config": Unsupported(_METHOD),
    "corda_config": Unsupported(_METHOD),
    "lora_ga_config": Unsupported(_METHOD),
    "velora_config": Unsupported(_METHOD),
    "alora_invocation_tokens": Unsupported(_METHOD),
    "use_qalora": Unsupported(_METHOD),
    "qalora_group_size": Unsupported(_METHOD),
    "monteclora_config": Unsupported(_METHOD),
    "layer_replication": Unsupported(_METHOD),
    "runtime_config": Unsupported(_METHOD),
    "lora_bias": Unsupported(_METHOD),
    "target_parameters": Unsupported(_METHOD),
    "use_bdlora": Unsupported(_METHOD),
    "arrow_config": Unsupported(_METHOD),
    "kasa_config": Unsupported(_METHOD),
    "ensure_weight_tying": Unsupported(_METHOD),
}

TRAINING: Keys = {
    "num_train_epochs": _option(TrainingOptions, "epochs"),
    "max_steps": _option(TrainingOptions, "max_steps"),
    "learning_rate": _option(TrainingOptions, "learning_rate"),
    "per_device_train_batch_size": _option(TrainingOptions, "batch_size"),
    "gradient_accumulation_steps": Count,
    "lr_scheduler_type": Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "warmup_stable_decay",
    ],
    "lr_scheduler_kwargs": Map,
    "warmup_steps": NotNegative,
    "optim": Optimizer,
    "optim_args": str,
    "weight_decay": NotNegative,
    "adam_beta1": Below1,
    "adam_beta2": Below1,
    "adam_epsilon": Positive,
    "max_grad_norm": NotNegative,
    "label_smoothing_factor": Below1,
    "bf16": bool,
    "fp16": bool,
    "tf32": bool,
    "gradient_checkpointing": bool,
    "gradient_checkpointing_kwargs": Map,
    "activation_offloading": bool,
    "neftune_noise_alpha": Positive,
    "use_liger_kernel": bool,
    "liger_kernel_config": Map,
    "torch_empty_cache_steps": Count,
    "seed": _option(TrainingOptions, "seed"),
    "data_seed": _option(TrainingOptions, "seed"),
    "full_determinism": bool,
    "max_length": _option(TrainingOptions, "max_length"),
    "truncation_mode": Literal["keep_start", "keep_end"],
    "packing": bool,
    "packing_strategy": Literal["bfd", "bfd_split"],
    "padding_free": bool,
    "pad_to_multiple_of": Count,
    "completion_only_loss": bool,
    "assistant_only_loss": bool,
    "loss_type": Literal["nll", "chunked_nll", "dft"],
    "dataset_num_proc": _idle("dataset_num_proc", Count),
    "eos_token": str,
    "pad_token": str,
    "train_sampling_strategy": Literal["random", "sequential", "group_by_length"],
    "length_column_name": _idle("length_column_name", str),
    "average_tokens_across_devices": bool,
    "dataloader_drop_last": bool,
    "dataloader_num_workers": Annotated[int, NotBool, Field(ge=0)],
    "dataloader_pin_memory": bool,
    "dataloader_persistent_workers": bool,
    "dataloader_prefetch_factor": Count,
    "dataloader_in_order": bool,
    "logging_strategy": _idle("logging_strategy", Interval),
    "logging_steps": _idle("logging_steps", Positive),
    "logging_first_step": _idle("logging_first_step", bool),
    "logging_nan_inf_filter": bool,
    "log_level": _idle("log_level", Literal["debug", "info", "warning", "error", "critical", "passive"]),
    "save_strategy": Interval,
    "save_steps": Positive,
    "save_total_limit": Count,
    "output_dir": _idle("output_dir", str),
    "ddp_find_unused_parameters": bool,
    "disable_tqdm": _idle("disable_tqdm", bool),
    "remove_unused_columns": _idle("remove_unused_columns", bool),
    "do_train": _idle("do_train", bool),
    "overwrite_output_dir": Ignored(bool, "each run has a separate directory"),
    "per_device_eval_batch_size": _idle("per_device_eval_batch_size", Count),
    "report_to": Annotated[Literal["none", "mlflow", "wandb"], BeforeValidator(_single)],
    "run_name": Unsupported("the Workspace sets the run name", "set metadata.name"),
    "use_cache": FixedValue((False,), "a KV cache has no use in training"),
    "save_only_model": _never("save_only_model"),
    "dataset_text_field": _never("dataset_text_field", _COLUMNS_FIX),
    "trust_remote_code": _never("trust_remote_code"),
    "use_cpu": Unsupported(_DEVICE),
    "no_cuda": Unsupported(_DEVICE),
    "local_rank": Unsupported(PROCESSES),
    "accelerator_config": _never("accelerator_config"),
    "parallelism_config": _never("parallelism_config"),
    "ddp_bucket_cap_mb": Unsupported(PROCESSES),
    "ddp_broadcast_buffers": Unsupported(PROCESSES),
    "ddp_static_graph": Unsupported(PROCESSES),
    "ddp_backend": Unsupported(PROCESSES),
    "ddp_timeout": Unsupported(PROCESSES),
    "fsdp": _never("fsdp", _SHARDING_FIX),
    "fsdp_config": Unsupported(SHARDING, _SHARDING_FIX),
    "deepspeed": _never("deepspeed", _SHARDING_FIX),
    "log_on_each_node": Unsupported(PROCESSES),
    "log_level_replica": Unsupported(PROCESSES),
    "save_on_each_node": Unsupported(PROCESSES),
    "resume_from_checkpoint": _never("resume_from_checkpoint", "use argotune run --resume"),
    "ignore_data_skip": _never("ignore_data_skip"),
    "restore_callback_states_from_checkpoint": Unsupported(RESUME),
    "enable_jit_checkpoint": Unsupported(
        "checkpoints are written by save_strategy", "set save_strategy and save_steps"
    ),
    "auto_find_batch_size": _never("auto_find_batch_size", "set per_device_train_batch_size"),
    "eval_strategy": _never("eval_strategy", "set pipeline.data.evalSplit"),
    "evaluation_strategy": Unsupported(EVALUATE),
    "eval_steps": _never("eval_steps"),
    "eval_delay": Unsupported(EVALUATE),
    "eval_on_start": _never("eval_on_start"),
    "eval_do_concat_batches": Unsupported(EVALUATE),
    "eval_use_gather_object": Unsupported(EVALUATE),
    "eval_accumulation_steps": Unsupported(EVALUATE),
    "eval_packing": _never("eval_packing"),
    "bf16_full_eval": Unsupported(EVALUATE),
    "fp16_full_eval": Unsupported(EVALUATE),
    "batch_eval_metrics": Unsupported(EVALUATE),
    "include_for_metrics": Unsupported(EVALUATE),
    "prediction_loss_only": Unsupported(EVALUATE),
    "do_eval": Unsupported(EVALUATE),
    "do_predict": Unsupported(EVALUATE),
    "load_best_model_at_end": _never("load_best_model_at_end"),
    "metric_for_best_model": _never("metric_for_best_model"),
    "greater_is_better": Unsupported(EVALUATE),
    "push_to_hub": _never("push_to_hub"),
    "hub_model_id": _never("hub_model_id"),
    "hub_token": _never("hub_token"),
    "hub_private_repo": Unsupported(HUB),
    "hub_strategy": Unsupported(HUB),
    "hub_always_push": Unsupported(HUB),
    "hub_revision": Unsupported(HUB),
    "project": Unsupported(_TRACKIO, "write pipeline: {tracking: {project: ...}}"),
    "trackio_space_id": Unsupported(_TRACKIO),
    "trackio_bucket_id": Unsupported(_TRACKIO),
    "trackio_static_space_id": Unsupported(_TRACKIO),
    "include_num_input_tokens_seen": Unsupported("tokens are counted automatically"),
    "torch_compile": Unsupported(_COMPILE),
    "torch_compile_backend": Unsupported(_COMPILE),
    "torch_compile_mode": Unsupported(_COMPILE),
    "optim_target_modules": Unsupported(_METHOD),
    "dataloader_multiprocessing_context": Unsupported(PROCESSES),
    "label_names": Unsupported("labels are created from the rows"),
    "debug": Unsupported(_DEVELOPERS),
    "skip_memory_metrics": FixedValue((True,), _DEVELOPERS),
    "model_init_kwargs": _never("model_init_kwargs", "write it under ModelConfig"),
    "router_aux_loss_coef": Unsupported("the routers of a mixture of experts are not trained"),
    "chat_template_path": _never("chat_template_path", "write the template text as ModelConfig.chat_template"),
    "dataset_kwargs": _never("dataset_kwargs", "set tuning.input"),
    "shuffle_dataset": _never("shuffle_dataset", "write DatasetConfig.shuffle_dataset"),
    "max_seq_length": Unsupported("it was renamed", "write max_length"),
    "warmup_ratio": Unsupported("it was renamed", "write warmup_steps, where a number below 1 is a ratio"),
    "group_by_length": Unsupported("it was renamed", "write train_sampling_strategy: group_by_length"),
}

COLLATOR: Keys = {
    "mlm": IgnoredWithWarning(bool, f"{_MLM}: read as false, as KAITO itself does", harmless=False),
    "mlm_probability": Unsupported(_MLM),
    "whole_word_mask": Unsupported(_MLM),
    "mask_replace_prob": Unsupported(_MLM),
    "random_replace_prob": Unsupported(_MLM),
    "tokenizer": Unsupported("the preset has its tokenizer"),
    "pad_to_multiple_of": Unsupported(
        "padding is an argument of training", "write TrainingArguments.pad_to_multiple_of"
    ),
    "return_tensors": FixedValue(("pt",), "training runs on PyTorch"),
    "seed": Unsupported("the seed is an argument of training", "write TrainingArguments.seed"),
}

DATASET: Keys = {
    "shuffle_dataset": bool,
    "shuffle_seed": _option(DatasetOptions, "seed"),
    "train_test_split": Annotated[float, NotBool, Field(ge=0.5, le=1, allow_inf_nan=False)],
    "dataset_path": Unsupported(unsupported_arguments.DATA, "set tuning.input"),
    # Each file is read by its name; a contradiction is an error.
    "dataset_extension": Literal["parquet", "json", "csv", "arrow", "webdataset"],
    # KAITO parses these three keys but does not use them.
    "messages_column": Name,
    "context_column": Name,
    "response_column": Name,
}

SECTIONS: Mapping[str, Keys] = {
    "ModelConfig": MODEL,
    "QuantizationConfig": QUANTIZATION,
    "LoraConfig": LORA,
    "TrainingArguments": TRAINING,
    "DataCollator": COLLATOR,
    "DatasetConfig": DATASET,
}
