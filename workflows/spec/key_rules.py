"""Rules for the keys of a configuration: the type, or the reason why it is not supported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

import presets


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


def as_boolean(value: Any) -> Any:
    """Return true or false for its word, as argparse reads it; other values unchanged."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _template(text: str) -> str:
    if text.startswith(presets.CHAT_TEMPLATES):
        try:
            return presets.chat_template(text)
        except LookupError as error:
            raise ValueError(f"must be Jinja text, or a chat template of KAITO's image ({error})") from None
    if "{%" not in text and "{{" not in text:
        raise ValueError("must be Jinja text, or a chat template of KAITO's image")
    return text


def _split(value: Any) -> Any:
    """Convert the names in a string to a list, as KAITO does with one name."""
    return value.replace(",", " ").split() if isinstance(value, str) and value != "all-linear" else value


def _module_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.]+", name):
        raise ValueError(f"must be names of layers, and {name!r} is a pattern")
    return name


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
ModuleName = Annotated[str, AfterValidator(_module_name)]
Modules = Annotated[list[ModuleName] | Literal["all-linear"], BeforeValidator(_split)]
"""Names of layers: a list, or text with commas."""
Map = dict[str, Any]
Keys = Mapping[str, Any]
