"""Check of a chat template: it parses, and its generation prompt precedes answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

QUESTION, ANSWER = "argotune-question", "argotune-answer"
_GENERATION = re.compile(r"(\{%-?\s*)(end)?generation(\s*-?%\})")


def find_error(template: str) -> tuple[str, str] | None:
    """Return what is wrong with a template and how to fix it; None if nothing is, or it rejects the example."""
    import jinja2

    try:
        render = _compile(template)
    except jinja2.TemplateSyntaxError as error:
        return f"line {error.lineno} does not parse: {error.message}", "correct the Jinja text"
    question, answer = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}
    try:
        prompt, without = (render([question], add_generation_prompt=flag) for flag in (True, False))
        row = render([question, answer], add_generation_prompt=False)
    except Exception:  # the template can call anything; it may need variables of the tokenizer
        return None
    if QUESTION not in prompt or ANSWER not in row:
        missing = "user" if QUESTION not in prompt else "assistant"
        return f"does not render the content of {missing} messages", "write {{ message['content'] }} for each role"
    rest = row.removeprefix(prompt)
    if prompt == without and not rest.lstrip().startswith(ANSWER):
        header = rest.partition(ANSWER)[0]
        return (
            f"has no generation prompt: answers begin with {header!r}, which questions do not end with",
            f"append {{% if add_generation_prompt %}}{{{{ {header!r} }}}}{{% endif %}}",
        )
    return None


def _compile(template: str) -> Callable[..., str]:
    """Compile a template as transformers does: sandboxed, with loop controls and without ``generation`` markers."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: form
    without_markers = _GENERATION.sub(lambda tag: f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}", template)
    compiled = environment.from_string(without_markers)

    def render(messages: list[dict[str, Any]], **values: Any) -> str:
        return compiled.render(messages=messages, bos_token="", eos_token="", tools=None, **values)

    return render
