"""The model of ``trainable_model`` for serving, with adapters that change its answers."""

from __future__ import annotations

import json
from pathlib import Path

from trainable_model import make_model

HUB_ID = "tests/tiny-llama"


def save_model(folder: Path, context: int = 1024) -> Path:
    """Write the model with large random weights, so that answers differ."""
    # 32 is the smallest head size of vLLM on a CPU.
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return make_model(folder, max_position_embeddings=context, initializer_range=0.5, **heads)


def save_adapter(
    model: Path, folder: Path, seed: int = 2, base: str = HUB_ID, rank: int = 4, scale: float = 1.0
) -> Path:
    """Write a LoRA adapter of ``model`` with random weights, large enough to change its answers; ``scale`` them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), lora)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_().mul_(scale)
    adapted.save_pretrained(folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base}))
    return folder
