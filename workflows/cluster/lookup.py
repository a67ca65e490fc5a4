"""Runs as users name them: by name, ``@latest``, or not at all."""

from __future__ import annotations

import difflib

from workflows.cluster.failures import ApiFailure
from workflows.cluster.read_run import read_run
from workflows.cluster.workflows_api import Scope, Workflows
from workflows.errors import InvalidInput, Problem
from workflows.runs.status import RunStatus

LATEST = "@latest"


def find(api: Workflows, name: str) -> RunStatus:
    """The run of a name; ``@latest`` is the newest of the namespace.

    Raises:
        InvalidInput: there is none; names those that are near.
    """
    if name == LATEST:
        runs = newest_first(api, Scope())
        if not runs:
            raise InvalidInput(Problem(f"there are no runs in namespace {api.namespace}", fix="argotune submit FILE"))
        return runs[0]
    try:
        return read_run(api.get(name))
    except ApiFailure as failure:
        if failure.status != 404 or "not installed" in failure.message:
            raise
        raise InvalidInput(
            Problem(f"there is no run {name} in namespace {api.namespace} of {api.place}", fix=_near(api, name))
        ) from None


def newest_first(api: Workflows, scope: Scope) -> list[RunStatus]:
    """The runs there are."""
    runs = [read_run(item) for item in api.list(scope).items]
    return sorted(runs, key=lambda run: (str(run.created), run.name), reverse=True)


def _near(api: Workflows, name: str) -> str:
    try:
        known = [run.name for run in newest_first(api, Scope())]
    except ApiFailure:
        known = []
    near = difflib.get_close_matches(name, known, n=3) or [one for one in known if one.startswith(name)][:3]
    if near:
        return f"did you mean {', '.join(near)}?"
    return "another namespace is chosen by -n; argotune ls -A lists the runs of all"
