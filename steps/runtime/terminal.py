"""Text from outside (model answers, server errors, logs of a cluster) on a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls, except tab and line feed, and the controls of writing direction, which hide text.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """Return ``text`` with its control characters spelled out, so that a terminal executes none of them."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text.replace("\r\n", "\n"))
