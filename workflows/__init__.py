"""Compiler and tools for KAITO-style Workspaces: validate, plan, compile to Argo Workflows, run and submit.

To compose workflows in Python: ``from workflows import Templates, load, pipeline, to_yaml``; see
``help("workflows.api")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflows.api import Templates, load, pipeline, submit, to_dict, to_yaml

__all__ = ["Templates", "load", "pipeline", "submit", "to_dict", "to_yaml"]


def __getattr__(name: str) -> Any:
    # Importing Hera takes most of a second, and few commands need it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workflows import api

    return getattr(api, name)
