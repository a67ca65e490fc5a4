"""The tune step: train a LoRA or QLoRA adapter with Hugging Face trl and PEFT."""
