"""``argotune lint``: checks Argo documents offline."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.lint import Report

EXAMPLES = """Examples:
  # Check files that refer to each other's templates
  argotune lint workflow.yaml templates/*.yaml
  # Check standard input
  argotune compile workspace.yaml | argotune lint -
  # Print findings as JSON; a reference to a missing template is an error
  argotune lint -o json --strict-refs *.yaml

docs/LINT.md lists the rules.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``argotune lint``."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="Argo documents (YAML or JSON), or - for standard input",
    )
    parser.add_argument(
        "--strict-refs",
        action="store_true",
        help="Report references to missing templates as errors",
    )
    parser.add_argument(
        "-o", "--output", choices=["text", "json"], default="text", help="Output format (default: text)"
    )


def run(args: argparse.Namespace) -> int:
    """Lint all files together; print findings to stdout and counts to stderr. Return 2 if there is an error.

    Raises:
        InvalidInput: a file cannot be read.
    """
    from workflows.lint import lint

    report = lint(_read(list(dict.fromkeys(args.files))), strict_refs=args.strict_refs)
    if args.output == "json":
        print(json.dumps(_as_json(report), indent=2, ensure_ascii=False))
    else:
        for finding in report.findings:
            print(finding)
        print(_summary(report), file=sys.stderr)
    return InvalidInput.exit_code if report.errors else 0


def _read(files: list[str]) -> list[tuple[str, str]]:
    texts, problems = [], []
    for file in files:
        try:
            data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
            texts.append(("stdin" if file == "-" else file, data.decode("utf-8-sig")))
        except OSError as error:
            problems.append(Problem(f"can't be read: {error.strerror}", file=file, fix="check the path"))
        except UnicodeDecodeError:
            problems.append(Problem("is not UTF-8 text", file=file, fix="save it as UTF-8"))
    if problems:
        raise InvalidInput(problems)
    return texts


def _summary(report: Report) -> str:
    counts = [(report.documents, "document"), (len(report.errors), "error"), (len(report.warnings), "warning")]
    text = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    others = ", ".join(sorted(set(report.skipped)))
    return f"{text}; skipped: {others}" if others and report.documents else text


def _as_json(report: Report) -> dict[str, object]:
    return {
        "valid": not report.errors,
        "documents": report.documents,
        "findings": [
            {"rule": finding.rule, "severity": finding.severity, **dataclasses.asdict(finding.problem)}
            for finding in report.findings
        ],
    }
