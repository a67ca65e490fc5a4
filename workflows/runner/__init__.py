"""Run a compiled Argo Workflow locally, with Argo's semantics; only the document is required.

    check(document)                             report everything that is invalid or not supported
    start(document, folder, name=..., ...)      run it in an empty directory
    resume(folder, document=...)                continue an interrupted or failed run
    read_state(folder)                          read the state of a run, also while it runs

``workflows.runs.view.choose_view(stream)`` returns an observer that shows the run in a terminal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflows.argo.workflow import Workflow
    from workflows.runner.control import Timing
    from workflows.runner.outcome import Outcome
    from workflows.runner.state import Run, State
    from workflows.runs.observer import Observer


def check(document: dict[str, Any]) -> None:
    """Check that a document is valid Argo and that the local runner supports it.

    Raises:
        InvalidInput: with all problems.
    """
    _parse(document)


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
    """Run a Workflow, WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow in ``folder``.

    Args:
        document: the compiled document.
        folder: the run directory; must not contain a run.
        name: ``{{workflow.name}}``.
        parameters: values of the workflow's parameters, as in ``argo submit -p``, and answers to its ``suspend``
            templates.
        volumes: directories for persistent volume claims, secrets, configMaps and volumes that only a cluster can
            mount, by the name of the claim, secret, configMap or volume.
        observer: receives the events of the run.
        timing: the clock, for tests.

    Raises:
        InvalidInput: the document, a parameter or a volume is invalid, or the directory contains a run. Nothing was
            written.
    """
    import time
    import uuid

    from workflows.errors import InvalidInput, Problem
    from workflows.runner.parameters import declared_values, replaced_digests, with_parameters
    from workflows.runner.state import Run, State, locked

    directories = {key: Path(path).absolute() for key, path in (volumes or {}).items()}
    workflow = _parse(document, folder, parameters or {}, directories)
    if (folder / "state.json").exists():
        fix = "resume it, or use another directory"
        raise InvalidInput(Problem("the directory already contains a run", path=str(folder), fix=fix))
    state = State(name=name, uid=str(uuid.uuid4()), created_at=time.time(), parameters=dict(parameters or {}))
    state.volumes = {key: str(path) for key, path in directories.items()}
    state.replaced = replaced_digests(state, declared_values(document))
    with locked(folder):
        run = Run(folder.absolute(), with_parameters(document, state.parameters), state)
        run.save_document()
        run.save()
        return _run(workflow, run, observer, timing)


def resume(
    folder: Path,
    *,
    document: dict[str, Any] | None = None,
    answers: Mapping[str, str] | None = None,
    overridden: Collection[str] = (),
    observer: Observer | None = None,
    timing: Timing | None = None,
) -> Outcome:
    """Resume the run in ``folder``: tasks that succeeded are kept, all others run again.

    Orphaned processes of a runner that died are ended first. Failed tasks get all their retries again.

    Args:
        folder: the run directory.
        document: the current document, which must be the one of the run, except for signatures of URLs and parameters
            of ``parameters.CHANGEABLE``; None to skip this check.
        answers: answers to ``suspend`` templates, and parameters, which can differ as those of ``document``.
        overridden: parameters whose value in ``document`` replaces an earlier answer even if it is the original one,
            such as those that ``--set`` sets.
        observer: as in ``start``.
        timing: as in ``start``.

    Raises:
        InvalidInput: there is no run, it is running, ``document`` or a parameter differs (with the paths), or no
            ``suspend`` template has the parameter of an answer.
    """
    from workflows.errors import InvalidInput
    from workflows.runner import parameters, validation
    from workflows.runner import state as states

    if not (folder / "state.json").exists():
        states.read(folder)
    with states.locked(folder):
        run = states.load(folder.absolute())
        declared = parameters.declared_values(document)
        given, answers = parameters.split_answers(run.document, answers or {})
        values = parameters.newest_values(run.state, declared, given, overridden)
        new = parameters.with_parameters(document or run.document, values)
        if problems := parameters.find_changes(run.document, new, given):
            raise InvalidInput(problems)
        parameters.renew_inputs(run, new)
        run.document["spec"] = new["spec"]
        volumes = {key: Path(path) for key, path in run.state.volumes.items()}
        workflow = _parse(run.document, run.folder, {}, volumes)
        if problems := validation.check_answers(workflow, answers):
            raise InvalidInput(problems)
        run.state.parameters = values | answers
        run.state.replaced = parameters.replaced_digests(run.state, declared, overridden)
        run.save_all()
        _clean_up(run, timing)
        return _run(workflow, run, observer, timing)


def read_state(folder: Path) -> State:
    """Return the last written state of the run in ``folder``.

    Raises:
        InvalidInput: there is no run.
    """
    from workflows.runner import state as states

    return states.read(folder)


def _parse(
    document: dict[str, Any],
    folder: Path | None = None,
    parameters: Mapping[str, str] | None = None,
    volumes: Mapping[str, Path] | None = None,
) -> Workflow:
    """Return the document in typed parts; ``folder`` also checks that it can run there now."""
    from workflows.errors import InvalidInput
    from workflows.runner.launch import check_environment
    from workflows.runner.storage import check_storage
    from workflows.runner.validation import check_parameters, parse
    from workflows.runner.volumes import check_volumes

    workflow, problems = parse(document)
    if workflow and folder is not None:
        directories = volumes or {}
        problems += check_parameters(workflow, parameters or {})
        problems += check_volumes(workflow, directories) + check_environment(workflow)
        problems += check_storage(workflow, folder.absolute(), directories)
    if workflow is None or problems:
        raise InvalidInput(problems)
    return workflow


def _run(workflow: Workflow, run: Run, observer: Observer | None, timing: Timing | None) -> Outcome:
    import asyncio

    from workflows.runner.control import Timing
    from workflows.runner.engine import Engine
    from workflows.runner.outcome import outcome_of
    from workflows.runs.observer import Observer

    volumes = {key: Path(path) for key, path in run.state.volumes.items()}
    engine = Engine(workflow, run, volumes, observer or Observer(), timing or Timing())
    asyncio.run(engine.run())
    return outcome_of(run)


def _clean_up(run: Run, timing: Timing | None) -> None:
    """End orphaned processes, and reset the nodes that did not succeed."""
    from workflows.argo.phase import Phase
    from workflows.runner.launch import GRACE_SECONDS, marker
    from workflows.runner.process import kill_orphans

    grace = GRACE_SECONDS if timing is None or timing.grace is None else timing.grace
    state = run.state
    markers = {
        marker(run, key): (node.attempts[-1].process, node.attempts[-1].process_identity)
        for key, node in state.nodes.items()
        if node.attempts and node.attempts[-1].phase is Phase.RUNNING
    }
    kill_orphans(markers, grace)
    for key, node in list(state.nodes.items()):
        # Keep all nodes of a main workflow that succeeded, including failures that it handled. The exit handler
        # depends on the result of the whole run, so its nodes from an earlier result run again.
        in_exit_handler, main_done = key.split(".")[0] == "onExit", state.main is Phase.SUCCEEDED
        if main_done and not in_exit_handler:
            continue
        if node.phase is Phase.SUCCEEDED and (main_done or not in_exit_handler):
            continue
        if not node.attempts:
            del state.nodes[key]
            continue
        if node.attempts[-1].phase is Phase.RUNNING:
            node.attempts[-1].phase, node.attempts[-1].message = Phase.FAILED, "the runner died"
        node.phase, node.message, node.fix, node.cause = Phase.PENDING, "", "", ""
        node.started_at = node.finished_at = node.exit_code = node.result = None
        node.outputs = {}
