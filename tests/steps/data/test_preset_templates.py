"""Property of labels, for the chat templates of all presets: learned messages are learned whole, and nothing else."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest
import trainable_model
from hypothesis import given, settings
from hypothesis import strategies as st

import presets
from steps.data.chat_tokens import IGNORED, render, tokenize
from steps.runtime.errors import BadInput

EXAMPLES = int(os.environ.get("ARGOTUNE_LABEL_EXAMPLES", "2000"))
"""Examples of each template in the slow test."""
SMOLLM2 = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou are a helpful AI "
    "assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The header of the answer is part of the user's turn, and system messages are ignored.
PHI3_MEDIUM = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '<|end|>\n<|assistant|>\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
)
PHI4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
PHI4_MINI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
TEMPLATES = {
    "llama-3.1-8b-instruct": ("llama3_1", "<|eot_id|>"),
    "phi-3-mini-4k-instruct": ("phi3", "<|end|>"),
    "phi-3-mini-128k-instruct": ("phi3", "<|end|>"),
    "phi-3-medium-4k-instruct": (PHI3_MEDIUM, "<|end|>"),
    "phi-3-medium-128k-instruct": (PHI3_MEDIUM, "<|end|>"),
    "phi-3.5-mini-instruct": ("phi3_5", "<|end|>"),
    "phi-4": (PHI4, "<|im_end|>"),
    "phi-4-mini-instruct": (PHI4_MINI, "<|end|>"),
    "qwen2.5-coder-7b-instruct": ("qwen2_5", "<|im_end|>"),
    "qwen2.5-coder-32b-instruct": ("qwen2_5", "<|im_end|>"),
    "smollm2-135m-instruct": (SMOLLM2, "<|im_end|>"),
}
"""Preset: its template, as Jinja or the name of trl's copy, and the end token of its answers."""
DIFFERENT = sorted({template: name for name, (template, _) in TEMPLATES.items()}.values())
SPECIAL = ["<|eot_id|>", "<|end|>", "<|im_sep|>", "<|user|>", "<|assistant|>", "<|system|>"]

ANSWERS = st.text(max_size=12) | st.text(
    st.sampled_from([*"abc .\n\t ", "\u00e9", "\u4e2d", "\U0001f600"]), max_size=12
)
QUESTIONS = st.text(st.sampled_from([*"abc?", "\u4e2d"]), min_size=1, max_size=8)
TURNS = st.lists(
    st.tuples(QUESTIONS, st.sampled_from([None, False, True]), ANSWERS, st.sampled_from([None, None, False, True])),
    min_size=1,
    max_size=3,
)


@functools.cache
def make_tokenizer(name: str) -> Any:
    tokenizer = trainable_model.make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.bos_token = "<|endoftext|>"
    template = TEMPLATES[name][0]
    if "{" not in template:
        import trl

        template = (Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja").read_text()
    tokenizer.chat_template = template
    return tokenizer


def test_all_presets_with_a_template_are_tested() -> None:
    assert set(TEMPLATES) == {model.name for model in presets.models() if model.chat_template == "tokenizer"}


def check_labels(name: str, turns: list[tuple[str, bool | None, str, bool | None]], system: str) -> None:
    """Check that the learned runs of tokens are the answers and messages with weight 1, each with its end token."""
    tokenizer, end = make_tokenizer(name), TEMPLATES[name][1]
    row: list[dict[str, Any]] = []
    for question, asked, answer, learned in turns:
        row.append({"role": "user", "content": question} | ({} if asked is None else {"train": asked}))
        row.append({"role": "assistant", "content": answer} | ({} if learned is None else {"train": learned}))
    if system and TEMPLATES[name][0] is not PHI3_MEDIUM:
        row.insert(0, {"role": "system", "content": system})
    text = render(tokenizer, row)
    expected = []
    for index, message in enumerate(row):
        if not message.get("train", message["role"] == "assistant"):
            continue
        if message["role"] == "user":
            expected.append(message["content"] + end)
            continue
        rest = text.removeprefix(render(tokenizer, row[:index], prompt=True))
        content = message["content"].strip() if "llama" in name else message["content"]
        expected.append(content + end)
        assert rest.startswith(expected[-1])
    runs: list[list[int]] = [[]]
    labels = tokenize(tokenizer, row).labels
    for label in labels:
        runs[-1].append(label) if label != IGNORED else runs.append([])
    assert [tokenizer.decode(run) for run in runs if run] == expected


@pytest.mark.parametrize("name", DIFFERENT)
@given(turns=TURNS, system=st.just("") | QUESTIONS)
@settings(max_examples=60)
def test_labels(name: str, turns: Any, system: str) -> None:
    check_labels(name, turns, system)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENT)
@given(turns=TURNS, system=st.just("") | QUESTIONS)
@settings(max_examples=EXAMPLES)
def test_labels_of_many_rows(name: str, turns: Any, system: str) -> None:
    check_labels(name, turns, system)


def test_a_system_message_that_the_template_ignores() -> None:
    row = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ]
    with pytest.raises(BadInput, match="`content of the system message` in row 1"):
        tokenize(make_tokenizer("phi-3-medium-4k-instruct"), row)
