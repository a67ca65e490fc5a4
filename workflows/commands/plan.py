"""``argotune plan``: shows the settings of a run, their origins and the estimated cost."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from workflows.commands.argument_types import count

if TYPE_CHECKING:
    from workflows.estimate.measured_speed import LocalTime
    from workflows.plan.model import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune plan``."""
    from workflows.commands import compile as compiling

    compiling.add_arguments(parser, output=False)
    parser.add_argument("--rows", type=count, metavar="COUNT", help="Training rows, to estimate hours and price")
    parser.add_argument("--all", action="store_true", help="List built-in values that are empty, 0 or false too")
    parser.add_argument(
        "-o", "--output", choices=["table", "json"], default="table", help="Output format (default: table)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the plan of each Workspace in the file, and its estimate (``estimate`` in JSON).

    If ``argotune tune-bench`` has measured this machine with the plan's settings, the hours of a local run come from
    that (``local`` in JSON).
    """
    from steps.runtime.redaction import redact
    from workflows import estimate as estimates
    from workflows.estimate import show_local
    from workflows.load_plans import load_with_manifests
    from workflows.plan import kaito_defaults, site
    from workflows.plan.layers import as_dict
    from workflows.spec.hints import hints

    for loaded in load_with_manifests(args.files, args.set, args.site, args.namespace):
        plan = loaded.plan
        for hint in hints(loaded.manifest):
            print(f"hint: {hint}", file=sys.stderr)
        differences = kaito_defaults.differences(plan, loaded.manifest)
        # The needs of a custom pod are unknown.
        estimated = estimates.estimate(plan, site.prices(args.site), args.rows) if plan.model.preset else None
        if estimated and args.rows:  # without rows, loading the plan has compared
            for warning in estimates.budget_warnings(plan, estimated):
                print(f"warning: {loaded.manifest.source.file}: {warning}", file=sys.stderr)
        local = _local_time(plan, args.rows) if estimated else None
        if args.output == "json":
            content = {
                **as_dict(plan),
                "estimate": estimates.as_dict(estimated) if estimated else None,
                "kaitoDefaults": [asdict(difference) for difference in differences],
            }
            content |= {"local": show_local.as_dict(local)} if local else {}
            print(json.dumps(redact(content), indent=2, ensure_ascii=False))
        else:
            _print_values(plan, everything=args.all)
            if differences:
                print(f"\nARGOTUNE'S DEFAULTS, AND {kaito_defaults.title(loaded.manifest)}")
                _table(("FIELD", "ARGOTUNE", "KAITO"), [(row.field, row.argotune, row.kaito) for row in differences])
            print(f"\n{estimates.as_text(estimated)}" if estimated else "\nno estimate for a custom pod")
            if local:
                print(f"\n{show_local.as_text(local.speed, local)}")
            elif estimated and plan.tuning:
                print("\nhours on this machine: not measured (argotune tune-bench FILE, with the same flags)")
    return 0


def _print_values(plan: Plan, *, everything: bool) -> None:
    """Print each value and its origin; built-in values that are empty, 0 or false only with ``everything``."""
    from steps.runtime.redaction import redact

    values = list(plan.values())
    shown = [row for row in values if everything or row[1] or row[2] != "built-in"]
    _table(("VALUE OF", "IS", "FROM"), [(path, _short(redact(value)), origin) for path, value, origin in shown])
    if hidden := len(values) - len(shown):
        print(f"{hidden} built-in values that are empty, 0 or false are not shown: --all")


def _local_time(plan: Plan, rows: int | None) -> LocalTime | None:
    """Return the hours of a local run; None if its speed was not measured."""
    from workflows.compile import settings
    from workflows.estimate import measured_speed
    from workflows.runner import volumes

    if not plan.tuning:
        return None
    speed = measured_speed.read(volumes.home(), settings.tune_bench(plan))
    return measured_speed.local_time(speed, plan, rows) if speed else None


def _table(header: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> None:
    rows = [header, *rows]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for path, value, origin in rows:
        print(f"{path:{widths[0]}}  {value:{widths[1]}}  {origin}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=lambda model: model.model_dump())
    return text if len(text) <= 60 else text[:57] + "..."
