"""A random model with some thousand parameters, its tokenizer and its rows, to rehearse a training on."""

from __future__ import annotations

from typing import Any

from steps.data.chat_tokens import IGNORED, ChatTokens
from steps.tune.dpo import Pair

VOCABULARY = 32
MAX_LENGTH = 64
HIDDEN, RANK = 256, 16
"""Sizes that make weights of an adapter large enough for bitsandbytes to keep their optimizer's state in 8 bits."""


def make_model(device: str) -> Any:
    """Return a Llama of one layer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    model: Any = LlamaForCausalLM(config)
    return model.to(device)


def make_tokenizer() -> Any:
    """Return a tokenizer of the model's vocabulary."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, **{f"word{idx}": idx for idx in range(2, VOCABULARY)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<eos>")),
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<eos>",
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def rows(count: int) -> list[ChatTokens]:
    """Return tokenized rows of several lengths."""
    return [ChatTokens([2, 3, *_answer(idx)], [IGNORED, IGNORED, *_answer(idx)]) for idx in range(count)]


def pairs(count: int) -> list[Pair]:
    """Return tokenized pairs of answers."""
    return [Pair([2, 3], _answer(idx), [9, *_answer(idx)]) for idx in range(count)]


def _answer(idx: int) -> list[int]:
    return [*range(4, 6 + idx % 4), 1]
