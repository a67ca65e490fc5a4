"""Types of command-line arguments that several commands have."""

from __future__ import annotations

import argparse

DEFAULT_PRESET = "smollm2-135m-instruct"
"""The smallest preset: the model of commands to which the user gives none."""


def count(text: str) -> int:
    """Return a number of at least 1.

    Raises:
        ValueError, argparse.ArgumentTypeError: it is none.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
