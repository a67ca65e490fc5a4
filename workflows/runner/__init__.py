"""Runs a compiled Argo Workflow on this machine, with Argo's semantics and nothing but the document.

    check(document)                             refuse, by name and all at once, what can't be done here
    start(document, folder, name=..., ...)      run it in an empty folder
    resume(folder, document=...)                go on after anything: what has succeeded is kept
    read_state(folder)                          look at a run, also while it is at work

``workflows.runs.view.choose_view(stream)`` returns an observer that shows the run in a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflows.argo.workflow import Workflow
    from workflows.runner.control import Timing
    from workflows.runner.outcome import Outcome
    from workflows.runner.state import Run, State
    from workflows.runs.observer import Observer


def check(document: dict[str, Any]) -> None:
    """Refuse what this runner can't do, or what can't work: unknown fields, undefined names, cycles, expressions.

    Raises:
        InvalidInput: with every problem found.
    """
    _checked(document)


def start(
    document: dict[str, Any],
    folder: Path,
    *,
    name: str,
    parameters: Mapping[str, str] | None = None,
    volumes: Mapping[str, Path] | None = None,
    observer: Observer | None = None,
    timing: Timing | None = None,
) -> Outcome:
    """Run a document of kind Workflow, (Cluster)WorkflowTemplate or CronWorkflow in ``folder``.

    Args:
        document: the compiled document, as a dict.
        folder: the run folder; must not hold a run.
        name: ``{{workflow.name}}``.
        parameters: values for the workflow's parameters, as ``argo submit -p``, and answers to its ``suspend``
            templates.
        volumes: folders for persistent volume claims, secrets, configMaps and volumes that only a cluster can mount,
            by the name of the claim, secret, configMap or volume.
        observer: is told of every change; None: nobody is.
        timing: the clock, for tests.

    Raises:
        InvalidInput: the document, a parameter or a volume is wrong, or the folder is taken. Nothing was written.
    """
    import time
    import uuid

    from workflows.errors import InvalidInput, Problem
    from workflows.runner.state import Run, State, locked

    given = {key: Path(path).absolute() for key, path in (volumes or {}).items()}
    workflow = _checked(document, parameters or {}, given)
    if (folder / "state.json").exists():
        fix = "resume it, or name another folder"
        raise InvalidInput(Problem("a run is kept here already", path=str(folder), fix=fix))
    state = State(name=name, uid=str(uuid.uuid4()), created_at=time.time(), parameters=dict(parameters or {}))
    state.volumes = {key: str(path) for key, path in given.items()}
    with locked(folder):
        run = Run(folder.absolute(), _with_parameters(document, state.parameters), state)
        run.save_document()
        run.save()
        return _run(workflow, run, observer, timing)


def resume(
    folder: Path,
    *,
    document: dict[str, Any] | None = None,
    answers: Mapping[str, str] | None = None,
    observer: Observer | None = None,
    timing: Timing | None = None,
) -> Outcome:
    """Go on with the run kept in ``folder``: tasks that have succeeded are kept, all others run again.

    Processes that a dead runner left are ended first. Failed tasks have all their retries again.

    Args:
        folder: the run folder.
        document: what the user would run now; refused when it is another one than the run was started with.
        answers: to ``suspend`` templates. All other parameters stay as they are.
        observer: as in ``start``.
        timing: as in ``start``.

    Raises:
        InvalidInput: there is no run, it is at work, ``document`` differs (naming the paths), or nothing asks for an
            answer given.
    """
    from workflows.errors import InvalidInput, Problem
    from workflows.runner import state as states
    from workflows.runner import validation

    if not (folder / "state.json").exists():
        states.load(folder)
    with states.locked(folder):
        run = states.load(folder.absolute())
        if document is not None:
            new = _with_parameters(document, run.state.parameters)
            changed = states.changed_paths(_identity(run.document), _identity(new))
            if changed:
                fix = "start a new run for it, or resume with the document of this run"
                raise InvalidInput([Problem("changed since the run was started", path=p, fix=fix) for p in changed])
        given = {key: Path(path) for key, path in run.state.volumes.items()}
        workflow = _checked(run.document, {}, given)
        if problems := validation.answer_problems(workflow, answers or {}):
            raise InvalidInput(problems)
        run.state.parameters |= answers or {}
        _clean_up(run, timing)
        return _run(workflow, run, observer, timing)


def read_state(folder: Path) -> State:
    """The state of the run kept in ``folder``, as last written.

    Raises:
        InvalidInput: there is none.
    """
    from workflows.runner import state as states

    return states.load(folder).state


def _checked(
    document: dict[str, Any], parameters: Mapping[str, str] | None = None, volumes: Mapping[str, Path] | None = None
) -> Workflow:
    """The document as typed parts; with ``volumes``, also ready to be run on this machine."""
    from workflows.errors import InvalidInput
    from workflows.runner import launch, reading, validation
    from workflows.runner import volumes as mounting

    workflow, problems = reading.read(document)
    if workflow:
        problems += validation.problems(workflow)
        if volumes is not None:
            problems += validation.parameter_problems(workflow, parameters or {})
            problems += mounting.problems(workflow, volumes) + launch.problems(workflow)
    if workflow is None or problems:
        raise InvalidInput(problems)
    return workflow


def _run(workflow: Workflow, run: Run, observer: Observer | None, timing: Timing | None) -> Outcome:
    import asyncio

    from workflows.runner.control import Timing
    from workflows.runner.engine import Engine
    from workflows.runner.outcome import outcome_of
    from workflows.runs.observer import Observer

    given = {key: Path(path) for key, path in run.state.volumes.items()}
    engine = Engine(workflow, run, given, observer or Observer(), timing or Timing())
    asyncio.run(engine.run())
    return outcome_of(run)


def _clean_up(run: Run, timing: Timing | None) -> None:
    """End what a dead runner left, and forget what did not succeed."""
    from workflows.argo.phase import Phase
    from workflows.runner.launch import GRACE_SECONDS, marker
    from workflows.runner.process import kill_orphans

    grace = GRACE_SECONDS if timing is None or timing.grace is None else timing.grace
    state = run.state
    left = {
        marker(run, key): (node.attempts[-1].process, node.attempts[-1].process_created)
        for key, node in state.nodes.items()
        if node.attempts and node.attempts[-1].phase is Phase.RUNNING
    }
    kill_orphans(left, grace)
    for key, node in list(state.nodes.items()):
        # A workflow that has succeeded is done, whatever failed in it and was handled. The exit handler speaks of the
        # whole run: what it did for another end doesn't count for this one.
        of_exit, main_is_done = key.split(".")[0] == "onExit", state.main is Phase.SUCCEEDED
        if (node.phase is Phase.SUCCEEDED and (main_is_done or not of_exit)) or (main_is_done and not of_exit):
            continue
        if not node.attempts:
            del state.nodes[key]
            continue
        if node.attempts[-1].phase is Phase.RUNNING:
            node.attempts[-1].phase, node.attempts[-1].message = Phase.FAILED, "its runner was gone"
        node.phase, node.message, node.fix, node.cause = Phase.PENDING, "", "", ""
        node.started_at = node.finished_at = node.exit_code = node.result = None
        node.outputs = {}


def _with_parameters(document: dict[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    """The document with the given values in its arguments, as ``argo submit -p`` stores it."""
    import copy

    new = copy.deepcopy(document)
    spec = new["spec"].get("workflowSpec", new["spec"])
    for parameter in (spec.get("arguments") or {}).get("parameters") or []:
        if parameter["name"] in parameters:
            parameter["value"] = parameters[parameter["name"]]
    return new


def _identity(document: dict[str, Any]) -> dict[str, Any]:
    """What makes a document another one: everything but its name."""
    import json

    plain: dict[str, Any] = json.loads(json.dumps(document))
    names = ("name", "generateName", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation")
    metadata = {key: value for key, value in (plain.get("metadata") or {}).items() if key not in names}
    return plain | {"metadata": metadata}
