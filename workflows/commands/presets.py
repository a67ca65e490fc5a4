"""``argotune presets``: lists the models that can be tuned and served."""

from __future__ import annotations

import argparse
import json
from typing import Any

from presets import Model, UnknownPreset, model, models
from workflows.errors import InvalidInput, Problem

_COLUMNS = ("NAME", "TUNING", "WEIGHTS", "CONTEXT", "LICENCE", "GATED")
_WIDE = ("ARCHITECTURE", "REPOSITORY", "REVISION")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``argotune presets``."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = verbs.add_parser("ls", help="List all presets", description="List all presets")
    formats = ["table", "wide", "name", "json", "yaml"]
    listing.add_argument("-o", "--output", choices=formats, default="table", help="Output format (default: table)")
    show = verbs.add_parser("show", help="Show one preset", description="Show one preset")
    show.add_argument("name", metavar="NAME", help="Preset name, older name or Hugging Face id")
    show.add_argument("-o", "--output", choices=["yaml", "json"], default="yaml", help="Output format (default: yaml)")


def run(args: argparse.Namespace) -> int:
    """List the presets, or show one.

    Raises:
        InvalidInput: no preset has this name.
    """
    if args.action == "show":
        try:
            preset = model(args.name)
        except UnknownPreset as error:
            fix = f"did you mean {', '.join(error.near)}?" if error.near else "list them with argotune presets ls"
            raise InvalidInput(Problem(f'unknown preset "{args.name}"', fix=fix)) from None
        print(_dump(_facts(preset), args.output))
    elif args.output == "name":
        print("\n".join(preset.name for preset in models()))
    elif args.output in ("json", "yaml"):
        print(_dump([_facts(preset) for preset in models()], args.output))
    else:
        _table(models(), wide=args.output == "wide")
    return 0


def _facts(preset: Model) -> dict[str, Any]:
    return preset.model_dump(mode="json", exclude_defaults=True)


def _dump(value: Any, form: str) -> str:
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip("\n")


def _table(all_models: list[Model], *, wide: bool) -> None:
    rows = [(*_COLUMNS, *(_WIDE if wide else ()))]
    for preset in all_models:
        row = (
            preset.name,
            "deprecated" if preset.deprecated else "yes" if preset.tuning else "-",
            f"{preset.weights_gib:.1f}Gi",
            str(preset.context_length),
            preset.licence,
            "yes" if preset.gated else "-",
        )
        rows.append((*row, *((preset.architecture, preset.repository, preset.revision) if wide else ())))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
