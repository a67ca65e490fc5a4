"""Train with unsloth on the CPU: LoRA, loss on answers only, its own activation checkpointing off."""

from __future__ import annotations

import unsloth  # isort: skip  # before trl and transformers, which it changes

from job import TARGETS, read_job, read_tokens
from trl_job import COMMON, train


def main() -> None:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    job = read_job()
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        job.model,
        max_seq_length=job.length,
        dtype=getattr(torch, job.dtype),
        load_in_4bit=job.options.get("load_in_4bit", False),
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=job.rank,
        lora_alpha=16,
        lora_dropout=0.0,
        target_modules=TARGETS,
        use_gradient_checkpointing=False,
        random_state=job.seed,
    )
    arguments = SFTConfig(
        output_dir=f"{job.work}/out",
        per_device_train_batch_size=job.options.get("batch_size", job.batch_size),
        learning_rate=2e-4,
        gradient_checkpointing=False,
        max_length=job.length,
        save_strategy="no",
        bf16=job.bfloat16,
        seed=job.seed,
        **COMMON,
    )
    dataset = Dataset.from_list(read_tokens(job))
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    train(trainer, "unsloth", "unsloth_zoo")


if __name__ == "__main__":
    main()
