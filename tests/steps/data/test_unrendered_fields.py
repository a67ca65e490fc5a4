"""Values that a chat template does not render are refused by row and field, wherever they are in a message."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trainable_model
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data import chat_tokens
from steps.data.chat_tokens import tokenize_rows
from steps.data.unrendered_fields import OPEN_KEYS, check_rendered
from steps.runtime.errors import BadInput

TEMPLATE = """
{%- macro dump(value) %}
{%- if value is mapping %}{% for key, inner in value.items() %}{% if key not in dropped %}
{{- key }}: {{ dump(inner) }};{% endif %}{% endfor %}
{%- elif value is iterable and value is not string %}{% for inner in value %}[{{ dump(inner) }}]{% endfor %}
{%- else %}{{ value }}{% endif %}{% endmacro %}
{%- if tools %}<|im_start|>system
{{ dump({'tools': tools}) }}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m['role'] }}
{% if 'content' not in dropped %}{{ m['content'] }}{% endif %}
{%- for key, inner in m.items() if key not in ['role', 'content'] and key not in dropped %}{{ key }}: {{ dump(inner) }}
{%- endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Renders everything except the keys of the list ``dropped``, at any depth."""
KEYS = st.sampled_from(["volume", "path", "q", "unit", "filter"])
SCALARS = st.booleans() | st.integers(-5, 5) | st.floats(0, 1) | st.text('abc\u00e9" \\', min_size=1, max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, min_size=1, max_size=2) | st.dictionaries(KEYS, inner, min_size=1)
)
ARGUMENTS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)
TEXTS = st.text("abc ", min_size=1, max_size=6).filter(str.strip)
CALLS = st.builds(
    lambda name, arguments: {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}},
    TEXTS,
    ARGUMENTS,
)
TOOLS = st.builds(
    lambda name, about, fields: {"function": {"name": name, "description": about, "parameters": fields}},
    TEXTS,
    TEXTS,
    ARGUMENTS.map(lambda fields: {"type": "object", "properties": fields}),
)
ANSWERS = st.fixed_dictionaries(
    {"content": TEXTS | st.just("")},
    optional={
        "reasoning_content": TEXTS,
        "tool_calls": st.lists(CALLS, min_size=1, max_size=2),
        "parts": st.lists(st.fixed_dictionaries({"kind": TEXTS, "score": SCALARS}), min_size=1, max_size=2),
    },
)
ROWS = st.builds(
    lambda question, tools, answers: [
        {"role": "user", "content": question} | ({"tools": tools} if tools else {}),
        *({"role": "assistant"} | answer for answer in answers),
    ],
    TEXTS,
    st.lists(TOOLS, max_size=2),
    st.lists(ANSWERS, min_size=1, max_size=2),
)
TOKENIZER = trainable_model.make_tokenizer()


def check(row: Any, *dropped: str) -> None:
    TOKENIZER.chat_template = "{% set dropped = " + json.dumps(list(dropped)) + " %}" + TEMPLATE
    check_rendered(TOKENIZER, [row], [chat_tokens.render(TOKENIZER, row)], 7)


def keys_with_values(value: Any) -> set[str]:
    """Return the keys under which a value is text that is not blank, or a number."""
    if isinstance(value, list):
        return set().union(*map(keys_with_values, value))
    if not isinstance(value, dict):
        return set()
    found: set[str] = set()
    for key, inner in value.items():
        is_leaf = not isinstance(inner, dict | list) and bool(str(inner).strip())
        found |= ({key} if is_leaf else set()) | keys_with_values(inner)
    return found


@given(row=ROWS, data=st.data())
@settings(max_examples=60)
def test_each_dropped_value_is_noticed(row: list[dict[str, Any]], data: st.DataObject) -> None:
    check(row)
    checked = keys_with_values(row) - {"role", "id", "type"}
    key = data.draw(st.sampled_from(sorted(checked)))
    with pytest.raises(BadInput, match="does not render these fields of messages") as raised:
        check(row, key)
    assert "in row 7" in raised.value.message


@given(row=ROWS)
@settings(max_examples=25)
def test_whole_fields_are_named_alone(row: list[dict[str, Any]]) -> None:
    for name in {key for message in row for key in message} - {"role", "content", "tools"}:
        with pytest.raises(BadInput) as raised:
            check(row, name)
        assert f"`{name}` in row 7" in raised.value.message


def test_keys_of_arguments_are_values_too() -> None:
    call = {"function": {"name": "df", "arguments": {"volume": "a"}}}
    row = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert "arguments" in OPEN_KEYS
    TOKENIZER.chat_template = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
        "{{ c.function.arguments.values() | join }}{% endfor %}{% endfor %}"
    )
    with pytest.raises(BadInput, match=r"`tool_calls\.function\.arguments\.volume` in row 1"):
        check_rendered(TOKENIZER, [row], [chat_tokens.render(TOKENIZER, row)], 1)


def test_a_role_that_the_template_skips() -> None:
    TOKENIZER.chat_template = (
        "{% for m in messages if m.role != 'tool' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    plain = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    row = [*plain, {"role": "tool", "content": "y"}, {"role": "assistant", "content": "z"}]
    with pytest.raises(BadInput, match="`content of the tool message` in rows 2, 4"):
        list(tokenize_rows(TOKENIZER, [plain, row, plain, row]))
