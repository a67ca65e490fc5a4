"""What the trl scripts share: model, rows and the timed call of the trainer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from job import Job, report

COMMON: dict[str, Any] = {
    "num_train_epochs": 1,
    "use_cpu": True,
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
}


def load_model(job: Job) -> tuple[Any, Any]:
    """Return tokenizer and model, in NF4 with double quantization."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    dtype = getattr(torch, job.dtype)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=dtype, quantization_config=quantization, device_map={"": "cpu"}
    )
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer, model


def load_rows(job: Job) -> Any:
    """Return the rows as a dataset."""
    from datasets import load_dataset

    file = str(Path(job.work) / "dataset" / "train.parquet")
    return load_dataset("parquet", data_files=file, split="train", cache_dir=str(Path(job.work) / "cache"))


def train(trainer: Any, *packages: str) -> None:
    """Train, and report the result."""
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [entry["loss"] for entry in entries]
    report(int(entries[-1]["num_tokens"]), seconds, losses, ("transformers", "trl", "peft", "bitsandbytes", *packages))
