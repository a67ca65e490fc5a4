"""Train with LitGPT's ``finetune_lora``, without quantization, loss on answers only.

Its bitsandbytes plugin quantizes on CUDA devices only. Validation and the example it generates are skipped: they are
no training.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from job import Job, read_job, read_tokens, report
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule, get_sft_collate_fn
from litgpt.finetune import lora
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from torch.utils.data import DataLoader


def main() -> None:
    job = read_job()
    rows = read_tokens(job)
    losses: list[float] = []
    seconds = 0.0
    fit, loss_function = lora.fit, lora.chunked_cross_entropy

    def timed(*args: Any, **kwargs: Any) -> None:
        nonlocal seconds
        started = time.monotonic()
        fit(*args, **kwargs)
        seconds = time.monotonic() - started
        raise Trained

    def recorded(*args: Any, **kwargs: Any) -> Any:
        loss = loss_function(*args, **kwargs)
        losses.append(loss.item())
        return loss

    lora.fit, lora.chunked_cross_entropy = timed, recorded
    lora.validate = lambda *_args, **_kwargs: torch.tensor(0.0)
    lora.generate_example = lambda *_args, **_kwargs: None
    batch = job.options.get("batch_size", job.batch_size)
    settings: dict[str, Any] = dict(
        checkpoint_dir=_convert(job),
        out_dir=Path(job.work) / "out",
        precision="bf16-true" if job.bfloat16 else "32-true",
        lora_r=job.rank,
        lora_alpha=16,
        lora_dropout=0.0,
        **{f"lora_{layer}": True for layer in ("query", "key", "value", "projection", "mlp")},
        data=Rows(rows=rows, length=job.length),
        train=TrainArgs(
            save_interval=10**6,
            log_interval=1,
            global_batch_size=batch,
            micro_batch_size=batch,
            lr_warmup_steps=1,
            epochs=1,
            max_seq_length=job.length,
        ),
        eval=EvalArgs(interval=10**6, max_iters=1, max_new_tokens=1, initial_validation=False, final_validation=False),
        seed=job.seed,
    )
    with suppress(Trained):
        lora.setup(**settings)
    tokens = sum(len(row["input_ids"]) for row in rows[: len(losses) * batch])
    report(tokens, seconds, losses, ("litgpt", "lightning"))


class Trained(Exception):
    """End of the training: it is not merged and stored."""


def _convert(job: Job) -> Path:
    """Return a directory with the model in LitGPT's format, beside links to the original's files."""
    folder = Path(job.work) / "SmolLM2-135M-Instruct"
    folder.mkdir()
    for name in os.listdir(job.model):
        (folder / name).symlink_to(Path(job.model) / name)
    convert_hf_checkpoint(folder, model_name="SmolLM2-135M-Instruct", dtype="bfloat16" if job.bfloat16 else "float32")
    return folder


@dataclass
class Rows(DataModule):
    """The rows, as LitGPT takes data."""

    rows: list[dict[str, list[int]]] = field(default_factory=list)
    length: int = 1024
    prompt_style: str = "default"
    batch_size: int = 1

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
        self.batch_size = batch_size

    def train_dataloader(self) -> Any:
        rows = [
            {
                "input_ids": torch.tensor(row["input_ids"]),
                "labels": torch.tensor(row["labels"]),
                "token_counts": dict.fromkeys(("raw", "raw_plus_prompt_template"), len(row["input_ids"])),
            }
            for row in self.rows
        ]
        collate = get_sft_collate_fn(max_seq_length=self.length, pad_id=2, ignore_index=-100)
        return DataLoader(rows, batch_size=self.batch_size, collate_fn=collate)

    def val_dataloader(self) -> Any:
        return self.train_dataloader()


if __name__ == "__main__":
    main()
