"""The texts and token ids of a request for completions, whose length limits are about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PARSED = "argotune.request"
"""Key of an ASGI scope with the parsed request for completions."""
MEDIA = ("image_url", "input_audio", "audio_url", "video_url", "image", "audio", "video")
"""Keys of content that is not tokenized as text."""


def list_prompts(prompt: Any) -> list[Any]:
    """Return the prompts of ``/v1/completions``: texts, or lists of token ids."""
    return prompt if isinstance(prompt, list) and not _are_tokens(prompt) else [prompt]


def iter_texts(value: Any) -> Iterator[str]:
    """Yield the texts of messages; images, audio and video have other limits."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            stack += item
        elif isinstance(item, dict):
            stack += [entry for key, entry in item.items() if key not in MEDIA]


def _are_tokens(prompt: list[Any]) -> bool:
    return bool(prompt) and isinstance(prompt[0], int)
