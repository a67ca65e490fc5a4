"""Train with a typical trl script: no activation checkpointing, loss on answers only.

Options: ``same_process`` adds the process settings of the tune step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from job import TARGETS, read_job
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer
from trl_job import COMMON, load_model, load_rows, train

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[3])]

from rows import TEMPLATE  # noqa: E402


def main() -> None:
    job = read_job()
    if job.options.get("same_process"):
        _set_up_as_tune_step()
    tokenizer, model = load_model(job)
    tokenizer.chat_template = TEMPLATE
    arguments = SFTConfig(
        output_dir=f"{job.work}/out",
        per_device_train_batch_size=job.batch_size,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        gradient_checkpointing=False,
        assistant_only_loss=True,
        max_length=job.length,
        save_steps=0.5,  # fraction of all steps; more checkpoints would dominate such a short training
        save_total_limit=2,
        bf16=job.bfloat16,
        seed=job.seed,
        **COMMON,
    )
    lora = LoraConfig(r=job.rank, lora_alpha=16, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    trainer = SFTTrainer(model, arguments, train_dataset=load_rows(job), processing_class=tokenizer, peft_config=lora)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    train(trainer)


def _set_up_as_tune_step() -> None:
    from steps.runtime.machine import disable_malloc_trim
    from steps.tune import ignored_logits

    disable_malloc_trim()
    ignored_logits.skip_ignored_logits()


if __name__ == "__main__":
    main()
