"""``argotune compile``: prints the Argo object (Workflow, template or CronWorkflow) of each Workspace."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from workflows.commands import file_arguments
from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.spec.config_maps import Lookup

EXAMPLES = """Examples:
  # Compile a Workspace and submit the Workflow with the argo CLI
  argotune compile workspace.yaml | argo submit -
  # Override a setting and write JSON
  argotune compile workspace.yaml -o json --set tuning.epochs=1 > workflow.json
  # Create a WorkflowTemplate, to start runs from a form in the Argo UI
  argotune compile workspace.yaml --as template | kubectl apply -f -
  # Create a CronWorkflow, to retrain on pipeline.schedule
  argotune compile workspace.yaml --as cron | kubectl apply -f -
  # Compile the files of a directory: a Workspace can use a ConfigMap of another file
  argotune compile teams/search/ | argo submit -
  # Name the files as for kubectl
  argotune compile -f workspace.yaml -f config.yaml | argo submit -
  # Compile many files
  argotune compile teams/*.yaml --as cron > schedules.yaml
"""
KINDS = ("workflow", "template", "cluster-template", "cron")


def add_arguments(parser: argparse.ArgumentParser, output: bool = True, *, optional: bool = False) -> None:
    """Declare the flags that all commands with a Workspace share.

    Args:
        parser: the parser of the command.
        output: declare those of ``argotune compile`` too.
        optional: the file can be omitted.
    """
    file_arguments.add_files(parser, optional=optional)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="Override a setting (list them with 'argotune plan --all')",
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
    """Print the objects as YAML, or a single one as JSON."""
    from workflows.compile import emit

    documents = compile_files(args, args.kind)
    if args.output == "yaml":
        print(emit.to_yaml(*documents), end="")
    elif len(documents) > 1:
        message = f"-o json cannot be combined with several Workspaces ({len(documents)})"
        raise InvalidInput(Problem(message, file=args.file, fix="use -o yaml, or compile them one by one"))
    else:
        print(emit.to_json(documents[0]), end="")
    return 0


def compile_files(
    args: argparse.Namespace, kind: str = "workflow", *, local: bool = False, lookup: Lookup | None = None
) -> list[dict[str, Any]]:
    """Compile every Workspace of the files to an Argo object; the arguments are those of ``compile_with_files``."""
    return [document for document, _ in compile_with_files(args, kind, local=local, lookup=lookup)]


def compile_with_files(
    args: argparse.Namespace, kind: str = "workflow", *, local: bool = False, lookup: Lookup | None = None
) -> list[tuple[dict[str, Any], str]]:
    """Compile every Workspace to an Argo object, each with its file; warnings go to standard error.

    Args:
        args: the flags of ``add_arguments``.
        kind: one of ``KINDS``.
        local: for a local run: check the memory of this machine instead of that of the instance type.
        lookup: reads ConfigMaps that no file contains from the cluster.

    Raises:
        InvalidInput: with all errors of the files, the flags and the site profile, or of that kind.
    """
    from workflows.compile.kinds import compile_as
    from workflows.load_plans import load_with_manifests

    documents, problems = [], []
    files = list(dict.fromkeys(args.files))
    with _garbage_collection_off():
        for loaded in load_with_manifests(files, args.set, args.site, args.namespace, local=local, lookup=lookup):
            file = loaded.manifest.source.file
            try:
                documents.append((compile_as(loaded.plan, kind), file))
            except InvalidInput as error:
                problems += [replace(problem, file=file) for problem in error.problems]
    if problems:
        raise InvalidInput(problems)
    return documents


@contextmanager
def _garbage_collection_off() -> Iterator[None]:
    """Disable garbage collection: no object is released here, and collecting takes a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_workflow(files: list[str]) -> dict[str, Any] | None:
    """Return the Argo Workflow of a single file; None if there is something else (Workspaces, or invalid YAML)."""
    if len(files) > 1:
        return None
    from workflows.spec import source_text

    (file,) = files
    if file != "-" and not Path(file).is_file():
        return None
    try:
        content = yaml.load(
            source_text.read_bytes(file).decode(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError, OSError):
        return None  # invalid values of tags (`!!int x`) raise any of these
    is_workflow = isinstance(content, dict) and str(content.get("apiVersion", "")).startswith("argoproj.io/")
    return content if is_workflow else None
