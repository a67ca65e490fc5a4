"""Exit codes of steps and of commands that run them."""

from __future__ import annotations

from steps.runtime.errors import BadInput, GateFailed, InsufficientCapacity, TimeLimit
from workflows.errors import Cancelled

FAILED = 1
TIME_LIMIT = TimeLimit.exit_code
NOT_RETRYABLE = (
    BadInput.exit_code,
    GateFailed.exit_code,
    InsufficientCapacity.exit_code,
    Cancelled.exit_code,
    TIME_LIMIT,
)
"""Codes of errors that another attempt would repeat; a failed step passes them on to the run."""
