"""Read Workspace files into plans that can be run; all problems are reported at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import presets
from workflows import estimate
from workflows.errors import InvalidInput, Problem, collect_problems
from workflows.plan import budget, checks, model_checks, nodes, own_presets, search_checks, site
from workflows.plan import overrides as plan_overrides
from workflows.plan.model import Plan
from workflows.plan.resolve import resolve
from workflows.spec import Manifest, load
from workflows.spec.config_maps import Lookup
from workflows.spec.kaito_annotations import BYPASS_CHECKS


@dataclass(frozen=True)
class LoadedPlan:
    """A Workspace and its plan, which can be run."""

    manifest: Manifest
    plan: Plan
    warnings: tuple[Problem, ...]
    """Warnings of the file, then of the plan."""


def load_plans(
    files: str | Sequence[str],
    overrides: Sequence[str] = (),
    site_file: str | None = None,
    namespace: str | None = None,
    *,
    local: bool = False,
    lookup: Lookup | None = None,
) -> list[Plan]:
    """Return the plan of every Workspace of the files; the arguments are those of ``load_with_manifests``."""
    loaded = load_with_manifests(files, overrides, site_file, namespace, local=local, lookup=lookup)
    return [each.plan for each in loaded]


def load_with_manifests(
    files: str | Sequence[str],
    overrides: Sequence[str] = (),
    site_file: str | None = None,
    namespace: str | None = None,
    *,
    local: bool = False,
    lookup: Lookup | None = None,
) -> list[LoadedPlan]:
    """Read files and return every Workspace in them with its plan; warnings go to standard error.

    Args:
        files: one file or several; ``-`` is standard input.
        overrides: values of ``--set``.
        site_file: site profile; None: the default one, if it exists.
        namespace: namespace of the Workflow; None: as the Workspace or the site profile sets it.
        local: this machine will run them, so its memory counts, and not that of the instance type.
        lookup: reads ConfigMaps that no file contains from the cluster.

    Raises:
        InvalidInput: with every problem of the files, of the flags and of the site profile.
    """
    problems: list[Problem] = []
    use_site_sizes(site_file, problems)
    names = expand_directories([files] if isinstance(files, str) else files)
    read = partial(load, local=local, others=names, lookup=lookup)
    collect_problems(problems, own_presets.use, site_file, names)
    manifests = [manifest for file in names for manifest in collect_problems(problems, read, file) or []]
    problems += _duplicate_names(manifests)
    if not manifests and not problems:
        fix = "write an object with apiVersion: kaito.sh/v1beta1 and kind: Workspace"
        problems.append(Problem("no Workspace in these files", file=" ".join(names), fix=fix))
    plans: list[LoadedPlan] = (
        collect_problems(problems, plans_from_manifests, manifests, overrides, site_file, namespace, local) or []
    )
    if problems:
        raise InvalidInput(list(dict.fromkeys(problems)))
    for loaded in plans:
        for warning in loaded.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return plans


def expand_directories(names: Sequence[str]) -> list[str]:
    """Return the YAML files of directories, sorted, and other names unchanged.

    Raises:
        InvalidInput: a directory has no YAML files.
    """
    files: list[str] = []
    for name in names:
        if not Path(name).is_dir():
            files.append(name)
            continue
        found = sorted(str(file) for file in Path(name).iterdir() if file.suffix in (".yaml", ".yml"))
        if not found:
            raise InvalidInput(Problem("contains no YAML file", file=name, fix="pass the directory of a Workspace"))
        files += found
    return list(dict.fromkeys(files))


def use_site_sizes(site_file: str | None, problems: list[Problem]) -> None:
    """Make the instance types of the site profile known, before Workspaces are read."""
    presets.set_site_skus(collect_problems(problems, site.instance_types, site_file) or [])


def plans_from_manifests(
    manifests: Sequence[Manifest],
    overrides: Sequence[str] = (),
    site_file: str | None = None,
    namespace: str | None = None,
    local: bool = False,
) -> list[LoadedPlan]:
    """Return the plan of every Workspace; the arguments are those of ``load_plans``.

    Raises:
        InvalidInput: with every problem of the Workspaces, of the flags and of the site profile.
    """
    problems: list[Problem] = []
    site_values = collect_problems(problems, site.load, site_file) or {}
    flags = collect_problems(problems, plan_overrides.from_flags, overrides) or {}
    if namespace:
        flags["namespace"] = namespace
    environment = collect_problems(problems, plan_overrides.from_environment, os.environ) or {}
    prices = collect_problems(problems, site.prices, site_file) if not problems else None
    plans = [
        collect_problems(problems, resolve, manifest, site_values, environment, flags, prices)
        for manifest in manifests
    ]
    prices = None if problems else prices
    for manifest, plan in zip(manifests, plans, strict=True):
        if plan and prices:
            problems += with_location(manifest, checks.only_in_a_cluster(plan)) if local else []
            problems += [] if local else _memory_problems(manifest, plan, prices)
            problems += with_location(manifest, model_checks.problems(plan, local=local))
            problems += with_location(manifest, nodes.problems(plan))
            problems += [] if local else with_location(manifest, budget.problems(plan))
            problems += with_location(manifest, checks.tracking(plan, local=local))
            problems += with_location(manifest, checks.tasks(plan, local=local))
            problems += with_location(manifest, search_checks.problems(plan, local=local))
    if problems:
        raise InvalidInput(problems)
    return [
        LoadedPlan(manifest, plan, (*manifest.warnings, *with_location(manifest, _warnings(manifest, plan, local))))
        for manifest, plan in zip(manifests, plans, strict=True)
    ]


def with_location(manifest: Manifest, problems: Iterable[Problem]) -> list[Problem]:
    """Add the file and the line of their fields to problems of a plan."""
    source = manifest.source
    return [
        replace(problem, file=source.file_of(problem.path), line=source.line(problem.path)) for problem in problems
    ]


def _warnings(manifest: Manifest, plan: Plan, local: bool) -> Iterator[Problem]:
    yield from checks.warnings(plan)
    if not local:
        yield from nodes.warnings(plan)
    yield from budget.warnings(plan, local=local)
    if plan.budget_hours and plan.tuning and plan.model.preset and not local:
        yield from estimate.budget_warnings(plan, estimate.estimate(plan))
    yield from search_checks.warnings(plan)
    if local and plan.model.preset and BYPASS_CHECKS not in manifest.workspace.metadata.annotations:
        from steps.runtime import machine

        yield from estimate.memory_warnings(
            plan, machine.read(Path.cwd()), cuda=bool(machine.is_torch_built_with_cuda())
        )


def _duplicate_names(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    """Yield Workspaces of one name in several files: their compiled objects would overwrite each other."""
    first: dict[tuple[str, str], Manifest] = {}
    for manifest in manifests:
        name, source = manifest.workspace.metadata.name, manifest.source
        other = first.setdefault((manifest.workspace.metadata.namespace, name), manifest).source
        if other.file != source.file:
            message = f'duplicate Workspace "{name}" (also {other.file}:{other.line("metadata.name")})'
            line = source.line("metadata.name")
            yield Problem(message, "metadata.name", source.file, line, fix="rename or remove one of them")


def _memory_problems(manifest: Manifest, plan: Plan, prices: presets.Prices) -> list[Problem]:
    """Return what exceeds the GPU memory, unless an annotation skips this check (as with KAITO)."""
    if BYPASS_CHECKS in manifest.workspace.metadata.annotations or not plan.model.preset:
        return []
    return with_location(manifest, [*estimate.refusals(plan, prices), *estimate.too_small(plan, prices)])
