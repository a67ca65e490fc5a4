"""Chat templates of all presets, with what an answer is in each.

A template is Jinja, or the name of trl's copy of the model's own. Those written here follow the published prompt
formats; they were not compared with the files of the hub.
"""
# ruff: noqa: RUF001

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trainable_model

import presets

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
# The system message precedes the last question, which is the last message of a prompt only.
MISTRAL_V3 = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% set ns.system = m['content'] + '\n\n' %}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + (ns.system if loop.last else '') + m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_V7 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' + m['content'] + '[/SYSTEM_PROMPT]' }}"
    "{% elif m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
SMOLLM3 = (
    "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nReasoning Mode: /think\n\n"
    "## Custom Instructions\n\n{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}\n\n"
    "<|im_end|>\n{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '<|im_start|>user\n' + m['content'] + '<|im_end|>\n' }}{% elif m['role'] == 'assistant' %}"
    "{% generation %}{{ '<|im_start|>assistant\n' + m['content'].lstrip('\n') + '<|im_end|>\n' }}{% endgeneration %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GRANITE4 = (
    "{% for m in messages %}{{ '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] }}"
    "{% for call in m['tool_calls'] or [] %}{{ '\n<tool_call>\n' + call['function'] | tojson + '\n</tool_call>' }}"
    "{% endfor %}{{ '<|end_of_text|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
OLMO2 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '' if loop.last else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
)
# Its last answer ends with another token than the ones before.
OLMO3 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful function-calling AI assistant. "
    "You do not currently have access to any functions. <functions></functions><|im_end|>\n{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ eos_token }}{% else %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Template:
    """A chat template, and the learned text of an answer."""

    source: str
    end: str
    """End token of an answer."""
    opening: str = ""
    """What the template writes before each answer, and the prompt does not have."""
    opening_of_last: bool = False
    """The model's own template has the opening in the last answer only; trl's template, which is used if the last
    answer is learned, in all."""
    strip: bool = False
    """White space around contents is removed."""
    lstrip: str = ""
    """Characters removed from the start of answers; with ``opening_of_last``, of those with the opening."""
    last_end: str = ""
    """End token of the last message, if it is another one."""
    has_system: bool = True
    eos: str = ""
    """End token of the tokenizer, if it is not ``end``."""

    @property
    def end_is_shared(self) -> bool:
        """True if the turns of users end with the same token."""
        return not self.last_end and self.end not in ("</s>", "<|endoftext|>", "<｜end▁of▁sentence｜>")

    def answer(self, content: str, *, last: bool, opened: bool) -> str:
        """Return the learned text of an answer."""
        opens = opened or not self.opening_of_last
        opening = self.opening if opens else ""
        content = content.strip() if self.strip else content.lstrip(self.lstrip) if self.lstrip and opens else content
        return opening + content + (self.last_end if last and self.last_end else self.end)


