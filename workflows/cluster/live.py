"""Shows a run on a cluster while it goes on, as one on this machine is shown."""

from __future__ import annotations

import sys
from datetime import datetime

from workflows.argo.phase import Phase
from workflows.cluster import logs, watch
from workflows.cluster.backoff import Backoff
from workflows.cluster.status import RunStatus, read
from workflows.cluster.steps import Step
from workflows.cluster.workflows_api import Workflows
from workflows.errors import Cancelled
from workflows.runner.observer import Observer
from workflows.runner.state import Node, State


def watch_to_completion(api: Workflows, name: str) -> int:
    """Follow a run to its end on the terminal, or until Ctrl-C; gives the exit code."""
    from workflows.runner.view import choose_view

    try:
        return print_result(api, show(api, name, choose_view()))
    except KeyboardInterrupt:
        return detached(api, name)


def show(api: Workflows, name: str, observer: Observer, patience: Backoff | None = None) -> RunStatus:
    """Follow a run to its end before the eyes of ``observer``; gives its last state.

    Raises:
        KeyboardInterrupt: the user wants to see no more; the run goes on.
    """
    told: dict[str, Step] = {}
    said: set[str] = set()
    run = None
    try:
        for workflow in watch.follow(api, name, observer.said, patience):
            run = read(workflow)
            if not told:
                observer.started(_state(run), [step.key for step in run.steps])
            for step in run.steps:
                _tell(observer, step, told.get(step.key))
                told[step.key] = step
            for text in [] if run.done else _news(api, run):
                if text not in said:
                    said.add(text)
                    observer.said(text)
    finally:
        if run is not None and told:
            observer.ended(_state(run))
    if run is None:
        raise AssertionError("a watch gives one state at least")
    return run


def print_result(api: Workflows, run: RunStatus) -> int:
    """Say how a run ended: where it is served, or the one cause; gives the exit code."""
    rollout = run.step("rollout")
    if rollout and rollout.outputs.get("endpoint"):
        for label, name in (("base model", "base-answer"), ("adapter", "answer"), ("endpoint", "endpoint")):
            if rollout.outputs.get(name):
                print(f"{label + ':':11} {rollout.outputs[name]}")
    package = run.step("package")
    if package and package.outputs.get("image-reference"):
        print(f"{'image:':11} {package.outputs['image-reference']}")
    if run.verdict:
        print(f"error: {run.name}: {run.verdict}", file=sys.stderr)
        if run.phase != "Succeeded" and (said := logs.tail_errors(api, run)):
            print(said, file=sys.stderr)
        if run.phase != "Succeeded" and run.cause:
            step = run.cause.key
            print(f"    see: argotune logs {run.name} --step {step}{flags(api)}", file=sys.stderr)
            print(f"    then, mended: argo retry {run.name} -n {api.namespace}", file=sys.stderr)
    return run.exit_code


def detached(api: Workflows, name: str) -> int:
    """Say how to come back to a run that goes on unseen; gives the exit code."""
    print(f"\nno longer watching; {name} goes on", file=sys.stderr)
    print(f"    come back: argotune status {name} --watch{flags(api)}", file=sys.stderr)
    print(f"    end it:    argotune stop {name} --cluster{flags(api)}", file=sys.stderr)
    return Cancelled.exit_code


def flags(api: Workflows) -> str:
    """The flag that leads back to the namespace."""
    return f" -n {api.namespace}"


def _news(api: Workflows, run: RunStatus) -> list[str]:
    """What a person should know of a run that goes on."""
    waiting = [f"{run.name}: {run.message}"] if run.message and run.phase == "Pending" else []
    return waiting + [f"{step.key} waits: argotune approve {run.name}{flags(api)}" for step in run.asking]


def _tell(observer: Observer, step: Step, before: Step | None) -> None:
    if not step.phase or step == before:
        return
    node = _node(step)
    observer.changed(node)
    if step.progress:
        observer.progress(node, *step.progress)


def _node(step: Step) -> Node:
    return Node(
        key=step.key,
        task=step.key.rpartition(".")[2],
        template="",
        type="Container",
        phase=Phase(step.phase) if step.phase in list(Phase) else Phase.PENDING,
        message=step.message,
        started_at=_seconds(step.started),
        finished_at=_seconds(step.finished),
    )


def _state(run: RunStatus) -> State:
    created = _seconds(run.created) or 0.0
    phase = Phase(run.phase) if run.phase in list(Phase) else Phase.PENDING
    return State(name=run.name, uid="", created_at=created, phase=phase)


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
