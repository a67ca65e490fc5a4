"""``argotune run``: runs the compiled Workflow of a Workspace locally."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.commands import where
from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.runner.outcome import Outcome
    from workflows.runs.answers import Sample

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
    where.add_runs_dir(parser)
    parser.add_argument(
        "--volume",
        action="append",
        default=[],
        metavar="CLAIM=FOLDER",
        help="Folder for a PersistentVolumeClaim, Secret or ConfigMap",
    )


def run(args: argparse.Namespace) -> int:
    """Run or resume, and print the result; return the exit code of the run (see ``argotune --help``)."""
    from workflows import runner
    from workflows.plan import overrides
    from workflows.runs.view import choose_view

    parameters = pairs(args.parameter, "-p")
    volumes = {claim: Path(folder).absolute() for claim, folder in pairs(args.volume, "--volume").items()}
    document = _document(args, parameters)
    overrides.check_parameters(document, parameters)
    runs = Path(args.runs_dir)
    if args.resume:
        if volumes:
            fix = "remove --volume: a resumed run keeps its volumes; with other ones, start a new run without --resume"
            raise InvalidInput(Problem("--volume cannot be combined with --resume", fix=fix))
        folder = _unfinished(runs, args.name, _prefix(document), args.file)
        print(f"resuming {folder}", file=sys.stderr)
        overridden = overrides.parameters_of(args.set)
        outcome = runner.resume(
            folder, document=document, answers=parameters, overridden=overridden, observer=choose_view()
        )
    else:
        name = args.name or _new_name(document)
        folder = runs / name
        outcome = runner.start(
            document, folder, name=name, parameters=parameters, volumes=volumes, observer=choose_view()
        )
    return print_result(outcome, args.file)


def _document(args: argparse.Namespace, parameters: dict[str, str]) -> dict[str, Any]:
    """Return the Workflow to run: that of the file, or the compiled one of its Workspace."""
    from workflows.commands import compile as compiling

    workflow = compiling.read_workflow(args.files)
    if workflow is not None:
        _reject_custom_pod(workflow, args.file)
        return workflow
    compiled = compiling.compile_with_files(args, local=True)
    if len(compiled) > 1:
        names = ", ".join(document["metadata"]["generateName"].rstrip("-") for document, _ in compiled)
        raise InvalidInput(
            Problem(f"contains several Workspaces ({names})", file=args.file, fix="use one file for each")
        )
    document, file = compiled[0]
    if not args.resume:
        reject_placeholder(document, parameters, file)
    return document


def _reject_custom_pod(document: dict[str, Any], file: str) -> None:
    """Reject a Workflow compiled from a Workspace with a custom pod, as ``resolve`` rejects the Workspace."""
    from workflows.plan.checks import CUSTOM_POD

    for container in _containers(document):
        args = [*(container.get("command") or []), *(container.get("args") or [])]
        if "steps.rollout" in args and "--template" in args:
            raise InvalidInput(replace(CUSTOM_POD, file=file))


def _containers(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the containers of an unchecked document."""
    if isinstance(value, dict):
        if isinstance(value.get("command"), list) and isinstance(value.get("args") or [], list):
            yield value
        for inner in value.values():
            yield from _containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _containers(inner)


def reject_placeholder(document: dict[str, Any], parameters: dict[str, str], file: str) -> None:
    """Raise InvalidInput if the adapter would be pushed to a placeholder."""
    from workflows.spec.names import placeholders

    image = _default(document, "image")
    if _is_pushed(document, parameters) and placeholders(image):
        fix = "set an image reference, or do not push the image: -p push=false"
        raise InvalidInput(
            Problem(f'"{image}" is a placeholder, not an image reference', "tuning.output.image", file, fix=fix)
        )


def _is_pushed(document: dict[str, Any], parameters: dict[str, str]) -> bool:
    """Return True if the image is pushed to the reference of the Workspace."""
    return "image" not in parameters and parameters.get("push", _default(document, "push")) == "true"