NO_THOUGHTS = "<think>\n\n</think>\n\n"
LLAMA = Template("llama3_1", "<|eot_id|>", strip=True)
LLAMA_3_2 = Template("llama3_2", "<|eot_id|>", strip=True)
QWEN3 = Template("qwen3", "<|im_end|>", opening=NO_THOUGHTS, opening_of_last=True, lstrip="\n")
GEMMA3 = Template("gemma3", "<end_of_turn>", strip=True)
DISTILLED = Template("deepseek_r1_distill", "<｜end▁of▁sentence｜>")
PHI3_MINI = Template("phi3", "<|end|>")
MEDIUM = Template(PHI3_MEDIUM, "<|end|>", has_system=False)
QWEN2 = Template("qwen2_5", "<|im_end|>")
TEMPLATES = {
    "llama-3.1-8b-instruct": LLAMA,
    "llama-3.2-1b-instruct": LLAMA_3_2,
    "llama-3.2-3b-instruct": LLAMA_3_2,
    "llama-3.3-70b-instruct": LLAMA,
    "phi-3-mini-4k-instruct": PHI3_MINI,
    "phi-3-mini-128k-instruct": PHI3_MINI,
    "phi-3-medium-4k-instruct": MEDIUM,
    "phi-3-medium-128k-instruct": MEDIUM,
    "phi-3.5-mini-instruct": Template("phi3_5", "<|end|>"),
    "phi-4": Template(PHI4, "<|im_end|>"),
    "phi-4-mini-instruct": Template(PHI4_MINI, "<|end|>"),
    "qwen2.5-coder-7b-instruct": QWEN2,
    "qwen2.5-coder-32b-instruct": QWEN2,
    **{f"qwen3-{size}": QWEN3 for size in ("0.6b", "1.7b", "4b", "8b", "14b", "32b")},
    "qwen3.5-9b": Template("qwen3_5_think", "<|im_end|>", opening=NO_THOUGHTS, strip=True),
    **{f"gemma-3-{size}-instruct": GEMMA3 for size in ("1b", "4b", "12b", "27b")},
    "gemma-4-e2b-instruct": Template("gemma4_v5", "<turn|>", strip=True),
    "mistral-7b-instruct": Template(MISTRAL_V3, "</s>", has_system=False),
    "mistral-small-24b-instruct": Template(MISTRAL_V7, "</s>"),
    "ministral-8b-instruct": Template(MISTRAL_V3, "</s>", has_system=False),
    "smollm2-135m-instruct": Template(SMOLLM2, "<|im_end|>"),
    "smollm3-3b": Template(SMOLLM3, "<|im_end|>", lstrip="\n"),
    "deepseek-r1-distill-llama-8b": DISTILLED,
    "deepseek-r1-distill-qwen-14b": DISTILLED,
    "granite-4.0-micro": Template(GRANITE4, "<|end_of_text|>"),
    "olmo-2-7b-instruct": Template(OLMO2, "<|endoftext|>"),
    "olmo-3-7b-instruct": Template(OLMO3, "<|im_end|>", last_end="<|endoftext|>", eos="<|endoftext|>"),
}
"""By preset."""
# gpt-oss is not a preset: its weights are quantized. A copy in 16 bits can be tuned by its id.
GPT_OSS = Template("gptoss", "<|end|>", opening="<|channel|>final<|message|>", last_end="<|return|>")
ALL = TEMPLATES | {"gpt-oss": GPT_OSS}
DIFFERENT = sorted({template.source: name for name, template in ALL.items()}.values())
SPECIAL = [
    *("<|eot_id|>", "<|end|>", "<|im_sep|>", "<|user|>", "<|assistant|>", "<|system|>", "</s>", "[INST]", "[/INST]"),
    *(
        "[SYSTEM_PROMPT]",
        "[/SYSTEM_PROMPT]",
        "<end_of_turn>",
        "<start_of_turn>",
        "<turn|>",
        "<|turn>",
        "<|end_of_text|>",
    ),
    *("<|start_of_role|>", "<|end_of_role|>", "<｜Assistant｜>", "<｜User｜>", "<｜end▁of▁sentence｜>", "<|return|>"),
    *("<|start|>", "<|channel|>", "<|message|>", "<|start_header_id|>", "<|end_header_id|>", "<think>", "</think>"),
]


@functools.cache
def make_tokenizer(name: str) -> Any:
    """Return a small tokenizer with the template of a preset."""
    template = ALL[name]
    tokenizer = trainable_model.make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.eos_token = template.eos or template.end
    tokenizer.chat_template = read(template.source)
    return tokenizer


def read(source: str) -> str:
    """Return the text of a template."""
    if "{" in source:
        return source
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{source}.jinja").read_text()


def presets_with_template() -> set[str]:
    """Return the names of the presets whose tokenizer has a chat template."""
    return {model.name for model in presets.models() if model.chat_template == "tokenizer"}
