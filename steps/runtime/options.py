"""Base class of everything a user can set: step settings, and the options that a Workspace shares with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_SEED = 2**32 - 1
"""Largest seed that NumPy and transformers accept."""
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
OptionalFolder = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""Path of a folder, or None for an empty flag (and not the current directory)."""


OptionalPath = OptionalFolder
"""Path of a file, or None for an empty flag."""


@dataclass(frozen=True)
class FreeText:
    """Metadata of a text field that people read: it is never a path, whatever it begins with."""


@dataclass(frozen=True)
class Pattern:
    """Metadata of a text field: a regular expression, and what the message about other text calls it."""

    regex: str
    description: str
    """For example ``a quantity such as 50Gi``."""

    def check(self, text: str) -> str:
        """Return the text.

        Raises:
            ValueError: it does not match.
        """
        if not re.fullmatch(self.regex, text):
            raise ValueError(f"must be {self.description}, not {text!r}")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.regex}$"}


class Options(BaseModel):
    """Frozen model whose field names are flags and whose field docstrings are their help.

    A setting that users know is declared once, in a subclass in ``steps/*/settings.py``: name, type, bounds, default
    and docstring. The step's ``Settings``, the ``pipeline:`` block of a Workspace (``workflows/spec/pipeline.py``) and
    the plan (``workflows/plan/model.py``) inherit it.
    """

    PARAMETERS: ClassVar[Mapping[str, str]] = {}
    """Names of the Workflow's parameters that set fields, by field."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @classmethod
    def check_texts(cls, texts: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return errors of flags that contradict each other: field and message; ``texts`` are values by field."""
        return []
