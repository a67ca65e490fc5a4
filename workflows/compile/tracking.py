"""What a pod is told of where metrics go: flags, and variables of the tool; credentials by reference to a Secret."""

from __future__ import annotations

from typing import Any

from hera.workflows import Env, SecretEnv

from steps.tune.tracking_tools import TOOLS
from workflows.plan.model import Plan, Tracking


def environment(plan: Plan) -> list[Any]:
    """Variables that the tool reads. Keys are optional: a pod that waits for a missing one hangs without a word."""
    if (wanted := _wanted(plan)) is None:
        return []
    tool = TOOLS[wanted.report_to]
    written = {tool.address: wanted.uri, tool.project: wanted.project}
    told = [Env(name=name, value=value) for name, value in written.items() if value]
    left = [*(name for name, value in written.items() if not value), *tool.credentials] if wanted.secret else []
    return [
        *told,
        *(SecretEnv(name=name, secret_name=wanted.secret, secret_key=name, optional=True) for name in left),
    ]


def _wanted(plan: Plan) -> Tracking | None:
    return plan.tracking if plan.tracking and plan.tracking.report_to != "none" else None
