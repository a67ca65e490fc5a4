"""Compose Argo Workflows of your own, in Hera, out of our steps.

    from hera.workflows import DAG
    from workflows import Templates, load, pipeline, to_yaml

    plan = load("workspace.yaml", {"tuning.epochs": 1})       # the Workspace, with what you want otherwise
    steps = Templates(plan)                                   # our steps, as templates of Hera
    with pipeline(plan) as workflow:                          # a Workflow of Hera, with all that surrounds the DAG
        with DAG(name="main"):
            ready, rows = steps.provision(), steps.download()
            tuned = steps.tune(arguments=[rows, {"rank": 16}])
            packaged = steps.package(arguments=[rows, tuned])
            [ready, rows] >> tuned >> packaged
    print(to_yaml(workflow), end="")                          # for ``argo submit -`` or ``argotune run FILE``

``load``       reads a Workspace into a plan: every value a run needs, checked
``pipeline``   a Hera Workflow with the plan's parameters, volumes, locks, security, and exit handler
``Templates``  our steps for a plan; call one inside a ``DAG`` for a task; ``own`` makes a step of yours
``to_dict``    the document, as plain data; refuses what Argo would refuse or misread
``to_yaml``    the same as text that Go's YAML reader takes as it was meant (Hera's own ``to_yaml`` is not safe)
``submit``     creates it on the cluster of your kubeconfig, or through the Argo server that ARGO_SERVER names

A step's inputs are arguments as in Hera: a map, or a list of maps, parameters and tasks. Of a task, those outputs are
handed on that the step takes. Inputs named like a parameter of the workflow (``learning-rate``, ``image``...) take its
value when you give none. ``steps.tune.inputs`` and ``steps.tune.outputs`` list what a step takes and gives;
docs/ARCHITECTURE.md has the table. All steps share one volume, ``/mnt/work``. It is ReadWriteOnce: pods that use it at
the same time must be on one node.

Nothing of this is loaded before it is asked for: ``import workflows`` stays instant.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hera.workflows import Parameter, Suspend, Workflow

from workflows.compile import emit, kinds, pod, templates
from workflows.compile import workflow as surroundings
from workflows.compile.dag import exit_handler
from workflows.compile.parameters import parameters
from workflows.compile.pod import Requests, Retries
from workflows.compile.step_template import StepTemplate
from workflows.compile.volumes import WORK_MOUNT, WorkPaths
from workflows.errors import InvalidInput, Problem
from workflows.lint import lint
from workflows.plan.model import Plan

# Section of the plan that a step needs, and where a Workspace says it.
_NEEDS = {
    "download": ("data", "tuning.input"),
    "check": ("schedule", "pipeline.schedule"),
    "tune": ("tuning", "tuning"),
    "evaluate": ("evaluation", "tuning and held-out rows (pipeline.data.evalSplit)"),
    "promote": ("evaluation", "tuning and held-out rows (pipeline.data.evalSplit)"),
    "package": ("output", "tuning.output"),
    "rollout": ("rollout", "inference"),
}


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
        values: values of the plan by their paths, as ``--set`` takes them (``argotune plan FILE`` lists all).
        name: which Workspace, where the file holds several.
        site: site profile (default: ``$ARGOTUNE_SITE`` or ``~/.argotune/site.yaml``).
        namespace: where the Workflow is to run.

    Raises:
        InvalidInput: with all that is wrong in the file, in the values and in the site profile.
    """
    from workflows.load_plans import plans

    path = _shown(Path(file))
    sets = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in (values or {}).items()]
    found = plans(path, sets, str(site) if site else None, namespace)
    chosen = [plan for plan in found if name in (None, plan.name)]
    if len(chosen) != 1:
        names = ", ".join(plan.name for plan in found)
        what = f"holds several Workspaces ({names})" if chosen else f"holds no Workspace {name}, only {names}"
        raise InvalidInput(Problem(what, file=path, fix="say which: load(file, name=...)"))
    return chosen[0]


