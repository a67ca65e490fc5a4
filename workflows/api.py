"""Compose Argo Workflows in Hera from argotune's steps.

    from hera.workflows import DAG
    from workflows import Templates, load, pipeline, to_yaml

    plan = load("workspace.yaml", {"tuning.epochs": 1})       # the Workspace, with overrides
    steps = Templates(plan)                                   # its steps, as Hera templates
    with pipeline(plan) as workflow:                          # a Hera Workflow, with everything around the DAG
        with DAG(name="main"):
            ready, rows = steps.provision(), steps.download()
            tuned = steps.tune(arguments=[rows, {"rank": 16}])
            packaged = steps.package(arguments=[rows, tuned])
            [ready, rows] >> tuned >> packaged
    print(to_yaml(workflow), end="")                          # for ``argo submit -`` or ``argotune run FILE``

``load``       reads a Workspace into a plan: every value of a run, validated
``pipeline``   creates a Hera Workflow with the plan's parameters, volumes, locks, security, and exit handler
``Templates``  has the steps of a plan; call one inside a ``DAG`` to add a task; ``custom_step`` creates your own
``to_dict``    returns the document as plain data; rejects what Argo would reject or misread
``to_yaml``    returns it as text that Go's YAML parser reads as intended (Hera's own ``to_yaml`` is not safe)
``submit``     creates it on the cluster of your kubeconfig, or through the Argo server in ARGO_SERVER

Pass the inputs of a step as arguments, as in Hera: a mapping, or a list of mappings, parameters and tasks. A task
passes its outputs that are inputs of the step. Inputs named like a parameter of the workflow (``learning-rate``,
``image``...) default to its value. ``steps.tune.inputs`` and ``steps.tune.outputs`` list the inputs and outputs of a
step; docs/ARCHITECTURE.md has the table. All steps share one volume, ``/mnt/work``. It is ReadWriteOnce: pods that use
it at the same time must run on one node.

``import workflows`` stays instant: nothing is loaded until it is used.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from hera.workflows import Parameter, Workflow

from workflows.compile import emit, kinds, pod, templates
from workflows.compile.dag import exit_handler
from workflows.compile.mount_paths import WorkPaths
from workflows.compile.parameters import parameters
from workflows.compile.pod import Requests
from workflows.compile.retries import Retries
from workflows.compile.step_template import StepTemplate
from workflows.compile.volumes import WORK_MOUNT
from workflows.compile.workflow import workflow as workflow_of
from workflows.errors import InvalidInput, Problem
from workflows.lint import lint
from workflows.plan.model import Plan

T = TypeVar("T")
_HELD_OUT_ROWS = "tuning and held-out rows (pipeline.data.evalSplit)"


def load(
    file: str | Path,
    values: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    site: str | Path | None = None,
    namespace: str | None = None,
) -> Plan:
    """Read the Workspace of a file into a plan; warnings go to standard error.

    Args:
        file: the YAML file.
        values: overrides by path, as for ``--set`` (``argotune plan --all FILE`` lists all paths).
        name: name of the Workspace, if the file has several.
        site: site profile (default: ``$ARGOTUNE_SITE`` or ``~/.argotune/site.yaml``).
        namespace: namespace of the Workflow.

    Raises:
        InvalidInput: with all errors of the file, the overrides and the site profile.
    """
    from workflows.load_plans import load_plans

    path = _relative(Path(file))
    overrides = [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in (values or {}).items()
    ]
    all_plans = load_plans(path, overrides, str(site) if site else None, namespace)
    matches = [plan for plan in all_plans if name in (None, plan.name)]
    if len(matches) != 1:
        names = ", ".join(plan.name for plan in all_plans)
        message = (
            f"contains several Workspaces ({names})" if matches else f"contains no Workspace {name}, only {names}"
        )
        raise InvalidInput(Problem(message, file=path, fix="pass the name: load(file, name=...)"))
    return matches[0]


def pipeline(
    plan: Plan, *, arguments: Sequence[Parameter] = (), without: Sequence[str] = (), **fields: Any
) -> Workflow:
    """Return a Hera Workflow for a plan; add the template ``main``. ``release`` and ``report`` run on exit.

    Args:
        plan: from ``load``.
        arguments: parameters in addition to the plan's (see ``argotune compile``).
        without: names of the plan's parameters that your DAG does not use.
        fields: fields of Hera's ``Workflow``; they override the plan's.

    Raises:
        InvalidInput: ``without`` has a name that is no parameter of the plan.
    """
    defaults = parameters(plan)
    known = [parameter.name for parameter in defaults]
    if unknown := [name for name in without if name not in known]:
        fix = f"use one of: {', '.join(filter(None, known))}"
        raise InvalidInput([Problem(f"the plan has no parameter {name}", "without", fix=fix) for name in unknown])
    remaining = [parameter for parameter in defaults if parameter.name not in without]
    workflow = workflow_of(plan, **{"arguments": [*remaining, *arguments], **fields})
    steps = Templates(plan)
    with workflow:
        exit_handler(steps.release, steps.report)
    return workflow


class _Step(Generic[T]):
    """Attribute of ``Templates``: the template of a step, created at the first access.

    Args:
        template: function of ``workflows/compile/templates.py``.
        section: section of the plan that the step requires.
        field: field of the Workspace that the section comes from.
        takes_paths: pass the directories of the step in the work volume.
    """

    def __init__(
        self, template: Callable[..., T], *, section: str = "name", field: str = "", takes_paths: bool = False
    ) -> None:
        self._template = template
        self._section, self._field = section, field
        self._takes_paths = takes_paths
        self.__doc__ = template.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, steps: None, owner: type) -> _Step[T]: ...
    @overload
    def __get__(self, steps: Templates, owner: type) -> T: ...
    def __get__(self, steps: Templates | None, owner: type) -> _Step[T] | T:
        if steps is None:
            return self
        if getattr(steps.plan, self._section) is None:
            message = f"Workspace {steps.plan.name} has no step {self._name}"
            raise InvalidInput(Problem(message, fix=f"add {self._field}"))
        paths = [steps.paths] if self._takes_paths else []
        template = _outside_of_workflow(self._template, steps.plan, *paths)
        vars(steps)[self._name] = template  # later accesses find it there
        return template


class Templates:
    """The steps of a plan as Hera templates.

    Each is a Hera ``Container`` (``approval`` a ``Suspend``): change its fields before the first call, and call it
    inside a ``DAG`` to add a task. Access to a step that the Workspace does not configure raises ``InvalidInput``.

    Args:
        plan: from ``load``.
        dataset: directory of the work volume from which tune and evaluate read the rows.
        candidates: train several adapters to choose from. Tune and evaluate get the input ``candidate``, the name of a
            directory below ``/mnt/work/candidates``; ``promote`` chooses.
    """

    claims = _Step(templates.claims)
    """Checks the volume claims that the first steps mount."""
    preflight = _Step(templates.preflight)
    """Checks data, model, registry, secrets, storage and quota, before anything is created."""
    dryrun = _Step(templates.dryrun, section="tuning", field="tuning")
    """Lets the libraries of tune check its settings, before anything is created."""
    provision = _Step(templates.provision)
    """Creates or checks the GPU nodes."""
    fetch = _Step(templates.fetch, section="tuning", field="tuning")
    """Fetches the base model into the models claim, on a CPU node."""
    download = _Step(templates.download, section="data", field="tuning.input")
    """Downloads, checks and splits the rows."""
    check = _Step(templates.check, section="schedule", field="pipeline.schedule")
    """Compares data and settings with those of the live adapter (with a schedule)."""
    tune = _Step(templates.tune, section="tuning", field="tuning", takes_paths=True)
    """Trains the adapter."""
    evaluate = _Step(templates.evaluate, section="evaluation", field=_HELD_OUT_ROWS, takes_paths=True)
    """Compares the adapter with its base model; its output ``verdict`` is ``pass`` or ``fail``."""
    promote = _Step(templates.promote, section="evaluation", field=_HELD_OUT_ROWS)
    """Makes the best candidate that passed the gate the adapter of the later steps; fails if none passed.

    Its input ``candidates`` is Argo's aggregate of a fan-out with the outputs ``adapter-digest``, ``base-loss``,
    ``adapter-loss`` and ``verdict``: ``{{tasks.NAME.outputs.parameters}}``.
    """
    approval = _Step(templates.approval)
    """Waits for a user's decision; its output ``approve`` is ``YES`` or ``NO``."""
    package = _Step(templates.package, section="output", field="tuning.output")
    """Builds the image of the adapter, and pushes it."""
    rollout = _Step(templates.rollout, section="rollout", field="inference")
    """Serves base model and adapters, and asks the question."""
    release = _Step(templates.release)
    """Releases the nodes of the run; ``pipeline`` calls it on exit."""
    report = _Step(templates.report)
    """Writes the report; ``pipeline`` calls it on exit."""

    def __init__(self, plan: Plan, *, dataset: str = "dataset", candidates: bool = False) -> None:
        self.plan = plan
        self.paths = WorkPaths(dataset, candidates)

    def custom_step(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        retries: int = 2,
        timeout: str = "30m",
        requests: Requests = pod.DATA,
        on_gpu: bool = False,
    ) -> StepTemplate:
        """Return your own step, with the work volume, retries and security of the others.

        It writes each output to a file of its name in the directory ``$ARGOTUNE_OUTPUTS``. Paths below ``/mnt/work``
        must be separate words of the command: ``argotune run`` replaces them with local paths.
        """
        return _outside_of_workflow(
            pod.step,
            self.plan,
            name,
            None,
            image=image,
            command=command,
            inputs=inputs,
            outputs=outputs,
            mounts=[WORK_MOUNT],
            requests=requests,
            retries=Retries(retries),
            timeout=timeout,
            on_gpu=on_gpu,
        )


