"""Property of labels, for the chat templates of all presets: learned messages are learned whole, and nothing else."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preset_templates import ALL, DIFFERENT, MISTRAL_V3, TEMPLATES, make_tokenizer, presets_with_template

from steps.data.chat_tokens import IGNORED, tokenize
from steps.runtime.errors import BadInput

EXAMPLES = int(os.environ.get("ARGOTUNE_LABEL_EXAMPLES", "2000"))
"""Examples of each template in the slow test."""
ANSWERS = st.text(max_size=12) | st.text(
    st.sampled_from([*"abc .\n\t ", "\u00e9", "\u4e2d", "\U0001f600"]), max_size=12
)
QUESTIONS = st.text(st.sampled_from([*"abc?", "\u4e2d"]), min_size=1, max_size=8)
TURNS = st.lists(
    st.tuples(QUESTIONS, st.sampled_from([None, False, True]), ANSWERS, st.sampled_from([None, None, False, True])),
    min_size=1,
    max_size=3,
)


def test_all_presets_with_a_template_are_tested() -> None:
    assert set(TEMPLATES) == presets_with_template()


def check_labels(name: str, turns: list[tuple[str, bool | None, str, bool | None]], system: str) -> None:
    """Check that the learned runs of tokens are the answers and messages with weight 1, each with its end token."""
    tokenizer, template = make_tokenizer(name), ALL[name]
    row: list[dict[str, Any]] = []
    for question, asked, answer, learned in turns:
        # A message of a user can be learned if it can be located: not beside an opening that depends on its place.
        weight = {} if asked is None or template.opening or not template.end_is_shared else {"train": asked}
        row.append({"role": "user", "content": question} | weight)
        row.append({"role": "assistant", "content": answer} | ({} if learned is None else {"train": learned}))
    if system and template.has_system:
        row.insert(0, {"role": "system", "content": system})
    expected, opened = [], row[-1].get("train", True)
    for index, message in enumerate(row):
        if message.get("train", message["role"] == "assistant"):
            last = index == len(row) - 1
            answer = template.answer(message["content"], last=last, opened=opened)
            expected.append(answer if message["role"] == "assistant" else message["content"] + template.end)
    runs: list[list[int]] = [[]]
    for label in tokenize(tokenizer, row).labels:
        runs[-1].append(label) if label != IGNORED else runs.append([])
    decoded = [tokenizer.decode(run) for run in runs if run]
    if template.source == MISTRAL_V3:  # its answers begin with a space, which a token can share with the first word
        decoded, expected = [text.lstrip(" ") for text in decoded], [text.lstrip(" ") for text in expected]
    assert decoded == expected


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
