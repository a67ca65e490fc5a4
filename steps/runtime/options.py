"""Base class of everything a user can set: step settings, and the options that a Workspace shares with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_SEED = 2**32 - 1
"""Largest seed that NumPy and transformers accept."""
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
OptionalFolder = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""Path of a folder, or None for an empty flag (and not the current directory)."""


class Options(BaseModel):
    """Frozen model whose field names are flags and whose field docstrings are their help.

    A setting that users know is declared once, in a subclass in ``steps/*/settings.py``: name, type, bounds, default
    and docstring. The step's ``Settings``, the ``pipeline:`` block of a Workspace (``workflows/spec/pipeline.py``) and
    the plan (``workflows/plan/model.py``) inherit it.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
