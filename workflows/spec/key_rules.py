"""What may stand under a key of a configuration: its type, or why it cannot be honoured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field


@dataclass(frozen=True)
class Accepted:
    """Taken as written, but without effect here, and the user need not care."""

    kind: Any
    why: str


@dataclass(frozen=True)
class Warned:
    """Taken, but without effect here unless it is ``harmless``, and the user should know."""

    kind: Any
    why: str
    harmless: Any = None


@dataclass(frozen=True)
class Only:
    """Taken only with the values that say what happens anyway."""

    values: tuple[Any, ...]
    why: str
    fix: str = ""


@dataclass(frozen=True)
class Refused:
    """Known, and not honoured; a value that says that the thing is off (``false``, ``no``, ``none``) is taken."""

    why: str
    fix: str = "leave it out"


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _template(text: str) -> str:
    if "{%" not in text and "{{" not in text:
        raise ValueError("must be the Jinja text of a template itself: there are no files of KAITO's image here")
    return text


def _no_as_text(value: Any) -> Any:
    """YAML reads a bare ``no`` as false, where a strategy named "no" is meant."""
    return "no" if value is False else value


NotBool = BeforeValidator(_no_bool)
Count = Annotated[int, NotBool, Field(ge=1)]
NotNegative = Annotated[float, NotBool, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, NotBool, Field(gt=0, allow_inf_nan=False)]
Below1 = Annotated[float, NotBool, Field(ge=0, lt=1, allow_inf_nan=False)]
ChatTemplate = Annotated[str, AfterValidator(_template)]
DType = Literal["bfloat16", "float16", "float32"]
Interval = Annotated[Literal["no", "steps", "epoch"], BeforeValidator(_no_as_text)]
Name = Annotated[str, Field(min_length=1)]
Names = list[str]
Map = dict[str, Any]
Keys = Mapping[str, Any]