def pipeline(
    plan: Plan, *, arguments: Sequence[Parameter] = (), without: Sequence[str] = (), **fields: Any
) -> Workflow:
    """A Workflow of Hera for a plan, to be filled with the template ``main``; ``release`` and ``report`` run on exit.

    Args:
        plan: from ``load``.
        arguments: parameters more than the plan's own (see ``argotune compile``).
        without: names of the plan's own parameters that your DAG has no use for.
        fields: any field of Hera's ``Workflow``, in place of ours.

    Raises:
        InvalidInput: ``without`` names none of the plan's parameters.
    """
    own = parameters(plan)
    known = [parameter.name for parameter in own]
    if unknown := [name for name in without if name not in known]:
        fix = f"it has: {', '.join(filter(None, known))}"
        raise InvalidInput([Problem(f"the plan has no parameter {name}", "without", fix=fix) for name in unknown])
    kept = [parameter for parameter in own if parameter.name not in without]
    workflow = surroundings.workflow(plan, **{"arguments": [*kept, *arguments], **fields})
    steps = Templates(plan)
    with workflow:
        exit_handler(steps.release, steps.report)
    return workflow


class Templates:
    """Our steps as templates of Hera, made from a plan.

    Each is a Hera ``Container`` (``approval`` a ``Suspend``): change its fields before the first call, and call it
    inside a ``DAG`` for a task. A step that the Workspace says nothing of is refused when it is asked for.

    Args:
        plan: from ``load``.
        dataset: folder of the work volume from which tune and evaluate take the rows.
        candidates: several adapters are made to choose from. Tune and evaluate have one more input, ``candidate``: the
            name of a folder for each, below ``/mnt/work/candidates``. ``promote`` chooses.
    """

    def __init__(self, plan: Plan, *, dataset: str = "dataset", candidates: bool = False) -> None:
        self._plan = plan
        self._place = WorkPaths(dataset, candidates)

    @cached_property
    def preflight(self) -> StepTemplate:
        """Asks all that can be asked for nothing: data, model, registry, secrets, storage, quota."""
        return self._made(templates.preflight)

    @cached_property
    def provision(self) -> StepTemplate:
        """Sees to it that there is something to compute on."""
        return self._made(templates.provision)

    @cached_property
    def download(self) -> StepTemplate:
        """Fetches, checks and splits the rows."""
        return self._made(templates.download)

    @cached_property
    def check(self) -> StepTemplate:
        """Whether data or settings are others than those of the adapter in service (with a schedule)."""
        return self._made(templates.check)

    @cached_property
    def tune(self) -> StepTemplate:
        """Trains an adapter."""
        return self._made(templates.tune, self._place)

    @cached_property
    def evaluate(self) -> StepTemplate:
        """Compares the adapter with its base; its output ``verdict`` is ``pass`` or ``fail``."""
        return self._made(templates.evaluate, self._place)

    @cached_property
    def promote(self) -> StepTemplate:
        """Makes the best candidate that has passed the adapter of the later steps; fails when none has.

        Its input ``candidates`` is what Argo gathers of a fan-out whose outputs are ``adapter-digest``, ``base-loss``,
        ``adapter-loss`` and ``verdict``: ``{{tasks.NAME.outputs.parameters}}``.
        """
        return self._made(templates.promote)

    @cached_property
    def approval(self) -> Suspend:
        """Waits for somebody; its output ``approve`` is ``YES`` or ``NO``."""
        return self._made(templates.approval)

    @cached_property
    def package(self) -> StepTemplate:
        """Makes the image of the adapter, and pushes it."""
        return self._made(templates.package)

    @cached_property
    def rollout(self) -> StepTemplate:
        """Serves base and adapters, and asks the question."""
        return self._made(templates.rollout)

    @cached_property
    def release(self) -> StepTemplate:
        """Gives back what provision took; ``pipeline`` calls it on exit."""
        return self._made(templates.release)

    @cached_property
    def report(self) -> StepTemplate:
        """Writes the report; ``pipeline`` calls it on exit."""
        return self._made(templates.report)

    def own(
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
        """A step of yours with the work volume, retries and security of ours.

        It leaves each output as a file of its name in the folder ``$ARGOTUNE_OUTPUTS``. A path below ``/mnt/work``
        should be a word of its own in the command: ``argotune run`` puts the folder of this machine in its place.
        """

        def make(plan: Plan) -> StepTemplate:
            return pod.step(
                plan,
                name,
                image,
                command=command,
                inputs=inputs,
                outputs=outputs,
                mounts=[WORK_MOUNT],
                requests=requests,
                retries=Retries(retries),
                timeout=timeout,
                on_gpu=on_gpu,
            )

        return self._made(make)

    def _made(self, make: Callable[..., Any], *more: Any) -> Any:
        section, field = _NEEDS.get(make.__name__, ("name", ""))
        if getattr(self._plan, section) is None:
            what = f"Workspace {self._plan.name} has no step {make.__name__}"
            raise InvalidInput(Problem(what, fix=f"it needs {field}"))
        # Apart from any `with` around: Hera adds a template to the workflow where it is first called.
        return Context().run(make, self._plan, *more)


def to_dict(workflow: Workflow, *, kind: str = "workflow", plan: Plan | None = None) -> dict[str, Any]:
    """The document of a workflow, checked by our linter.

    Args:
        workflow: from ``pipeline``, or any of Hera's.
        kind: ``workflow``; or ``template``, ``cluster-template``, ``cron`` of the plan's name (and schedule).
        plan: needed for all kinds but ``workflow``.

    Raises:
        InvalidInput: with each error that the linter finds, or for a kind without a plan or schedule.
    """
    _reject_duplicate_templates(workflow)
    document: dict[str, Any] = workflow.to_dict()
    if kind != "workflow":
        if kind not in kinds.KINDS or plan is None:
            raise InvalidInput(Problem(f"kind {kind!r} needs a plan", fix=f"plan=..., kind one of {[*kinds.KINDS]}"))
        document = kinds.KINDS[kind](plan, document)
    if errors := lint([("", emit.to_json(document))]).errors:
        raise InvalidInput([replace(finding.problem, line=0) for finding in errors])
    return document


def to_yaml(workflow: Workflow, *, kind: str = "workflow", plan: Plan | None = None) -> str:
    """The document of a workflow as YAML; arguments and errors as of ``to_dict``."""
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
    """Create the document of a workflow on a cluster; gives its name there, for ``argotune status NAME --watch``.

    Args:
        workflow: from ``pipeline``, or any of Hera's.
        parameters: values of its parameters, as ``argo submit -p`` takes them.
        kind: as of ``to_dict``; so is ``plan``.
        plan: see there.
        namespace: default: the workflow's own, ``$ARGO_NAMESPACE``, or the context's.
        context: of the kubeconfig (default: the current one).
        kubeconfig: default: ``$KUBECONFIG`` or ``~/.kube/config``.

    Raises:
        InvalidInput: as ``to_dict``; a parameter that is not declared; no way to a cluster.
        ApiFailure: the cluster can't be asked, or refuses.
    """
    from workflows.cluster import connect, submission

    document = submission.with_parameters(to_dict(workflow, kind=kind, plan=plan), parameters or {}, "")
    chosen = argparse.Namespace(namespace=namespace, context=context, kubeconfig=kubeconfig)
    api = connect.connect(chosen, document["metadata"].get("namespace") or "")
    return str(submission.create(api, document)["metadata"]["name"])


def _reject_duplicate_templates(workflow: Workflow) -> None:
    """Hera keeps the first of two templates with one name, and runs it in place of the second without a word."""
    kept = {template.name: template for template in workflow.templates}
    called = [task.template for dag in workflow.templates for task in getattr(dag, "tasks", None) or []]
    wrong = [t.name for t in called if not isinstance(t, str | None) and kept[t.name] is not t and kept[t.name] != t]
    if wrong:
        fix = "give one of them another name: steps.tune.name = 'tune-b'"
        raise InvalidInput(
            [Problem(f"there are two templates called {name}", fix=fix) for name in dict.fromkeys(wrong)]
        )


def _shown(file: Path) -> str:
    """A path below the current folder as it is seen from there, so that documents don't depend on the machine."""
    absolute = file.absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(file)
