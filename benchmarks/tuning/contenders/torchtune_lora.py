"""Train with torchtune's recipe ``lora_finetune_single_device``, without quantization, loss on answers only.

Rows are packed, which torchtune's own configurations name as the faster setting. SmolLM2 has no builder: it is its
Llama 3.2 with other sizes, without the scaling of rotary positions.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from job import read_job, read_tokens, report
from omegaconf import OmegaConf
from torchtune.data import padded_collate_sft
from torchtune.datasets import PackedDataset
from torchtune.models.llama3_2 import lora_llama3_2

NAME = Path(__file__).stem
"""Module of the components below, as the configuration names it."""


def main() -> None:
    job = read_job()
    batch = job.options.get("batch_size", job.batch_size)
    folder = Path(job.work)
    (folder / "out").mkdir()
    config = {
        "output_dir": str(folder / "out"),
        "device": "cpu",
        "dtype": "bf16" if job.bfloat16 else "fp32",
        "seed": job.seed,
        "model": {
            "_component_": f"{NAME}.smollm2",
            "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
            "apply_lora_to_mlp": True,
            "lora_rank": job.rank,
            "lora_alpha": 16,
        },
        "tokenizer": {"_component_": f"{NAME}.Padding", "max_seq_len": job.length},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer",
            "checkpoint_dir": job.model,
            "checkpoint_files": ["model.safetensors"],
            "output_dir": str(folder / "out"),
            "model_type": "LLAMA3_2",
        },
        "resume_from_checkpoint": False,
        "dataset": {"_component_": f"{NAME}.rows", "packed": True},
        "collate_fn": f"{NAME}.collate",
        "shuffle": True,
        "batch_size": batch,
        "epochs": 1,
        "max_steps_per_epoch": None,
        "gradient_accumulation_steps": 1,
        "optimizer": {"_component_": "torch.optim.AdamW", "fused": True, "lr": 2e-4},
        "lr_scheduler": {
            "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
            "num_warmup_steps": 1,
        },
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "compile": False,
        "enable_activation_checkpointing": False,
        "metric_logger": {"_component_": f"{NAME}.Losses", "log_dir": str(folder / "out")},
        "log_every_n_steps": 1,
    }
    recipe = _load_recipe().LoRAFinetuneRecipeSingleDevice(OmegaConf.create(config))
    recipe.setup(OmegaConf.create(config))
    recipe.save_checkpoint = lambda **_: None
    started = time.monotonic()
    recipe.train()
    seconds = time.monotonic() - started
    tokens = sum(len(row["input_ids"]) for row in read_tokens(job))
    if left_out := len(recipe._dataloader.dataset) % batch:
        sys.exit(f"error: the recipe drops {left_out} rows or packs of the last batch\nfix: choose another batch size")
    report(tokens, seconds, recipe._metric_logger.losses, ("torchtune", "torchao"))


def _load_recipe() -> Any:
    """Return the module of the recipe; it is not importable by its name."""
    [file] = [file for file in metadata.files("torchtune") or [] if file.name == "lora_finetune_single_device.py"]
    spec = importlib.util.spec_from_file_location(file.stem, file.locate())
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smollm2(**lora: Any) -> Any:
    """Return SmolLM2-135M with adapters."""
    lora["lora_attn_modules"] = list(lora["lora_attn_modules"])
    return lora_llama3_2(
        **lora,
        vocab_size=49_152,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        embed_dim=576,
        max_seq_len=8192,
        intermediate_dim=1536,
        rope_base=100_000,
        norm_eps=1e-5,
        scale_factor=1,
    )


def rows(_tokenizer: Any, **_packed: bool) -> Any:
    """Return the rows, in packs of the maximum length."""
    job = read_job()
    dataset = [{"tokens": row["input_ids"], "labels": row["labels"]} for row in read_tokens(job)]
    return PackedDataset(dataset, max_seq_len=job.length, padding_idx=2)


collate = padded_collate_sft


class Padding:
    """The tokenizer's part that the recipe uses; rows are tokens already."""

    pad_id = 2

    def __init__(self, max_seq_len: int) -> None:
        self.max_seq_len = max_seq_len


class Losses:
    """Losses of the steps, in place of a tracking tool."""

    def __init__(self, log_dir: str) -> None:
        self.losses: list[float] = []

    def log_config(self, config: Any) -> None:
        pass

    def log_dict(self, payload: dict[str, Any], step: int) -> None:
        self.losses.append(float(payload["loss"]))

    def close(self) -> None:
        pass


if __name__ == "__main__":
    main()
