"""vLLM's flags of ``inference_config.yaml``, checked against the list of the vLLM in containers/serve.Dockerfile."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import presets
from presets import Sku, VllmFlag
from steps.runtime.validation_messages import format_value
from workflows.spec.findings import Findings
from workflows.spec.key_rules import as_boolean

PARALLEL = ("tensor-parallel-size", "pipeline-parallel-size")
"""Flags whose product is the number of GPUs of a server."""


REMOVED = {
    "swap-space": "vLLM recomputes preempted requests",
    "num-scheduler-steps": "vLLM schedules asynchronously",
    "max-seq-len-to-capture": "vLLM captures CUDA graphs by batch size",
    "disable-log-requests": "vLLM does not log requests by default",
    "use-v2-block-manager": "it is the only one",
}
"""Flags of older versions of vLLM, in KAITO's examples, without an effect on results, and why they are not needed."""
PLUGINS = {"tool-call-parser": "tool-parser-plugin", "reasoning-parser": "reasoning-parser-plugin"}
"""Flags whose values a plugin adds to, and the plugin's flag."""


def find_error(flag: str, value: Any, others: Collection[str] = ()) -> tuple[str, str] | None:
    """Return what is wrong with a flag and its value, and the fix; None if vLLM accepts both.

    Args:
        flag: Name in normalized spelling.
        value: Value in YAML.
        others: The other flags.
    """
    known = presets.vllm_flags()
    head, dot, _ = flag.partition(".")
    description = known.flags.get(head) or known.flags.get(head.removeprefix("no-"))
    if description is None:
        near = difflib.get_close_matches(head, known.flags, n=3)
        fix = f"did you mean {', '.join(near)}?" if near else "remove it; vllm serve --help lists the flags"
        return f"vLLM {known.version} has no such flag", fix
    if dot or PLUGINS.get(head) in others:
        return None  # a key of a JSON value, or a name that the plugin defines
    return _value_error(description, value)


def convert(flag: str, value: Any) -> Any:
    """Return the value of a valid flag with its type in YAML: booleans can be words."""
    flags = presets.vllm_flags().flags
    description = flags.get(flag) or flags.get(flag.removeprefix("no-"))
    return as_boolean(value) if description and description.type_ == "boolean" else value


def check_gpus(flags: Mapping[str, Any], machine: Sku | None, findings: Findings) -> None:
    """Report parallel sizes that need more GPUs than a node has."""
    sizes = {flag: int(flags[flag]) for flag in PARALLEL if str(flags.get(flag, "")).isdecimal()}
    needed = 1
    for size in sizes.values():
        needed *= size
    if machine and needed > machine.gpus:
        what = (
            f"{' and '.join(f'{flag} {size}' for flag, size in sizes.items())} need {needed} GPUs, but a "
            f"{machine.name} has {machine.gpus}"
        )
        fix = f"write at most {machine.gpus}, or an instanceType with {needed} GPUs"
        findings.error(f"inference_config.vllm.{next(iter(sizes))}", what, fix)


def _value_error(flag: VllmFlag, value: Any) -> tuple[str, str] | None:
    if flag.list_ and isinstance(value, list):
        return next((error for error in (_value_error(flag, item) for item in value) if error), None)
    text = format_value(value)
    if flag.choices and str(value) not in map(str, flag.choices):
        near = difflib.get_close_matches(str(value), map(str, flag.choices), n=1)
        fix = f"did you mean {near[0]}?" if near else f"write one of {', '.join(map(str, flag.choices))}"
        return f"{text} is not a value of this flag", fix
    if flag.type_ == "boolean" and not isinstance(as_boolean(value), bool):
        return f"must be true or false, not {text}", "write true or false"
    if flag.type_ == "integer" and not _is_number(value, int):
        return f"must be a whole number, not {text}", "write a whole number"
    if flag.type_ == "number" and not _is_number(value, float):
        return f"must be a number, not {text}", "write a number"
    if flag.type_ == "string" and (isinstance(value, bool | dict | list) or value is None):
        return f"must be a text, not {text}", "write a text"
    return None


def _is_number(value: Any, kind: type[int] | type[float]) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, str) if kind is int else (int, float, str)):
        return False
    try:
        kind(value)
    except ValueError:
        return False
    return True
