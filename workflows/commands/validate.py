"""``argotune validate``: checks Workspace files and reports all errors; ``--cluster`` checks the objects they name."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workflows import load_plans
from workflows.commands import file_arguments
from workflows.errors import InvalidInput, Problem
from workflows.load_plans import LoadedPlan
from workflows.plan import own_presets
from workflows.spec import Manifest, load
from workflows.spec.hints import hints

if TYPE_CHECKING:
    from workflows.cluster.kubernetes_api import KubernetesWorkflows
    from workflows.spec.config_maps import Lookup

EXAMPLES = """Examples:
  # Check a file
  argotune validate workspace.yaml
  # Check that its Secrets, ConfigMaps, claims and service accounts exist
  argotune validate workspace.yaml --cluster
"""


@dataclass
class _File:
    """The results of one file."""

    name: str
    checked: list[LoadedPlan] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    hints: list[Problem] = field(default_factory=list)
    """Hints about its valid Workspaces."""
    unchecked: list[Problem] = field(default_factory=list)
    """Cluster objects that the user is not allowed to read."""

    @property
    def warnings(self) -> list[Problem]:
        """Warnings of all Workspaces without duplicates: each repeats those of the file."""
        warnings = [warning for checked in self.checked for warning in checked.warnings]
        return list(dict.fromkeys([*warnings, *self.unchecked]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``argotune validate``."""
    from workflows.cluster import connect
    from workflows.commands import compile as compiling

    parser.epilog = EXAMPLES
    file_arguments.add_files(parser)
    formats = ["text", "json"]
    parser.add_argument("-o", "--output", choices=formats, default="text", help="Output format (default: text)")
    compiling.add_site(parser)
    parser.add_argument("--cluster", action="store_true", help="Check that the objects they name exist on the cluster")
    connect.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check each file; print valid Workspaces to stdout and warnings to stderr.

    Raises:
        InvalidInput: with the errors of all files (with ``-o json`` they are in the output instead).
        ApiFailure: with ``--cluster``, the cluster is unreachable or rejects the credentials.
    """
    names = load_plans.expand_directories(args.files)
    files = [_read(name, names, args) for name in names]
    if args.cluster:
        _check_cluster_objects(files, args)
    problems = [problem for file in files for problem in file.problems]
    if args.output == "json":
        unchecked = list(_unchecked(files, in_cluster=args.cluster))
        report = {"valid": not problems, "notChecked": unchecked, "files": [_report(file) for file in files]}
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return InvalidInput.exit_code if problems else 0
    for file in files:
        _print_result(file)
    if problems:
        raise InvalidInput(problems)
    _print_unchecked(_unchecked(files, in_cluster=args.cluster))
    return 0


def _read(name: str, names: list[str], args: argparse.Namespace) -> _File:
    problems: list[Problem] = []
    load_plans.use_site_sizes(args.site, problems)
    if problems:
        return _File(name, problems=problems)
    try:
        own_presets.use(args.site, [name])
        manifests = load(name, others=names, lookup=_lookup(args))
        checked = load_plans.plans_from_manifests(manifests, (), args.site, args.namespace)
        # Here, since the presets beside the file are known only until the next file is read.
        return _File(name, checked, hints=[hint for each in checked for hint in hints(each.manifest)])
    except InvalidInput as error:
        return _File(name, problems=error.problems)


def _lookup(args: argparse.Namespace) -> Lookup | None:
    """Return the lookup of ConfigMaps on the cluster with ``--cluster``, which reads them as a submission does."""
    if not args.cluster:
        return None
    from workflows.cluster import config_maps

    return config_maps.lookup(args)


def _check_cluster_objects(files: list[_File], args: argparse.Namespace) -> None:
    from workflows.cluster import kubernetes_api
    from workflows.cluster.object_refs import ReferencedObjects

    clusters: dict[str, KubernetesWorkflows] = {}
    for file in files:
        for checked in file.checked:
            namespace = checked.plan.namespace
            if namespace not in clusters:
                clusters[namespace] = kubernetes_api.connect(args.kubeconfig, args.context, namespace)
            objects = ReferencedObjects(clusters[namespace])
            objects.check(checked.plan)
            file.problems += load_plans.with_location(checked.manifest, objects.problems)
            file.unchecked += load_plans.with_location(checked.manifest, objects.unchecked)


def _print_result(file: _File) -> None:
    for checked in [] if file.problems else file.checked:
        facts = _facts(checked.manifest)
        details = [str(facts["method"])] if facts["method"] else []
        details += ["served"] if facts["served"] else []
        model = str(facts["preset"]) or "custom pod"
        print(f"{file.name}: valid ({', '.join([str(facts['name']), model, *details])})")
    for warning in file.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for hint in [] if file.problems else file.hints:
        print(f"hint: {hint}", file=sys.stderr)


def _unchecked(files: list[_File], *, in_cluster: bool) -> dict[str, str]:
    """Return what the files name that was not checked, each with the command that checks it."""
    plans = [checked.plan for file in files for checked in file.checked]
    named = {
        "data": any(plan.data for plan in plans),
        "model hub": any(plan.model.preset for plan in plans),
        "registry": any(plan.output and plan.output.image for plan in plans),
    }
    unchecked = {subject: "argotune preflight" for subject, is_named in named.items() if is_named}
    return unchecked | ({"cluster": "argotune validate --cluster"} if plans and not in_cluster else {})


def _print_unchecked(unchecked: dict[str, str]) -> None:
    commands = dict.fromkeys(unchecked.values())
    parts = [
        f"{', '.join(subject for subject in unchecked if unchecked[subject] == command)} ({command})"
        for command in commands
    ]
    if parts:
        print(f"not checked: {'; '.join(parts)}", file=sys.stderr)


def _report(file: _File) -> dict[str, Any]:
    return {
        "file": file.name,
        "workspaces": [_facts(checked.manifest) for checked in file.checked],
        "problems": [dataclasses.asdict(problem) for problem in file.problems],
        "warnings": [dataclasses.asdict(warning) for warning in file.warnings],
        "hints": [dataclasses.asdict(hint) for hint in file.hints],
    }


def _facts(manifest: Manifest) -> dict[str, str | bool]:
    workspace = manifest.workspace
    return {
        "name": workspace.metadata.name,
        "preset": workspace.preset.name if workspace.preset else "",
        "method": workspace.tuning.method.lower() if workspace.tuning else "",
        "served": workspace.inference is not None,
    }
