"""``argotune compile``: prints the Argo object (Workflow, template or CronWorkflow) of each Workspace in a file."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from workflows.errors import InvalidInput, Problem

EXAMPLES = """examples:
  argotune compile workspace.yaml | argo submit -
  argotune compile workspace.yaml -o json --set tuning.epochs=1 > workflow.json
  argotune compile workspace.yaml --as template | kubectl apply -f -    runs start from the form of the Argo UI
  argotune compile workspace.yaml --as cron | kubectl apply -f -        tuned anew as pipeline.schedule says
"""
KINDS = ("workflow", "template", "cluster-template", "cron")


def add_arguments(parser: argparse.ArgumentParser, output: bool = True) -> None:
    """Declare the flags that say what to compile; ``argotune plan`` and ``argotune run`` share them."""
    parser.add_argument("file", metavar="FILE", help="Workspace file (YAML); '-' reads standard input")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="set a value of the plan (see 'argotune plan')",
    )
    parser.add_argument(
        "--site", metavar="FILE", help="site profile (default: $ARGOTUNE_SITE or ~/.argotune/site.yaml)"
    )
    parser.add_argument("-n", "--namespace", help="namespace to submit to")
    if output:
        parser.epilog = EXAMPLES
        parser.add_argument(
            "--as", dest="kind", choices=KINDS, default="workflow", help="kind of Argo object (default: workflow)"
        )
        parser.add_argument("-o", "--output", choices=["yaml", "json"], default="yaml", help="default: yaml")


def run(args: argparse.Namespace) -> int:
    """Print the objects as YAML that Argo's reader takes as it was meant, or one as JSON."""
    from workflows.compile import emit

    documents = compile_file(args, args.kind)
    if args.output == "yaml":
        print(emit.to_yaml(*documents), end="")
    elif len(documents) > 1:
        raise InvalidInput(Problem("holds several Workspaces; JSON has room for one", args.file, fix="use -o yaml"))
    else:
        print(emit.to_json(documents[0]), end="")
    return 0


def compile_file(args: argparse.Namespace, kind: str = "workflow") -> list[dict[str, Any]]:
    """Compile every Workspace of ``args.file`` to the Argo object of a kind; warnings go to standard error.

    Raises:
        InvalidInput: with all that is wrong in the file, in the flags and in the site profile, or for that kind.
    """
    from workflows.compile.kinds import compile_as
    from workflows.resolve import plans

    documents, problems = [], []
    for plan in plans(args.file, args.set, args.site, args.namespace):
        try:
            documents.append(compile_as(plan, kind))
        except InvalidInput as error:
            problems += [replace(problem, file=args.file) for problem in error.problems]
    if problems:
        raise InvalidInput(problems)
    return documents


def read_workflow(file: str) -> dict[str, Any] | None:
    """The Argo Workflow that ``file`` holds, or None where it holds something else (a Workspace, or nonsense)."""
    if file == "-" or not Path(file).is_file():
        return None
    try:
        content = yaml.load(Path(file).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    is_workflow = isinstance(content, dict) and str(content.get("apiVersion", "")).startswith("argoproj.io/")
    return content if is_workflow else None
