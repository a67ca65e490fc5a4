"""A step's settings as the argument list of its container."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from steps.runtime import entrypoint
from steps.runtime.options import Options
from workflows.compile.parameters import DATA_URLS

FLAGS = {DATA_URLS: "--urls"}
"""Flags of inputs that have another name."""
LONG = ("--urls",)
"""Flags of inputs that people can set to a text of any length."""
MAX_TEXT_BYTES = 64 * 1024
"""Longest text in an argument."""


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


def long_texts(args: Sequence[str], flags: Iterable[str], folder: str) -> tuple[list[str], dict[str, str]]:
    """Move texts that can be too long for an argument into files, which steps read with ``--FLAG-file PATH``.

    Linux passes at most 128 KiB in one argument, and rejects more when the step starts.

    Args:
        args: the arguments, as ``arguments`` returns them.
        flags: flags whose text is unknown before the run, so that it can be long.
        folder: directory of the files in the pod.

    Returns:
        The arguments, and the texts by the path of their file.
    """
    files: dict[str, str] = {}
    new: list[str] = []
    words = iter(args)
    for word in words:
        flag, equals, text = word.partition("=")
        text = text if equals else next(words)
        if flag in flags or len(text.encode(errors="surrogatepass")) > MAX_TEXT_BYTES:
            path = f"{folder}/{flag.removeprefix('--')}"
            files[path] = text
            new += [f"{flag}{entrypoint.FILE_SUFFIX}", path]
        else:
            new += [word] if equals else [word, text]
    return new, files


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
