"""Read Workspace files into plans that were held to what a run can do, all problems at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import presets
from workflows import estimate
from workflows.errors import InvalidInput, Problem
from workflows.plan import checks, nodes, site
from workflows.plan.model import Plan
from workflows.plan.resolve import _environment, _flags, resolve
from workflows.spec import Manifest, load
from workflows.spec.kaito_annotations import BYPASS_CHECKS


def plans(
    file: str, sets: Sequence[str] = (), site_file: str | None = None, namespace: str | None = None
) -> list[Plan]:
    """The plans of one file, as ``plans_of`` gives them."""
    return plans_of([file], sets, site_file, namespace)


def plans_of(
    files: Sequence[str],
    sets: Sequence[str] = (),
    site_file: str | None = None,
    namespace: str | None = None,
    *,
    here: bool = False,
) -> list[Plan]:
    """Read files and resolve the plan of every Workspace in them; warnings go to standard error.

    ``here``: this machine will run them, so its memory counts, and not that of the size that a Workspace names.

    Raises:
        InvalidInput: with every problem of the files, of the flags and of the site profile.
    """
    problems: list[Problem] = []
    read = partial(load, here=here)
    manifests = [manifest for file in files for manifest in _collect(problems, read, file) or []]
    problems += _twice(manifests)
    checked: list[Checked] = _collect(problems, check, manifests, sets, site_file, namespace, here) or []
    if problems:
        raise InvalidInput(problems)
    for found in checked:
        for warning in found.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return [found.plan for found in checked]


@dataclass(frozen=True)
class Checked:
    """A Workspace whose plan can be run."""

    manifest: Manifest
    plan: Plan
    warnings: tuple[Problem, ...]
    """Of the file, then of the plan."""


def check(
    manifests: Sequence[Manifest],
    sets: Sequence[str] = (),
    site_file: str | None = None,
    namespace: str | None = None,
    here: bool = False,
) -> list[Checked]:
    """Resolve the plan of every Workspace, and hold it to what a run can do; ``here``: on this machine.

    Raises:
        InvalidInput: with every problem of the Workspaces, of the flags and of the site profile.
    """
    problems: list[Problem] = []
    site_values = _collect(problems, site.load, site_file) or {}
    flags = _collect(problems, _flags, sets) or {}
    if namespace:
        flags["namespace"] = namespace
    environment = _collect(problems, _environment, os.environ) or {}
    resolved = [_collect(problems, resolve, manifest, site_values, environment, flags) for manifest in manifests]
    prices = _collect(problems, site.prices, site_file) if not problems else None
    for manifest, plan in zip(manifests, resolved, strict=True):
        if plan and prices:
            problems += placed(manifest, checks.only_in_a_cluster(plan)) if here else []
            problems += [] if here else _cannot_fit(manifest, plan, prices)
            problems += placed(manifest, nodes.problems(plan))
            problems += placed(manifest, checks.tracking(plan, here=here))
            problems += placed(manifest, checks.tasks(plan, here=here))
    if problems:
        raise InvalidInput(problems)
    return [
        Checked(manifest, plan, (*manifest.warnings, *placed(manifest, _warnings(manifest, plan, here))))
        for manifest, plan in zip(manifests, resolved, strict=True)
    ]


def _warnings(manifest: Manifest, plan: Plan, here: bool) -> Iterator[Problem]:
    yield from checks.warnings(plan)
    yield from nodes.warnings(plan)
    if here and plan.model.preset and BYPASS_CHECKS not in manifest.workspace.metadata.annotations:
        from steps.runtime import machine

        yield from estimate.memory_warnings(
            plan, machine.read(Path.cwd()), cuda=bool(machine.is_torch_built_with_cuda())
        )


def _twice(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    """Workspaces of one name in several files: what is compiled of one would take the other's place."""
    first: dict[tuple[str, str], Manifest] = {}
    for manifest in manifests:
        name, source = manifest.workspace.metadata.name, manifest.source
        other = first.setdefault((manifest.workspace.metadata.namespace, name), manifest).source
        if other.file != source.file:
            what = f"Workspace {name} stands in {other.file} too, on line {other.line('metadata.name')}"
            line = source.line("metadata.name")
            yield Problem(what, "metadata.name", source.file, line, fix="rename or leave out one of them")


def _cannot_fit(manifest: Manifest, plan: Plan, prices: presets.Prices) -> list[Problem]:
    """What the machine's memory can't hold, unless the Workspace's annotation says not to look (as with KAITO)."""
    if BYPASS_CHECKS in manifest.workspace.metadata.annotations or not plan.model.preset:
        return []
    found = [*estimate.refusals(plan, prices), *estimate.too_small(plan, prices)]
    return placed(manifest, found)


def placed(manifest: Manifest, problems: Iterable[Problem]) -> list[Problem]:
    """Problems of a plan, with the places in the file that they come from."""
    source = manifest.source
    return [replace(problem, file=source.file, line=source.line(problem.path)) for problem in problems]


def _collect(problems: list[Problem], function: Any, *arguments: Any) -> Any:
    """Call ``function``; what it finds wrong joins ``problems``, so that all is told at once."""
    try:
        return function(*arguments)
    except InvalidInput as error:
        problems += error.problems
        return None