def to_dict(workflow: Workflow, *, kind: str = "workflow", plan: Plan | None = None) -> dict[str, Any]:
    """Return the document of a workflow, checked by the linter.

    Args:
        workflow: from ``pipeline``, or any Hera Workflow.
        kind: ``workflow``; or ``template``, ``cluster-template``, ``cron``, with the plan's name (and schedule).
        plan: required for all kinds but ``workflow``.

    Raises:
        InvalidInput: with each error of the linter, or for a kind without a plan or schedule.
    """
    _reject_duplicate_templates(workflow)
    document: dict[str, Any] = workflow.to_dict()
    if kind != "workflow":
        if kind not in kinds.KINDS or plan is None:
            fix = f"pass plan=..., and kind as one of {', '.join(kinds.KINDS)}"
            raise InvalidInput(Problem(f"kind {kind!r} requires a plan", fix=fix))
        document = kinds.KINDS[kind](plan, document)
    if errors := lint([("", emit.to_json(document))]).errors:
        raise InvalidInput([replace(finding.problem, line=0) for finding in errors])
    return document


def to_yaml(workflow: Workflow, *, kind: str = "workflow", plan: Plan | None = None) -> str:
    """Return the document of a workflow as YAML; arguments and errors as for ``to_dict``."""
    return emit.to_yaml(to_dict(workflow, kind=kind, plan=plan))


