"""Runs by name, by Workspace, or ``@latest``."""

from __future__ import annotations

import difflib

from workflows.cluster.failures import ApiFailure
from workflows.cluster.read_run import read_run
from workflows.cluster.workflows_api import Scope, Workflows
from workflows.errors import InvalidInput, Problem
from workflows.runs.status import LATEST, WORKSPACE_LABEL, RunStatus


def find_run(api: Workflows, name: str) -> RunStatus:
    """Return the run of a name, else the newest of a Workspace; ``@latest`` is the newest of the namespace.

    Raises:
        InvalidInput: there is none; the fix suggests similar names.
    """
    if name == LATEST:
        runs = list_runs(api, Scope())
        if not runs:
            raise InvalidInput(
                Problem(f"no runs in namespace {api.namespace}", fix=f"run argotune submit FILE -n {api.namespace}")
            )
        return runs[0]
    try:
        return read_run(api.get(name))
    except ApiFailure as failure:
        if failure.status != 404 or "not installed" in failure.message:
            raise
        if runs := list_runs(api, Scope(selector=f"{WORKSPACE_LABEL}={name}")):
            return runs[0]
        message = f"run {name} not found in namespace {api.namespace} of {api.server}"
        raise InvalidInput(Problem(message, fix=_suggest(api, name))) from None


def list_runs(api: Workflows, scope: Scope) -> list[RunStatus]:
    """Return the runs, newest first."""
    runs = [read_run(item) for item in api.list(scope).items]
    return sorted(runs, key=lambda run: (str(run.created), run.name), reverse=True)


def _suggest(api: Workflows, name: str) -> str:
    try:
        names = [run.name for run in list_runs(api, Scope())]
    except ApiFailure:
        names = []
    similar = difflib.get_close_matches(name, names, n=3) or [other for other in names if other.startswith(name)][:3]
    if similar:
        return f"did you mean {', '.join(similar)}?"
    return "select another namespace with -n, or list all runs with argotune ls -A"
