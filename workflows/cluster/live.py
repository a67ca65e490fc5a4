"""A run on a cluster in the terminal while it is running, shown like a local run."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

from steps.runtime import terminal
from steps.runtime.retry import Backoff
from workflows.cluster import logs, watch
from workflows.cluster.read_run import read_run
from workflows.cluster.workflows_api import Workflows
from workflows.errors import Cancelled
from workflows.runs import result
from workflows.runs.changes import Changes
from workflows.runs.observer import Observer
from workflows.runs.status import RunStatus


def watch_to_completion(api: Workflows, name: str) -> int:
    """Show a run until it ends, or until Ctrl-C; return the exit code."""
    from workflows.runs.view import choose_view

    try:
        return print_result(api, show(api, name, choose_view()))
    except KeyboardInterrupt:
        return print_detached(api, name)


def show(api: Workflows, name: str, observer: Observer, backoff: Backoff | None = None) -> RunStatus:
    """Send the events of a run to ``observer`` until it ends; return its last status.

    Raises:
        KeyboardInterrupt: the user stopped watching; the run continues.
    """
    changes = Changes(observer)
    sent: set[str] = set()
    run = None
    try:
        for workflow in watch.follow(api, name, observer.on_message, backoff):
            run = read_run(workflow)
            changes.send(run)
            for text in [] if run.is_ended else _notices(api, run):
                if text not in sent:
                    sent.add(text)
                    observer.on_message(text)
    finally:
        changes.end()
    if run is None:
        raise AssertionError("a watch yields at least one state")
    return run


def print_result(api: Workflows, run: RunStatus) -> int:
    """Print how a run ended: where it is served, or the root failure; return the exit code."""
    result.print_answers(run)
    if endpoint := run.outputs("rollout").get("endpoint"):
        # Its address resolves in the cluster only: http://SERVICE.NAMESPACE.svc...
        service = (urlsplit(endpoint).hostname or "").partition(".")[0]
        command = f'argotune chat --cluster {service}{namespace_flag(api)} "QUESTION"'
        print(terminal.escape(f"{'ask:':11} {command}"))
    if image := run.outputs("package").get("image-reference"):
        print(terminal.escape(f"{'image:':11} {image}"))
    next_steps, log = {}, ""
    if run.phase != "Succeeded" and run.cause:
        log = logs.tail_errors(api, run)
        if run.cause.fix and not log:
            next_steps["fix"] = run.cause.fix
        next_steps["see"] = f"argotune logs {run.name} --step {run.cause.key}{namespace_flag(api)}"
        next_steps["resume"] = f"argo retry {run.name}{namespace_flag(api)}"
    return result.print_verdict(run, next_steps, log)


def print_detached(api: Workflows, name: str) -> int:
    """Print how to watch or stop a run that continues in the background; return the exit code."""
    print(f"\nstopped watching; {name} continues", file=sys.stderr)
    print(f"    watch: argotune status {name} --watch{namespace_flag(api)}", file=sys.stderr)
    print(f"    stop:  argotune stop {name} --cluster{namespace_flag(api)}", file=sys.stderr)
    return Cancelled.exit_code


def namespace_flag(api: Workflows) -> str:
    """Return the flag that selects the namespace."""
    return f" -n {api.namespace}"


def _notices(api: Workflows, run: RunStatus) -> list[str]:
    """Return what the user should know of a run that has not ended."""
    pending = [f"{run.name}: {run.message}"] if run.message and run.phase == "Pending" else []
    approve = f"argotune approve {run.name}{namespace_flag(api)}"
    return pending + [f"{step.key} is waiting for approval: {approve}" for step in run.pending_approvals]
