"""Write presets/vllm_flags.json, the flags of the installed vLLM: ``python containers/update_vllm_flags.py``.

Run it with the Python of an environment that has the vLLM of containers/serve.Dockerfile; its CPU build has the same
flags.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "presets" / "vllm_flags.json"
SCALARS = {int: "integer", float: "number", str: "string"}


def main() -> None:
    """Describe each flag of vLLM's parser."""
    import vllm
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    flags = {name: description for action in parser._actions for name, description in describe(action)}
    flags.pop("help", None)
    for name, choices in registered_names().items():
        flags[name]["choices"] = sorted(choices)
    content = {"version": vllm.__version__.partition("+")[0], "flags": dict(sorted(flags.items()))}
    FILE.write_text(json.dumps(content, indent=1) + "\n")


def registered_names() -> dict[str, list[str]]:
    """Return the values of flags whose parser takes any text: names in vLLM's registries."""
    from typing import get_args

    from vllm import reasoning, tool_parsers
    from vllm.config.model import TokenizerMode
    from vllm.model_executor.model_loader import LoadFormats

    return {
        "tool-call-parser": list(tool_parsers._TOOL_PARSERS_TO_REGISTER),
        "reasoning-parser": list(reasoning._REASONING_PARSERS_TO_REGISTER),
        "tokenizer-mode": list(get_args(TokenizerMode)),
        "load-format": list(get_args(LoadFormats)),
    }


def describe(action: argparse.Action) -> list[tuple[str, dict[str, Any]]]:
    """Return the long flags of an action without dashes, each with its type and choices."""
    names = [option[2:] for option in action.option_strings if option.startswith("--")]
    if isinstance(action, argparse.BooleanOptionalAction) or action.nargs == 0:
        positive = [name for name in names if f"no-{name}" in names or len(names) == 1]
        return [(name, {"type": "boolean"}) for name in positive]
    description: dict[str, Any] = {"type": SCALARS.get(inner_type(action.type), "any")}
    if action.nargs in ("+", "*"):
        description["list"] = True
    if action.choices:
        description["choices"] = [choice for choice in action.choices if isinstance(choice, str | int)]
    return [(name, description) for name in names]


def inner_type(kind: Any) -> Any:
    """Return the type that an optional type accepts besides ``None``: vLLM wraps it in a function."""
    for cell in getattr(kind, "__closure__", None) or ():
        if cell.cell_contents in SCALARS:
            return cell.cell_contents
    return kind


if __name__ == "__main__":
    main()
