"""A step's settings as the argument list of its container."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from steps.runtime import entrypoint
from steps.runtime.options import Options
from workflows.compile.parameters import DATA_URLS
from workflows.errors import InvalidInput, Problem
from workflows.spec.sources import MAX_ARGUMENT_BYTES

FLAGS = {DATA_URLS: "--urls"}
"""Flags of inputs that have another name."""


def arguments(
    settings: Options, inputs: Sequence[str] = (), variables: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Return the flags of settings, in the order of the fields; a flag at its default is omitted.

    Args:
        settings: validated settings of a step.
        inputs: names of the template's inputs; each replaces the value of its flag by Argo's placeholder.
        variables: Argo's placeholders of other values, by the name of the flag that gets them.
    """
    values = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    placeholders = {FLAGS.get(name, f"--{name}"): f"{{{{inputs.parameters.{name}}}}}" for name in inputs}
    placeholders |= {f"--{name}": placeholder for name, placeholder in variables.items()}
    args = []
    flags = _flags(type(settings))
    for name, flag in flags.items():
        if flag in placeholders:
            args += [flag, placeholders[flag]]
        elif name in values:
            text = as_text(values[name])
            # A text that looks like a flag stays in one word with its own.
            args += [f"{flag}={text}"] if text.partition("=")[0] in flags.values() else [flag, text]
    return args


def check_size(step: str, args: Sequence[str]) -> None:
    """Reject an argument that Linux does not pass to a process, before anything runs.

    Raises:
        InvalidInput: with the flag of each.
    """
    sizes = zip(["", *args], [len(arg.encode(errors="surrogateescape")) for arg in args], strict=False)
    problems = [
        Problem(
            f"{flag} has {size} bytes; an argument of a process has at most {MAX_ARGUMENT_BYTES - 1} bytes",
            path=f"step {step}",
            fix="shorten the texts of the Workspace, or use fewer URLs",
        )
        for flag, size in sizes
        if size >= MAX_ARGUMENT_BYTES
    ]
    if problems:
        raise InvalidInput(problems)


@cache
def _flags(settings_type: type[Options]) -> dict[str, str]:
    """Return the flag of each field, in the order of the fields."""
    names = [field.alias or name for name, field in settings_type.model_fields.items()]
    return {name: entrypoint.flag(name) for name in names}


def as_text(value: Any) -> str:
    """Return a value as one argument: a string as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    # Adjacent braces occur within strings only (a chat template); escaped, they are no placeholder to Argo.
    return json.dumps(value, ensure_ascii=False).replace("{{", "\\u007b\\u007b")
