"""Small models with random weights, of many architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trainable_model

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "cohere2": WINDOWS,
    "gemma2": WINDOWS,
    "gemma3_text": WINDOWS,
    "gemma4_text": {
        **WINDOWS,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 512,
        "global_head_dim": 16,
    },
    "glm4": {},
    "gpt_oss": {**WINDOWS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granite": {},
    "granitemoehybrid": {
        "num_local_experts": 0,
        "shared_intermediate_size": 128,
        "layer_types": ["linear_attention", "full_attention"],
        "mamba_n_heads": 8,
        "mamba_d_state": 16,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "llama": {},
    "ministral3": {},
    "mistral": {},
    "olmo2": {},
    "olmo3": WINDOWS,
    "phi3": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3_5_text": LINEAR,
    "qwen3_moe": EXPERTS,
    "smollm3": {},
}


def save_random_model(folder: Path, kind: str, changes: dict[str, Any]) -> Path:
    """Write a model with random weights and the tokenizer of ``trainable_model``."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = trainable_model.make_tokenizer()
    tokens = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = AutoConfig.for_model(kind, **{**SMALL, "vocab_size": len(tokenizer), **tokens, **changes})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


VLLM_SIZES = {"hidden_size": 128, "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
"""Heads as wide as vLLM needs them on a CPU."""
NOT_ON_VLLM_CPU = {
    "glm4": "vLLM has no adapters of gate_up_proj for GLM-4",
    "gpt_oss": "adapters of models with experts need Triton, a GPU library",
    "qwen3_5_text": "needs torchvision, which the CPU build lacks",
    "qwen3_moe": "adapters of models with experts need Triton, a GPU library",
}
"""Architectures that vLLM's CPU build does not serve with an adapter, and why."""
INEXACT = {
    "cohere2": "its probabilities differ from run to run (once NaN)",
    "lfm2": "its probabilities differ from those of transformers (logarithms by 0.1), without an adapter too",
}
"""Architectures that vLLM's CPU build serves with other probabilities than transformers."""
ERRORS = {
    "glm4": "expected target modules",
    "gpt_oss": "triton.language",
    "qwen3_5_text": "failed to be inspected",
    "qwen3_moe": "triton.language",
}
"""Part of vLLM's error."""


def save_vllm_model(folder: Path, kind: str) -> dict[str, Any]:
    """Write a model, and in ``adapter/`` a random adapter of all its layers.

    Returns:
        The prompt, and by transformers the logarithms of the probabilities of the next token, of base and adapter.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from steps.tune import adapted_layers

    changes = VLLM_SIZES | ARCHITECTURES[kind]
    changes |= {"global_head_dim": 32} if kind == "gemma4_text" else {}
    # Published configurations have these widths, which transformers does not need.
    changes |= {"conv_dim": 128, "block_dim": 128} if kind == "lfm2" else {}
    save_random_model(folder, kind, changes)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    selected = adapted_layers.select(model, {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"})
    adapted = get_peft_model(model, LoraConfig(**selected, task_type="CAUSAL_LM")).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.15)
        adapted.save_pretrained(folder / "adapter")
        prompt = torch.arange(5, 35)[None]
        tuned = adapted(prompt).logits[0, -1].log_softmax(-1).tolist()
        with adapted.disable_adapter():
            base = adapted(prompt).logits[0, -1].log_softmax(-1).tolist()
    return {"prompt": prompt[0].tolist(), "base": base, "tuned": tuned}
