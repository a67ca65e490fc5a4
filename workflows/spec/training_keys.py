"""Every key of KAITO's ``training_config.yaml``, section by section: its type, or why it cannot be honoured.

The keys are those of the classes that KAITO reads the sections into: its own ``ModelConfig`` and ``DatasetConfig``
(presets/workspace/tuning/text-generation/cli.py), ``transformers.BitsAndBytesConfig``, ``peft.LoraConfig``,
``trl.SFTConfig`` and ``transformers.DataCollatorForLanguageModeling``. Values may be text that spells the type
(``"2e-4"``), because KAITO hands them on as command-line arguments. A test compares these tables with those classes.
What a training refuses is said by ``steps.tune.unsupported_arguments``, which the tune step asks too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from steps.tune import unsupported_arguments
from steps.tune.unsupported_arguments import EVALUATE, HUB, NO_CODE, PROCESSES, RESUME, SHARDING, WITHOUT_EFFECT
from workflows.spec.key_rules import (
    Accepted,
    Below1,
    ChatTemplate,
    Count,
    DType,
    Interval,
    Keys,
    Map,
    Name,
    Names,
    NotBool,
    NotNegative,
    Only,
    Positive,
    Refused,
    Warned,
)

# Those of transformers.training_args.OptimizerNames that run with what is in the image.
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

_DEVICE = "the device is chosen from the machine"
_PRESET = "the preset names the model"
_MLM = "a causal model has no masked-language objective"
_METHOD = "only plain LoRA is written, which KAITO, vLLM and PEFT can all load"
_COLUMNS_FIX = "write pipeline: {data: {columns: {prompt: ..., completion: ...}}}"
_SHARDING_FIX = "write pipeline: {tune: {sharding: full}}, or leave it out"
_COMPILE = "rows of each new length are compiled anew: tried with lora, one step took minutes and the next failed"
_DEVELOPERS = "it is for the library's own developers"
_TRACKIO = "metrics go to the report, and where report_to says so to MLflow or W&B"


def _single(value: Any) -> Any:
    """Lists of tools are taken by transformers too; here it is one tool."""
    return (value or ["none"])[0] if isinstance(value, list) and len(value) < 2 else value


def _idle(key: str, kind: Any) -> Accepted:
    """A key that the tune step takes too, and that changes nothing there."""
    return Accepted(kind, WITHOUT_EFFECT[key])


def _never(key: str, fix: str = "leave it out") -> Refused:
    """A key that the tune step would refuse."""
    return Refused(unsupported_arguments.UNSUPPORTED[key], fix)


MODEL: Keys = {
    "torch_dtype": DType,
    "dtype": DType,
    "local_files_only": Accepted(bool, "the weights are in the model volume, or are fetched into it once"),
    "device_map": Only(("auto",), _DEVICE, "write auto"),
    "trust_remote_code": Only((False,), NO_CODE, "choose a preset that needs none"),
    "force_download": Only((False,), "the weights are fetched once"),
    "resume_download": Only((True, False), "a download is always resumed"),
    "chat_template": ChatTemplate,
    "pretrained_model_name_or_path": Refused(_PRESET, "set tuning.preset.name"),
    "revision": Refused("the preset pins the revision", "use --set model.revision=COMMIT"),
    "load_in_4bit": Refused("quantization has its own section", "write it under QuantizationConfig"),
    "load_in_8bit": Refused("quantization has its own section", "write it under QuantizationConfig"),
    "state_dict": Refused(_PRESET),
    "cache_dir": Refused("the model volume is the cache", "set storage.modelsClaim in the site profile"),
    "from_tf": Refused("TensorFlow weights are not read"),
    "proxies": Refused("proxies come from the environment", "set HTTPS_PROXY"),
    "output_loading_info": Refused("nothing reads it"),
    "allow_remote_files": Refused("files come from the pinned revision only"),
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
    "llm_int8_enable_fp32_cpu_offload": Only((False,), _DEVICE),
    "quant_method": Only(("bitsandbytes",), "quantization is done by bitsandbytes"),
}

LORA: Keys = {
    "r": Count,
    "lora_alpha": Positive,
    "lora_dropout": Below1,
    "target_modules": Names | Literal["all-linear"],
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
    "init_lora_weights": bool | Name,  # steps.tune.lora_init knows which
    "task_type": Only(("CAUSAL_LM",), "presets are causal language models"),
    "peft_type": Only(("LORA",), _METHOD),
    "inference_mode": Only((False,), "an adapter that is trained is not in inference mode"),
    "base_model_name_or_path": Refused(_PRESET, "set tuning.preset.name"),
    "revision": Refused("the preset pins the revision", "use --set model.revision=COMMIT"),
    "auto_mapping": Refused(_METHOD),
    "peft_version": Refused("PEFT writes it"),
    "megatron_config": Refused(_METHOD),
    "megatron_core": Refused(_METHOD),
    "trainable_token_indices": Refused(_METHOD),
    "loftq_config": Refused(_METHOD),
    "eva_config": Refused(_METHOD),
    "corda_config": Refused(_METHOD),
    "lora_ga_config": Refused(_METHOD),
    "velora_config": Refused(_METHOD),
    "alora_invocation_tokens": Refused(_METHOD),
    "use_qalora": Refused(_METHOD),
    "qalora_group_size": Refused(_METHOD),
    "monteclora_config": Refused(_METHOD),
    "layer_replication": Refused(_METHOD),
    "runtime_config": Refused(_METHOD),
    "lora_bias": Refused(_METHOD),
    "target_parameters": Refused(_METHOD),
    "use_bdlora": Refused(_METHOD),
    "arrow_config": Refused(_METHOD),
    "kasa_config": Refused(_METHOD),
    "ensure_weight_tying": Refused(_METHOD),
}

TRAINING: Keys = {
    "num_train_epochs": Positive,
    "max_steps": Annotated[int, NotBool, Field(ge=-1)],
    "learning_rate": Positive,
    "per_device_train_batch_size": Count,
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
    "seed": Annotated[int, NotBool, Field(ge=0, lt=2**32)],
    "data_seed": Annotated[int, NotBool, Field(ge=0, lt=2**32)],
    "full_determinism": bool,
    "max_length": Count,
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
    "overwrite_output_dir": Accepted(bool, "each run has its own folder"),
    "per_device_eval_batch_size": _idle("per_device_eval_batch_size", Count),
    "report_to": Annotated[Literal["none", "mlflow", "wandb"], BeforeValidator(_single)],
    "run_name": Refused("the Workspace names the run", "set metadata.name"),
    "use_cache": Only((False,), "a cache for generation is of no use in training"),
    "save_only_model": _never("save_only_model"),
    "dataset_text_field": _never("dataset_text_field", _COLUMNS_FIX),
    "trust_remote_code": _never("trust_remote_code"),
    "use_cpu": Refused(_DEVICE),
    "no_cuda": Refused(_DEVICE),
    "local_rank": Refused(PROCESSES),
    "accelerator_config": _never("accelerator_config"),
    "parallelism_config": _never("parallelism_config"),
    "ddp_bucket_cap_mb": Refused(PROCESSES),
    "ddp_broadcast_buffers": Refused(PROCESSES),
    "ddp_static_graph": Refused(PROCESSES),
    "ddp_backend": Refused(PROCESSES),
    "ddp_timeout": Refused(PROCESSES),
    "fsdp": _never("fsdp", _SHARDING_FIX),
    "fsdp_config": Refused(SHARDING, _SHARDING_FIX),
    "deepspeed": _never("deepspeed", _SHARDING_FIX),
    "log_on_each_node": Refused(PROCESSES),
    "log_level_replica": Refused(PROCESSES),
    "save_on_each_node": Refused(PROCESSES),
    "resume_from_checkpoint": _never("resume_from_checkpoint", "use argotune run --resume"),
    "ignore_data_skip": _never("ignore_data_skip"),
    "restore_callback_states_from_checkpoint": Refused(RESUME),
    "enable_jit_checkpoint": Refused("checkpoints are written by save_strategy", "set save_strategy and save_steps"),
    "auto_find_batch_size": _never("auto_find_batch_size", "set per_device_train_batch_size"),
    "eval_strategy": _never("eval_strategy", "set pipeline.data.evalSplit"),
    "evaluation_strategy": Refused(EVALUATE),
    "eval_steps": _never("eval_steps"),
    "eval_delay": Refused(EVALUATE),
    "eval_on_start": _never("eval_on_start"),
    "eval_do_concat_batches": Refused(EVALUATE),
    "eval_use_gather_object": Refused(EVALUATE),
    "eval_accumulation_steps": Refused(EVALUATE),
    "eval_packing": _never("eval_packing"),
    "bf16_full_eval": Refused(EVALUATE),
    "fp16_full_eval": Refused(EVALUATE),
    "batch_eval_metrics": Refused(EVALUATE),
    "include_for_metrics": Refused(EVALUATE),
    "prediction_loss_only": Refused(EVALUATE),
    "do_eval": Refused(EVALUATE),
    "do_predict": Refused(EVALUATE),
    "load_best_model_at_end": _never("load_best_model_at_end"),
    "metric_for_best_model": _never("metric_for_best_model"),
    "greater_is_better": Refused(EVALUATE),
    "push_to_hub": _never("push_to_hub"),
    "hub_model_id": _never("hub_model_id"),
    "hub_token": _never("hub_token"),
    "hub_private_repo": Refused(HUB),
    "hub_strategy": Refused(HUB),
    "hub_always_push": Refused(HUB),
    "hub_revision": Refused(HUB),
    "project": Refused(_TRACKIO, "write pipeline: {tracking: {project: ...}}"),
    "trackio_space_id": Refused(_TRACKIO),
    "trackio_bucket_id": Refused(_TRACKIO),
    "trackio_static_space_id": Refused(_TRACKIO),
    "include_num_input_tokens_seen": Refused("the run counts its tokens by itself"),
    "torch_compile": Refused(_COMPILE),
    "torch_compile_backend": Refused(_COMPILE),
    "torch_compile_mode": Refused(_COMPILE),
    "optim_target_modules": Refused(_METHOD),
    "dataloader_multiprocessing_context": Refused(PROCESSES),
    "label_names": Refused("labels are made from the rows"),
    "debug": Refused(_DEVELOPERS),
    "skip_memory_metrics": Only((True,), _DEVELOPERS),
    "model_init_kwargs": _never("model_init_kwargs", "write it under ModelConfig"),
    "router_aux_loss_coef": Refused("no preset that can be tuned is a mixture of experts"),
    "chat_template_path": _never("chat_template_path", "write the template itself as ModelConfig.chat_template"),
    "dataset_kwargs": _never("dataset_kwargs", "set tuning.input"),
    "shuffle_dataset": _never("shuffle_dataset", "write DatasetConfig.shuffle_dataset"),
    "max_seq_length": Refused("it was renamed", "write max_length"),
    "warmup_ratio": Refused("it was renamed", "write warmup_steps, where a number below 1 is a share"),
    "group_by_length": Refused("it was renamed", "write train_sampling_strategy: group_by_length"),
}

COLLATOR: Keys = {
    "mlm": Warned(bool, f"{_MLM}: read as false, as KAITO itself does", harmless=False),
    "mlm_probability": Refused(_MLM),
    "whole_word_mask": Refused(_MLM),
    "mask_replace_prob": Refused(_MLM),
    "random_replace_prob": Refused(_MLM),
    "tokenizer": Refused("the preset brings its tokenizer"),
    "pad_to_multiple_of": Refused("padding is an argument of training", "write TrainingArguments.pad_to_multiple_of"),
    "return_tensors": Only(("pt",), "training runs on PyTorch"),
    "seed": Refused("the seed is an argument of training", "write TrainingArguments.seed"),
}

DATASET: Keys = {
    "shuffle_dataset": bool,
    "shuffle_seed": Annotated[int, NotBool, Field(ge=0, lt=2**32)],
    "train_test_split": Annotated[float, NotBool, Field(ge=0.5, le=1, allow_inf_nan=False)],
    "dataset_path": Refused(unsupported_arguments.DATA, "set tuning.input"),
    "dataset_extension": Only(("parquet",), "data is read as parquet", "convert it to parquet"),
    # KAITO reads these three, and uses none of them.
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
