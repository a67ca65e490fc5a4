"""Train as KAITO's fine_tuning.py and template: batch size 1, loss on all tokens, activation checkpointing.

bfloat16 of its template is used only if the CPU supports it: emulation would improve argotune's ratio.
"""

from __future__ import annotations

from job import TARGETS, read_job
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import DataCollatorForLanguageModeling
from trl import SFTConfig, SFTTrainer
from trl_job import COMMON, load_model, load_rows, train


def main() -> None:
    job = read_job()
    tokenizer, model = load_model(job)
    model = prepare_model_for_kbit_training(model)
    model = get_peft_model(model, LoraConfig(r=job.rank, lora_alpha=8, lora_dropout=0.0, target_modules=TARGETS))
    arguments = SFTConfig(
        output_dir=f"{job.work}/out",
        per_device_train_batch_size=1,
        save_strategy="no",
        bf16=job.bfloat16,
        seed=job.seed,
        **COMMON,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    train(SFTTrainer(model, arguments, collator, train_dataset=load_rows(job), processing_class=tokenizer))


if __name__ == "__main__":
    main()
