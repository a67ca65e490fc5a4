"""JSON from outside, where every text that is no value is a ValueError. Standard library only, as servers read it."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes | bytearray) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is not JSON or not UTF-8, or nested so deeply that the parser gives up (RecursionError).
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
