"""The DAG: the steps of a plan, and the outputs they pass to each other.

           .--> provision --.
preflight -+                +--> tune --> evaluate --(verdict == pass)--> [approval --(YES)-->] package --> rollout
           '--> download  --'                                                     onExit: release, report

If the user sets arguments of libraries, dryrun runs in parallel with preflight. If the first steps mount claims of the
user, the step claims precedes them.

With ``pipeline.storage.fetchModel``, fetch runs in parallel with provision.

If the run creates its nodes, pull follows provision, in parallel with download and fetch (``image_pull.py``). It is a
leaf that cannot fail.

With a search, a DAG of trials replaces tune and evaluate (``search.py``).

With a schedule, nodes are provisioned only if data or settings have changed:

download --> check --(changed)--> preflight --> provision --> tune --> ...
"""

from __future__ import annotations

from typing import Any

from hera.workflows import DAG, Suspend

from workflows.compile import image_pull, search, templates
from workflows.compile.parameters import task_output
from workflows.compile.settings import needs_dryrun
from workflows.compile.step_template import StepTemplate
from workflows.compile.volumes import early_claims
from workflows.compile.workflow import EXIT, MAIN, workflow
from workflows.plan.model import Plan
from workflows.plan.nodes import provisions_nodes

CHECKS = ("preflight", "dryrun")
"""Steps that run before anything that costs; they run in parallel."""
Steps = dict[str, StepTemplate | Suspend | DAG]


def compile_workflow(plan: Plan) -> dict[str, Any]:
    """Compile a plan to an Argo Workflow, as a plain dict (never by Hera's ``to_yaml``, see ``emit.py``)."""
    with workflow(plan) as compiled:
        steps: Steps = {template.__name__: template(plan) for template in _steps(plan)}
        if plan.search:
            steps["search"] = search.search(plan)
        with DAG(name=MAIN):
            _main_tasks(plan, steps)
        exit_handler(steps["release"], steps["report"])
    document: dict[str, Any] = compiled.to_dict()
    return document


def exit_handler(release: Any, report: Any) -> None:
    """Add the exit handler, which runs however the run ended."""
    with DAG(name=EXIT):
        release()
        report()


def _steps(plan: Plan) -> list[Any]:
    return [
        *([templates.claims] if early_claims(plan) else []),
        templates.preflight,
        *([templates.dryrun] if needs_dryrun(plan) else []),
        templates.provision,
        *([image_pull.pull] if provisions_nodes(plan) else []),
        *([templates.fetch] if plan.tuning and plan.storage.fetch_model else []),
        *([templates.download] if plan.tuning else []),
        *([templates.check] if plan.schedule else []),
        *([templates.tune] if plan.tuning and not plan.search else []),
        *([templates.evaluate] if plan.evaluation and not plan.search else []),
        *([templates.approval] if plan.approval else []),
        *([templates.package] if plan.tuning else []),
        *([templates.rollout] if plan.rollout else []),
        templates.release,
        templates.report,
    ]


def _main_tasks(plan: Plan, steps: Steps) -> None:
    if "claims" in steps:
        steps["claims"]()
    first = "claims" if "claims" in steps else None
    if not plan.tuning:
        steps["preflight"](depends=first)
        steps["provision"](depends="preflight")
        previous = "provision"
    else:
        ready = _check_tasks(steps, first) if plan.schedule else _parallel_tasks(steps, first)
        if "pull" in steps:
            steps["pull"](depends="provision")
        _tuning_tasks(plan, steps, ready)
        previous = "package"
    if plan.rollout:
        outputs = ("image-digest", "image-reference") if plan.tuning else ()
        image = {name: task_output("package", name) for name in outputs}
        # The bare name would also accept a skipped package step (gate failed).
        steps["rollout"](arguments=image, depends=f"{previous}.Succeeded")


def _parallel_tasks(steps: Steps, first: str | None) -> str:
    """Add provision, fetch and download in parallel, after the checks; return what tune depends on."""
    checks = [name for name in CHECKS if name in steps]
    for name in checks:
        steps[name](depends=first)
    parallel = [name for name in ("provision", "fetch", "download") if name in steps]
    for name in parallel:
        steps[name](depends=" && ".join(checks))
    return " && ".join(parallel)


def _check_tasks(steps: Steps, first: str | None) -> str:
    """Add download and check, then the nodes if there is a change; return what tune depends on."""
    steps["download"](depends=first)
    steps["check"](arguments=_data_digest(), depends="download")
    checks = [name for name in CHECKS if name in steps]
    for name in checks:
        steps[name](depends="check", when=f"{task_output('check', 'changed')} == true")
    # The bare name would also accept a skipped check (nothing to tune).
    parallel = [name for name in ("provision", "fetch") if name in steps]
    for name in parallel:
        steps[name](depends=" && ".join(f"{check}.Succeeded" for check in checks))
    return " && ".join(f"{name}.Succeeded" for name in parallel)


def _tuning_tasks(plan: Plan, steps: Steps, ready: str) -> None:
    task = "search" if plan.search else "tune"
    digests = {"adapter-digest": task_output(task, "adapter-digest"), **_data_digest()}
    previous = {"previous": task_output("check", "previous")} if plan.schedule else {}
    depends, when = task, None
    if plan.search:
        # It fails if no trial passes the gate.
        steps["search"](arguments=_data_digest() | previous, depends=ready)
    else:
        steps["tune"](arguments=_data_digest(), depends=ready)
    if plan.evaluation and not plan.search:
        steps["evaluate"](arguments=digests | previous, depends=depends)
        depends, when = "evaluate", f"{task_output('evaluate', 'verdict')} == pass"
    if plan.approval:
        steps["approval"](depends=depends, when=when)
        # The bare name would also accept a skipped approval (gate failed).
        depends, when = "approval.Succeeded", f"{task_output('approval', 'approve')} == YES"
    arguments = dict(digests)
    if plan.schedule:
        arguments |= {
            "image": task_output("check", "image"),
            "moving-image": "{{workflow.parameters.image}}",
            "settings-digest": task_output("check", "settings-digest"),
        }
    steps["package"](arguments=arguments, depends=depends, when=when)


def _data_digest() -> dict[str, str]:
    return {"data-digest": task_output("download", "data-digest")}
