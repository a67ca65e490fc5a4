"""``argotune compile``: prints the Argo object (Workflow, template or CronWorkflow) of each Workspace in files."""

from __future__ import annotations

import argparse
import gc
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from workflows.errors import InvalidInput, Problem

EXAMPLES = """Examples:
  # Compile a Workspace and submit the Workflow with the argo CLI
  argotune compile workspace.yaml | argo submit -
  # Override a setting and write JSON
  argotune compile workspace.yaml -o json --set tuning.epochs=1 > workflow.json
  # Create a WorkflowTemplate, to start runs from a form in the Argo UI
  argotune compile workspace.yaml --as template | kubectl apply -f -
  # Create a CronWorkflow, to retrain on pipeline.schedule
  argotune compile workspace.yaml --as cron | kubectl apply -f -
  # Compile many files
  argotune compile teams/*.yaml --as cron > schedules.yaml
"""
KINDS = ("workflow", "template", "cluster-template", "cron")


def add_arguments(parser: argparse.ArgumentParser, output: bool = True) -> None:
    """Declare the flags that say what to compile; ``argotune plan`` and ``argotune run`` share them."""
    text = "Workspace file (YAML), or - for standard input"
    if output:
        parser.add_argument("files", metavar="FILE", nargs="+", help=text)
    else:
        parser.add_argument("file", metavar="FILE", help=text)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="Override a setting (list them with 'argotune plan')",
    )
    add_site(parser)
    parser.add_argument("-n", "--namespace", help="Namespace of the run")
    if output:
        parser.epilog = EXAMPLES
        parser.add_argument(
            "--as", dest="kind", choices=KINDS, default="workflow", help="Kind of Argo object (default: workflow)"
        )
        parser.add_argument(
            "-o", "--output", choices=["yaml", "json"], default="yaml", help="Output format (default: yaml)"
        )


def add_site(parser: argparse.ArgumentParser) -> None:
    """Declare ``--site``."""
    text = "Site profile (default: $ARGOTUNE_SITE or ~/.argotune/site.yaml)"
    parser.add_argument("--site", metavar="FILE", help=text)


def run(args: argparse.Namespace) -> int:
    """Print the objects as YAML that Argo's reader takes as it was meant, or one as JSON."""
    from workflows.compile import emit

    documents = compile_files(args.files, args, args.kind)
    if args.output == "yaml":
        print(emit.to_yaml(*documents), end="")
    elif len(documents) > 1:
        many = f"{len(documents)} Workspaces, and JSON has room for one"
        raise InvalidInput(Problem(many, file=" ".join(args.files), fix="use -o yaml, or compile them one by one"))
    else:
        print(emit.to_json(documents[0]), end="")
    return 0


def compile_file(args: argparse.Namespace, kind: str = "workflow", *, local: bool = False) -> list[dict[str, Any]]:
    """``compile_files`` for the one file of ``args``."""
    return compile_files([args.file], args, kind, local=local)


def compile_files(
    files: list[str], args: argparse.Namespace, kind: str, *, local: bool = False
) -> list[dict[str, Any]]:
    """Compile every Workspace of some files to the Argo object of a kind; warnings go to standard error.

    ``here``: for this machine, whose memory counts then instead of that of the size which a Workspace names.

    Raises:
        InvalidInput: with all that is wrong in the files, in the flags and in the site profile, or for that kind.
    """
    from workflows.compile.kinds import compile_as
    from workflows.load_plans import load_plans

    documents, problems = [], []
    with _no_garbage_collection():
        for plan in load_plans(list(dict.fromkeys(files)), args.set, args.site, args.namespace, local=local):
            try:
                documents.append(compile_as(plan, kind))
            except InvalidInput as error:
                problems += [replace(problem, file=files[0] if len(files) == 1 else "") for problem in error.problems]
    if problems:
        raise InvalidInput(problems)
    return documents


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """All that is made here is kept; looking through it over and over takes a fifth of the time of many files."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_bytes(file: str) -> bytes:
    """The content of a file; what stands on standard input (``-``) can be read once more after."""
    if file != "-":
        return Path(file).read_bytes()
    data = sys.stdin.buffer.read()
    sys.stdin = io.TextIOWrapper(io.BytesIO(data))
    return data


def read_workflow(file: str) -> dict[str, Any] | None:
    """The Argo Workflow that ``file`` holds, or None where it holds something else (a Workspace, or nonsense)."""
    if file != "-" and not Path(file).is_file():
        return None
    try:
        content = yaml.load(read_bytes(file).decode(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError, OSError):
        return None  # tags whose values are none (`!!int x`) raise what they like
    is_workflow = isinstance(content, dict) and str(content.get("apiVersion", "")).startswith("argoproj.io/")
    return content if is_workflow else None