def submit(
    workflow: Workflow,
    parameters: Mapping[str, str] | None = None,
    *,
    kind: str = "workflow",
    plan: Plan | None = None,
    namespace: str | None = None,
    context: str | None = None,
    kubeconfig: str | None = None,
) -> str:
    """Create a workflow on a cluster, and return its name, for ``argotune status NAME --watch``.

    Args:
        workflow: from ``pipeline``, or any Hera Workflow.
        parameters: values of its parameters, as for ``argo submit -p``.
        kind: as for ``to_dict``.
        plan: as for ``to_dict``.
        namespace: default: the workflow's own, ``$ARGO_NAMESPACE``, or the context's.
        context: context of the kubeconfig (default: the current one).
        kubeconfig: default: ``$KUBECONFIG`` or ``~/.kube/config``.

    Raises:
        InvalidInput: as ``to_dict``; an undeclared parameter; no cluster is configured.
        ApiFailure: the cluster is unreachable, or rejects the workflow.
    """
    from workflows.cluster import connect, submission

    document = submission.with_parameters(to_dict(workflow, kind=kind, plan=plan), parameters or {}, "")
    args = argparse.Namespace(namespace=namespace, context=context, kubeconfig=kubeconfig)
    api = connect.connect(args, document["metadata"].get("namespace") or "")
    return str(submission.create(api, document)["metadata"]["name"])


def _outside_of_workflow(template: Callable[..., T], *args: Any, **fields: Any) -> T:
    """Create a template outside of any ``with``: Hera adds it to the workflow where it is first called."""
    return Context().run(template, *args, **fields)


def _reject_duplicate_templates(workflow: Workflow) -> None:
    """Reject different templates of one name: Hera would silently run the first in place of the second."""
    added = {template.name: template for template in workflow.templates}
    called = [task.template for dag in workflow.templates for task in getattr(dag, "tasks", None) or []]
    replaced = [t for t in called if not isinstance(t, str | None) and added[t.name] is not t and added[t.name] != t]
    names = dict.fromkeys(template.name for template in replaced)
    if names:
        fix = "rename one of them: steps.tune.name = 'tune-b'"
        raise InvalidInput([Problem(f'duplicate template "{name}"', fix=fix) for name in names])


def _relative(file: Path) -> str:
    """Return a path below the current directory relative to it, so that documents do not depend on the machine."""
    absolute = file.absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(file)
