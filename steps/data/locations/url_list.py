"""A list of URLs as text: one a line, as people write it in a form, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator


def parse_urls(value: Any) -> Any:
    """Return the URLs of a text, one a line or as JSON; other values unchanged.

    Raises:
        ValueError: the text begins as JSON, and is none.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text.startswith(("[", "{", '"')):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        urls = json.loads(text)
    except ValueError as error:
        raise ValueError(f"must be one URL a line, or a JSON list of URLs ({error})") from None
    return [urls] if isinstance(urls, str) else urls


def format_urls(urls: Sequence[str]) -> str:
    """Return URLs as text, one a line; as JSON if lines would not be read back, or Kubernetes would change them."""
    text = "\n".join(urls)
    # Kubernetes would replace $(NAME) by a variable of the pod.
    is_plain = "$(" not in text and parse_urls(text) == list(urls)
    return text if is_plain else json.dumps(list(urls)).replace("$(", "\\u0024(")


Urls = Annotated[list[str], BeforeValidator(parse_urls)]