def _default(document: dict[str, Any], parameter: str) -> str:
    declared = document["spec"].get("arguments", {}).get("parameters", [])
    return next((str(item.get("value", "")) for item in declared if item["name"] == parameter), "")


def pairs(values: list[str], flag: str) -> dict[str, str]:
    """Return the ``NAME=VALUE`` pairs of a flag; raises InvalidInput for other values."""
    fix = f"use {flag} NAME=VALUE"
    problems = [Problem(f'{flag} {pair}: "=" is missing', fix=fix) for pair in values if "=" not in pair]
    if problems:
        raise InvalidInput(problems)
    return dict(pair.split("=", 1) for pair in values)


def _new_name(document: dict[str, Any]) -> str:
    from workflows.spec.names import random_suffix

    metadata = document["metadata"]
    if metadata.get("name") and document.get("kind") == "Workflow":
        return str(metadata["name"])
    return _prefix(document) + random_suffix()


def _prefix(document: dict[str, Any]) -> str:
    """Return the prefix of run names; for a template or CronWorkflow it is its name."""
    metadata = document["metadata"]
    name = metadata.get("name", "")
    if name and document.get("kind") != "Workflow":
        name = f"{name}-"
    return str(name or metadata.get("generateName") or "run-")


def _unfinished(runs: Path, name: str, prefix: str, file: str) -> Path:
    """Return the newest unfinished run folder of the Workspace; only ``name`` if that is not empty."""
    from workflows import runner
    from workflows.runner import url_queries

    existing = (state.parent for state in runs.glob(f"{name or '*'}/state.json"))
    candidates = sorted(
        (folder for folder in existing if _is_from(folder, prefix)),
        key=lambda folder: (folder / "workflow.json").stat().st_mtime,
        reverse=True,
    )
    for folder in candidates:
        state = runner.read_state(folder)
        if state.phase != "Succeeded" or state.finished_at is None:
            return folder
        (folder / url_queries.FILE).unlink(missing_ok=True)  # of a run that was killed right after its end
    raise InvalidInput(
        Problem(
            f"no unfinished run in {where.show(runs)}",
            file=file,
            fix=f"start one with argotune run {file}; or {where.OTHER_FOLDER}",
        )
    )


def _is_from(folder: Path, prefix: str) -> bool:
    """Return True if the run was started from a document with that prefix; False if it cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _prefix(json.loads((folder / "workflow.json").read_text())) == prefix
    return False


def print_result(outcome: Outcome, file: str) -> int:
    """Print the answers, where image and report are, and the root failure; return the exit code."""
    from workflows.runs import result

    run, work = outcome.run, outcome.folder / "volumes" / "work"
    result.print_answers(run, f"   (ends with: argotune stop {outcome.folder})", _samples(work))
    if endpoint := run.outputs("rollout").get("endpoint"):
        example = json.dumps({"prompt": "..."})
        print(f"{'ask it:':11} curl {endpoint}/chat -H 'Content-Type: application/json' -d '{example}'")
    for label, path in (("image", work / "image"), ("report", work / "report" / "report.html")):
        if path.exists():
            print(f"{label + ':':11} {path}")
    again = f"argotune run {file} --resume"
    return result.print_verdict(
        run, {"fix": again if run.stopped else f"{outcome.fix or 'fix the cause'}; then: {again}"}
    )


def _samples(work: Path) -> list[Sample]:
    """Return the held-out questions and answers of the evaluation; none if it is missing or has none."""
    from workflows.runs.answers import Sample

    with suppress(OSError, ValueError, KeyError, TypeError):
        samples = json.loads((work / "report" / "evaluation.json").read_text())["samples"]
        texts = [[str(sample[key]) for key in ("question", "base_answer", "adapter_answer")] for sample in samples]
        return [Sample(*each) for each in texts]
    return []
