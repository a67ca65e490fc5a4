"""``argotune submit``: creates the Workflow (or template, or CronWorkflow) of a Workspace on a cluster."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workflows.errors import InvalidInput, Problem, collect_problems

if TYPE_CHECKING:
    from workflows.cluster.workflows_api import Workflows

EXAMPLES = """Examples:
  # Start a run and watch it; Ctrl-C stops watching, not the run
  argotune submit workspace.yaml --watch
  # Set a parameter of the Workflow
  argotune submit workspace.yaml -p epochs=1
  # Submit a Workspace whose ConfigMap is in another file (in no file: it is read from the cluster)
  argotune submit workspace.yaml config.yaml
  # Submit a compiled Workflow, template or CronWorkflow
  argotune submit workflow.yaml
  # Retrain on pipeline.schedule
  argotune submit workspace.yaml --as cron
  # Let the cluster validate the Workflow without creating it
  argotune submit workspace.yaml --dry-run=server

Uses your kubeconfig, or the Argo server of ARGO_SERVER (with ARGO_TOKEN) if that is set.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune submit``."""
    from workflows.cluster import connect
    from workflows.commands import compile as compiling

    compiling.add_arguments(parser, output=False)
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--as",
        dest="kind",
        choices=compiling.KINDS,
        default="workflow",
        help="Kind of Argo object (default: workflow)",
    )
    parser.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="Set a parameter of the Workflow"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="Watch the run; Ctrl-C stops watching")
    parser.add_argument(
        "--dry-run",
        choices=["client", "server"],
        help="Create nothing: print the object, or let the server validate it",
    )
    parser.add_argument("-o", "--output", choices=["name", "json", "yaml"], help="Print only the name, or the object")
    connect.add_arguments(parser, namespace=False)


def run(args: argparse.Namespace) -> int:
    """Create the objects of the file; with ``--watch``, return the exit code of the run.

    Raises:
        InvalidInput: the file or a flag is invalid, or the cluster rejects them.
        ApiFailure: the request failed.
    """
    from workflows.cluster import connect, submission

    located = _documents(args)
    documents = [document for document, _ in located]
    if args.watch and (args.dry_run or len(documents) != 1 or documents[0]["kind"] != "Workflow"):
        raise InvalidInput(Problem("--watch requires exactly one Workflow", args.file, fix="remove --watch"))
    if args.dry_run == "client":
        _print(documents, args.output or "yaml")
        return 0
    api = connect.connect(args, _namespace(documents))
    _check_cluster(api, located)
    dry_run = args.dry_run == "server"
    created = []
    for document in documents:
        created.append(submission.create(api, document, dry_run=dry_run))
        if not args.output:
            print(f"{_title(created[-1])} {'is valid' if dry_run else 'created'} in namespace {api.namespace}")
    if args.output:
        _print(created, args.output)
    if dry_run or created[0]["kind"] != "Workflow":
        return 0
    if args.watch:
        from workflows.cluster import live

        return live.watch_to_completion(api, created[0]["metadata"]["name"])
    return _print_next_steps(api, created)


def _check_cluster(api: Workflows, located: list[tuple[dict[str, Any], str]]) -> None:
    """Print what runs will wait for.

    Raises:
        InvalidInput: with everything that they lack on the cluster.
    """
    from workflows.cluster import before_submission

    found = [(*before_submission.find_problems(api, document), file) for document, file in located]
    for warning in dict.fromkeys(warning for _, warnings, _ in found for warning in warnings):
        print(f"warning: {warning}", file=sys.stderr)
    errors = [replace(error, file=file) for problems, _, file in found for error in problems]
    if errors:
        raise InvalidInput(list(dict.fromkeys(errors)))


def _print_next_steps(api: Workflows, created: list[dict[str, Any]]) -> int:
    from workflows.cluster import live

    name = created[0]["metadata"]["name"]
    print(f"    watch: argotune status {name} --watch{live.namespace_flag(api)}", file=sys.stderr)
    print(f"    logs:  argotune logs {name} -f{live.namespace_flag(api)}", file=sys.stderr)
    return 0


def _documents(args: argparse.Namespace) -> list[tuple[dict[str, Any], str]]:
    """Return the Argo objects of the files, or the compiled ones of their Workspaces, each with its file."""
    from workflows.cluster import config_maps, submission
    from workflows.commands import compile as compiling
    from workflows.commands.run import pairs, reject_placeholder
    from workflows.plan import overrides

    parameters = pairs(args.parameter, "-p")
    objects = _compiled(args)
    if objects is None:
        # Offline with --dry-run=client, as kubectl is.
        lookup = config_maps.lookup(args, argo_server=True) if args.dry_run != "client" else None
        objects = compiling.compile_with_files(args, args.kind, lookup=lookup)
    elif args.set or args.kind != "workflow":
        fix = "pass the Workspace, or set parameters with -p"
        raise InvalidInput(Problem("--set and --as cannot be combined with a compiled document", args.file, fix=fix))
    problems: list[Problem] = []
    for document, _ in objects:
        collect_problems(problems, overrides.check_parameters, document, parameters)
    documents = [
        (collect_problems(problems, submission.with_parameters, document, parameters, file) or document, file)
        for document, file in objects
    ]
    if problems:
        raise InvalidInput(problems)
    for document, file in documents:
        reject_placeholder(document, {}, file)
    return documents


def _compiled(args: argparse.Namespace) -> list[tuple[dict[str, Any], str]] | None:
    """Return the Argo objects of the files, with its file each; None if they contain something else."""
    from workflows.cluster import submission
    from workflows.load_plans import expand_directories

    read = {file: submission.read_documents(_text(file), file) for file in expand_directories(args.files)}
    if all(objects is None for objects in read.values()):
        return None
    if others := [file for file, objects in read.items() if objects is None]:
        message = "contains no Argo object, and cannot be combined with files that do"
        raise InvalidInput([Problem(message, file=file, fix="submit it separately") for file in others])
    return [(document, file) for file, objects in read.items() for document in objects or []]


def _text(file: str) -> str:
    from workflows.spec import source_text

    try:
        data = source_text.read_bytes(file)
    except OSError as error:
        raise InvalidInput(Problem(f"cannot be read: {error.strerror}", file=file, fix="check the path")) from None
    return data.decode("utf-8-sig", errors="replace")


def _namespace(documents: list[dict[str, Any]]) -> str:
    """Return the namespace of the documents; empty if they have none."""
    names = {str(document["metadata"].get("namespace") or "") for document in documents} - {""}
    if len(names) > 1:
        raise InvalidInput(Problem(f"several namespaces: {', '.join(sorted(names))}", fix="select one with -n"))
    return next(iter(names), "")


def _print(documents: list[dict[str, Any]], form: str) -> None:
    from workflows.compile import emit

    if form == "name":
        for document in documents:
            print(document["metadata"].get("name") or document["metadata"]["generateName"])
    elif form == "yaml":
        print(emit.to_yaml(*documents), end="")
    else:
        print(emit.to_json(documents[0]) if len(documents) == 1 else json.dumps(documents, indent=2), end="")


def _title(document: dict[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['name']}"
