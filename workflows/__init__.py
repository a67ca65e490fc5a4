"""Reads a KAITO-style Workspace, plans it, writes the Argo Workflow and runs that on one machine.

To compose workflows of your own in Python: ``from workflows import Templates, load, pipeline, to_yaml``; how is told
by ``help("workflows.api")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflows.api import Templates, load, pipeline, submit, to_dict, to_yaml

__all__ = ["Templates", "load", "pipeline", "submit", "to_dict", "to_yaml"]


def __getattr__(name: str) -> Any:
    # Hera takes most of a second to import, and the command line rarely needs it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workflows import api

    return getattr(api, name)
