"""Rendering of messages with the chat template of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steps.runtime.errors import BadInput

UNRENDERED = ("train", "tools")
"""Fields that are not passed in messages to the template; tools are passed as its variable."""
Message = dict[str, Any]


def render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool = False, number: int = 1) -> str:
    """Render messages with the chat template; with ``prompt``, append the generation prompt.

    Raises:
        BadInput: there is no template, or it rejects the messages.
    """
    import jinja2

    if not tokenizer.chat_template:
        raise BadInput(
            "the base model's tokenizer has no chat template",
            "use a chat model, whose tokenizer has a template",
        )
    # Ordinary messages have no fields to remove.
    tools = None
    if any(len(message) > 2 for message in messages):
        tools = next((message["tools"] for message in messages if message.get("tools")), None)
        messages = [{key: value for key, value in message.items() if key not in UNRENDERED} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=prompt
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise BadInput(
            f"row {number}: rejected by the model's chat template: {error}",
            "alternate user and assistant messages; some templates accept no system message",
        ) from None
    return text


def render_changed(tokenizer: Any, messages: Sequence[Message], number: int) -> str | None:
    """Render messages that differ from those of row ``number``; None if the template rejects them."""
    try:
        return render(tokenizer, messages, number=number)
    except BadInput:
        return None
