"""``argotune validate``: checks Workspace files and reports every problem at once."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from workflows.errors import InvalidInput, Problem
from workflows.spec import Manifest, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``argotune validate``."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="Workspace YAML; - is standard input")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="default: text")


def run(args: argparse.Namespace) -> int:
    """Check each file; what is valid goes to stdout, warnings to stderr.

    Raises:
        InvalidInput: with the problems of all files (with ``-o json`` they are in the output instead).
    """
    reports, problems = [], []
    for file in args.files:
        try:
            manifests, wrong = load(file), []
        except InvalidInput as error:
            manifests, wrong = [], error.problems
        reports.append(_report(file, manifests, wrong))
        problems += wrong
        if args.output == "text":
            _tell(file, manifests)
    if args.output == "json":
        print(json.dumps({"valid": not problems, "files": reports}, indent=2, ensure_ascii=False))
        return InvalidInput.exit_code if problems else 0
    if problems:
        raise InvalidInput(problems)
    return 0


def _tell(file: str, manifests: list[Manifest]) -> None:
    for manifest in manifests:
        facts = _facts(manifest)
        does = [str(facts["method"])] if facts["method"] else []
        does += ["served"] if facts["served"] else []
        served = str(facts["preset"]) or "a pod of its own"
        print(f"{file}: valid ({', '.join([str(facts['name']), served, *does])})")
    for warning in _warnings(manifests):
        print(f"warning: {warning}", file=sys.stderr)


def _report(file: str, manifests: list[Manifest], problems: list[Problem]) -> dict[str, Any]:
    return {
        "file": file,
        "workspaces": [_facts(manifest) for manifest in manifests],
        "problems": [dataclasses.asdict(problem) for problem in problems],
        "warnings": [dataclasses.asdict(warning) for warning in _warnings(manifests)],
    }


def _facts(manifest: Manifest) -> dict[str, str | bool]:
    workspace = manifest.workspace
    return {
        "name": workspace.metadata.name,
        "preset": workspace.preset.name if workspace.preset else "",
        "method": workspace.tuning.method.lower() if workspace.tuning else "",
        "served": workspace.inference is not None,
    }


def _warnings(manifests: list[Manifest]) -> list[Problem]:
    """Warnings of all Workspaces of a file; those about the file itself stand in each, and are told once."""
    return list(dict.fromkeys(warning for manifest in manifests for warning in manifest.warnings))
