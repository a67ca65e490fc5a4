"""A random Llama with some thousand parameters, its tokenizer and chat template, and rows to tune it on."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# As in the steps, before torch is imported: busy waiting makes a loaded machine several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def chat_rows(count: int) -> list[list[dict[str, str]]]:
    """Return rows that teach one answer, with questions of several lengths."""
    return [
        [
            {"role": "user", "content": f"What colour is number {n}{' please' * (n % 4)}?"},
            {"role": "assistant", "content": f"Number {n} is blue, as all numbers are."},
        ]
        for n in range(count)
    ]


def write_rows(file: Path, rows: list[list[dict[str, Any]]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"messages": rows}), file)


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    corpus = [message["content"] for row in chat_rows(50) for message in row] + ["user", "assistant", "system"]
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    fast.chat_template = CHATML
    return fast


def make_model(folder: Path, **changes: Any) -> Path:
    """Write the model in Hugging Face format; ``changes`` are fields of its configuration."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
    }
    LlamaForCausalLM(LlamaConfig(**config | changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def curve(work: Path) -> list[dict[str, float]]:
    """Return the complete lines of the loss curve, of which the last can be partially written."""
    try:
        text = (work / "report" / "train.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
