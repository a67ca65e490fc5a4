"""``argotune lint``: checks Argo documents offline."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.lint import Report

EXAMPLES = """Examples:
  # Check all documents below a directory; they can refer to each other's templates
  argotune lint argo/
  # Check files of a pattern, and fail on warnings
  argotune lint --fail-on warning 'flows/**/*.yaml'
  # Check standard input
  argotune compile workspace.yaml | argotune lint -
  # Annotate a pull request on GitHub
  argotune lint --format github argo/
  # Read referenced templates from the cluster
  argotune lint --kube workflow.yaml

A comment suppresses findings: '# argotune: ignore[RULE]' on the line or the line before,
'# argotune: ignore-file[RULE]' in the whole file. docs/LINT.md lists the rules.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``argotune lint``."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "files",
        nargs="+",
        metavar="PATH",
        help="Files, directories, patterns ('**/*.yaml'), or - for standard input",
    )
    parser.add_argument(
        "--strict-refs",
        action="store_true",
        help="Report references to missing templates as errors",
    )
    parser.add_argument(
        "-o",
        "--output",
        "--format",
        choices=["text", "json", "github", "sarif"],
        default="text",
        help="Output format (default: text)",
    )
    parser.add_argument(
        "--severity",
        choices=["error", "warning"],
        default="warning",
        help="Lowest severity to report (default: warning)",
    )
    parser.add_argument(
        "--fail-on",
        choices=["error", "warning"],
        default="error",
        help="Lowest severity that makes the command exit with 2 (default: error)",
    )
    parser.add_argument(
        "--enable", action="append", default=[], metavar="RULE", help="Check an optional rule: unread-output"
    )
    group = parser.add_argument_group("cluster")
    group.add_argument("--kube", action="store_true", help="Read referenced templates from the cluster")
    group.add_argument("-n", "--namespace", default="", help="Namespace of documents without one, for --kube")
    group.add_argument("--context", help="Context of the kubeconfig (default: the current context)")
    group.add_argument("--kubeconfig", metavar="FILE", help="Kubeconfig file (default: $KUBECONFIG or ~/.kube/config)")


def run(args: argparse.Namespace) -> int:
    """Lint all files together; print findings to stdout and counts to stderr. Return 2 if there is an error.

    Raises:
        InvalidInput: a file cannot be read.
        ApiFailure: a request of ``--kube`` failed.
    """
    from workflows.lint import lint
    from workflows.lint.files import read_files
    from workflows.lint.formats import FORMATS

    _reject_unknown_rules(args.enable)
    files = read_files(args.files)
    library = _read_cluster(files, args) if args.kube else []
    report = lint(files, strict_refs=args.strict_refs, library=library, enable=args.enable)
    failed = bool(report.findings if args.fail_on == "warning" else report.errors)
    if args.severity == "error":
        report = report.only_errors()
    text = FORMATS[args.output](report)
    if text:
        print(text)
    if args.output in ("text", "github"):
        print(_summary(report), file=sys.stderr)
    return InvalidInput.exit_code if failed else 0


def _reject_unknown_rules(names: list[str]) -> None:
    from workflows.lint.rules.registry import RULES
    from workflows.spec.findings import unknown

    optional = [rule.id for rule in RULES if rule.is_optional]
    problems = [
        Problem(f"--enable: no optional rule `{name}`", fix=unknown(name, optional))
        for name in names
        if name not in optional
    ]
    if problems:
        raise InvalidInput(problems)


def _read_cluster(files: list[tuple[str, str]], args: argparse.Namespace) -> list[tuple[str, str]]:
    from workflows.cluster import kubernetes_api
    from workflows.lint.cluster_templates import fetch_templates

    clusters: dict[str, kubernetes_api.KubernetesWorkflows] = {}

    def find(kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        namespace = namespace or args.namespace
        if namespace not in clusters:
            clusters[namespace] = kubernetes_api.connect(args.kubeconfig, args.context, namespace)
        cluster_wide = kind == "ClusterWorkflowTemplate"
        return clusters[namespace].find("argoproj.io/v1alpha1", f"{kind.lower()}s", name, cluster_wide=cluster_wide)

    return fetch_templates(files, find)


def _summary(report: Report) -> str:
    counts = [(report.documents, "document"), (len(report.errors), "error"), (len(report.warnings), "warning")]
    text = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    text += f", {report.suppressed} suppressed" if report.suppressed else ""
    others = ", ".join(sorted(set(report.skipped)))
    return f"{text}; skipped: {others}" if others and report.documents else text
