"""Rules for the keys of a configuration: the type, or the reason why it is not supported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field


@dataclass(frozen=True)
class Ignored:
    """Key that is accepted without effect."""

    kind: Any
    why: str


@dataclass(frozen=True)
class IgnoredWithWarning:
    """Key that is accepted without effect, with a warning unless the value is ``harmless``."""

    kind: Any
    why: str
    harmless: Any = None


@dataclass(frozen=True)
class FixedValue:
    """Key that is accepted only with the values that describe the actual behavior."""

    values: tuple[Any, ...]
    why: str
    fix: str = ""


@dataclass(frozen=True)
class Unsupported:
    """Key that is not supported; values that disable it (``false``, ``no``, ``none``) are accepted."""

    why: str
    fix: str = "remove it"


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _template(text: str) -> str:
    if "{%" not in text and "{{" not in text:
        raise ValueError("must be Jinja text: files of KAITO's image are not available")
    return text


def _no_as_text(value: Any) -> Any:
    """Convert false to "no": YAML reads a bare ``no`` as false, but here it names a strategy."""
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
