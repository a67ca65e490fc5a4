"""``argotune run``: runs the compiled Workflow of a Workspace locally."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.runner.outcome import Outcome

EXAMPLES = """Examples:
  # Run a Workspace; its files are in runs/NAME
  argotune run workspace.yaml
  # Resume its newest unfinished run
  argotune run workspace.yaml --resume
  # Set a parameter of the Workflow, as 'argo submit -p' does
  argotune run workspace.yaml -p epochs=1
  # Run a compiled Workflow
  argotune compile workspace.yaml > workflow.yaml
  argotune run workflow.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune run``."""
    from workflows.commands import compile as compiling

    parser.epilog = EXAMPLES
    compiling.add_arguments(parser, output=False)
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Set a parameter of the Workflow, or answer an approval",
    )
    parser.add_argument("--resume", action="store_true", help="Resume the newest unfinished run")
    parser.add_argument("--name", help="Name of the run (default: the Workspace's name and a random suffix)")
    parser.add_argument(
        "--runs-dir",
        default=os.environ.get("ARGOTUNE_RUNS", "runs"),
        help="Folder of the runs (default: $ARGOTUNE_RUNS or ./runs)",
    )
    parser.add_argument(
        "--volume",
        action="append",
        default=[],
        metavar="CLAIM=FOLDER",
        help="Folder for a PersistentVolumeClaim, Secret or ConfigMap",
    )


def run(args: argparse.Namespace) -> int:
    """Run, or resume, and say how it ended; the exit code is the cause's (see ``argotune --help``)."""
    from workflows import runner
    from workflows.runs.view import choose_view

    parameters = pairs(args.parameter, "-p")
    volumes = {claim: Path(folder).absolute() for claim, folder in pairs(args.volume, "--volume").items()}
    document = _document(args, parameters)
    runs = Path(args.runs_dir)
    if args.resume:
        if volumes:
            raise InvalidInput(Problem("a resumed run keeps its volumes", fix="leave --volume out"))
        folder = _unfinished(runs, args.name, _prefix(document), args.file)
        print(f"resuming {folder}", file=sys.stderr)
        outcome = runner.resume(folder, document=document, answers=parameters, observer=choose_view())
    else:
        name = args.name or _new_name(document)
        folder = runs / name
        outcome = runner.start(
            document, folder, name=name, parameters=parameters, volumes=volumes, observer=choose_view()
        )
    return print_result(outcome, args.file)


def _document(args: argparse.Namespace, parameters: dict[str, str]) -> dict[str, Any]:
    """The Workflow to run: the file's own where it holds one, else that of its Workspace."""
    from workflows.commands import compile as compiling

    found = compiling.read_workflow(args.file)
    if found is not None:
        _refuse_own_pod(found, args.file)
        return found
    documents = compiling.compile_file(args, local=True)
    if len(documents) > 1:
        names = ", ".join(document["metadata"]["generateName"].rstrip("-") for document in documents)
        raise InvalidInput(
            Problem(f"holds several Workspaces ({names})", file=args.file, fix="run them one by one, a file each")
        )
    if not args.resume:
        refuse_placeholder(documents[0], parameters, args.file)
    return documents[0]


def _refuse_own_pod(document: dict[str, Any], file: str) -> None:
    """A Workflow that was compiled of a Workspace with a pod of its own, as ``resolve`` refuses the Workspace."""
    from workflows.plan.checks import CUSTOM_POD

    for container in _containers(document):
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        if "steps.rollout" in words and "--template" in words:
            raise InvalidInput(replace(CUSTOM_POD, file=file))


def _containers(value: Any) -> Iterator[dict[str, Any]]:
    """Containers of a document that nobody has checked yet."""
    if isinstance(value, dict):
        if isinstance(value.get("command"), list) and isinstance(value.get("args") or [], list):
            yield value
        for inner in value.values():
            yield from _containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _containers(inner)


def refuse_placeholder(document: dict[str, Any], parameters: dict[str, str], file: str) -> None:
    """Raise InvalidInput where an adapter would be pushed to a reference that an example left to be filled in."""
    from workflows.spec.names import placeholders

    image = _default(document, "image")
    if _pushes(document, parameters) and placeholders(image):
        fix = "write a reference of yours, or leave the image where it is made: -p push=false"
        raise InvalidInput(
            Problem(f"{image} is a placeholder, no image reference", "tuning.output.image", file, fix=fix)
        )


def _pushes(document: dict[str, Any], given: dict[str, str]) -> bool:
    """Whether the image goes to the reference that the Workspace names."""
    return "image" not in given and given.get("push", _default(document, "push")) == "true"


def _default(document: dict[str, Any], parameter: str) -> str:
    declared = document["spec"].get("arguments", {}).get("parameters", [])
    return next((str(item.get("value", "")) for item in declared if item["name"] == parameter), "")


def pairs(given: list[str], flag: str) -> dict[str, str]:
    """``NAME=VALUE`` words of a flag as a map; raises InvalidInput for words that are none."""
    wrong = [pair for pair in given if "=" not in pair]
    if wrong:
        raise InvalidInput([Problem(f"{flag} {pair}: no '='", fix=f"{flag} NAME=VALUE") for pair in wrong])
    return dict(pair.split("=", 1) for pair in given)


def _new_name(document: dict[str, Any]) -> str:
    from workflows.spec.names import random_suffix

    metadata = document["metadata"]
    if metadata.get("name") and document.get("kind") == "Workflow":
        return str(metadata["name"])
    return _prefix(document) + random_suffix()


def _prefix(document: dict[str, Any]) -> str:
    """How names of runs begin: a template or a schedule makes many, whose names begin with its own."""
    metadata = document["metadata"]
    name = metadata.get("name", "")
    if name and document.get("kind") != "Workflow":
        name = f"{name}-"
    return str(name or metadata.get("generateName") or "run-")


def _unfinished(runs: Path, name: str, prefix: str, file: str) -> Path:
    """The newest run folder of the Workspace that has not succeeded, whatever it is called; ``name``, if given."""
    from workflows import runner

    kept = (state.parent for state in runs.glob(f"{name or '*'}/state.json"))
    candidates = sorted(
        (folder for folder in kept if _is_of(folder, prefix)),
        key=lambda folder: (folder / "workflow.json").stat().st_mtime,
        reverse=True,
    )
    for folder in candidates:
        if runner.read_state(folder).phase != "Succeeded":
            return folder
    raise InvalidInput(Problem(f"no unfinished run under {runs}/", file=file, fix=f"start one: argotune run {file}"))


def _is_of(folder: Path, prefix: str) -> bool:
    """Whether the run was started from a document whose runs are named so; one that can't be read is of nobody."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _prefix(json.loads((folder / "workflow.json").read_text())) == prefix
    return False


def print_result(outcome: Outcome, file: str) -> int:
    """Print the answers, where image and report are, and the root failure; return the exit code."""
    from workflows.runs import result

    run, work = outcome.run, outcome.folder / "volumes" / "work"
    result.print_answers(run, f"   (ends with: argotune stop {outcome.folder})")
    if endpoint := run.outputs("rollout").get("endpoint"):
        example = json.dumps({"prompt": "..."})
        print(f"{'ask it:':11} curl {endpoint}/chat -H 'Content-Type: application/json' -d '{example}'")
    for label, path in (("image", work / "image"), ("report", work / "report" / "report.html")):
        if path.exists():
            print(f"{label + ':':11} {path}")
    return result.print_verdict(run, {"fix": f"{outcome.fix or 'fix the cause'}; then: argotune run {file} --resume"})
