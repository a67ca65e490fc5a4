"""The DAG of a search: trials, each tuned and evaluated in a separate directory, and the promotion of the best.

search:  trial (one each) --> promote
trial:   tune --> evaluate

With successive halving, the best trials of each rung continue from their checkpoints:

search:  rung-1 (trials) --> prune-1 --> rung-2 (survivors) --> ... --> promote

A trial that fails does not stop the others; the search fails if no trial of a rung succeeds, or none passes the gate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from hera.workflows import DAG, Parameter
from hera.workflows import models as m

from workflows.compile import placement, templates
from workflows.compile.mount_paths import WorkPaths
from workflows.compile.parameters import task_output
from workflows.compile.settings import UID, required, search_items
from workflows.plan.model import Plan
from workflows.spec.search import Rung, flag_names, rungs

SEARCH, TRIAL = "search", "trial"
CANDIDATES = WorkPaths(candidates=True)
TRIAL_OUTPUTS = {"adapter-digest": "tune", "base-loss": "evaluate", "adapter-loss": "evaluate", "verdict": "evaluate"}
"""Outputs of a trial that promote and prune compare, by name: the step that has them."""
FORWARDED = ("adapter-digest",)
"""Outputs of promote that the search forwards."""


def search(plan: Plan) -> DAG:
    """Return the template of the search."""
    settings = required(plan.search)
    trial, steps = _trial(plan), {"promote": templates.promote(plan)}
    rounds = rungs(settings)
    if len(rounds) > 1:
        steps["prune"] = templates.prune(plan)
    run_inputs = _run_inputs(plan)
    with DAG(
        name=SEARCH,
        inputs=[Parameter(name=name) for name in run_inputs],
        outputs=[_forward("promote", name) for name in FORWARDED],
        parallelism=settings.parallel,
        fail_fast=False,  # a trial that diverges does not stop the others
    ) as dag:
        last = _rung_tasks(plan, rounds, trial, steps, _from_inputs(run_inputs))
        steps["promote"](arguments={"candidates": _outputs_of(last)}, depends=f"{last}.AnySucceeded")
    return dag


def _trial(plan: Plan) -> DAG:
    """Return the template of a trial, on its share of the node's GPUs."""
    search = required(plan.search)
    resource = plan.resource.model_copy(update={"gpus": plan.resource.gpus // search.parallel})
    own = plan.model_copy(update={"resource": resource, "search": search.model_copy(update={"parallel": 1})})
    tune, evaluate = templates.tune(own, CANDIDATES), templates.evaluate(own, CANDIDATES)
    if search.parallel > 1:
        for template in (tune, evaluate):
            template.labels = {**(template.labels or {}), placement.SEARCH_LABEL: UID}
            template.affinity = placement.on_one_node(template.affinity)
    values = [*CANDIDATES.inputs, *flag_names(plan.search), *_stop_input(plan)]
    run_inputs = _run_inputs(plan)
    with DAG(
        name=TRIAL,
        inputs=[Parameter(name=name) for name in (*values, *run_inputs)],
        outputs=[_forward(step, name) for name, step in TRIAL_OUTPUTS.items()],
    ) as dag:
        tune(arguments=_from_inputs([*values, "data-digest"]))
        digest = {"adapter-digest": task_output("tune", "adapter-digest")}
        evaluate(arguments=_from_inputs([*CANDIDATES.inputs, *run_inputs]) | digest, depends="tune")
    return dag


def _rung_tasks(
    plan: Plan, rounds: Sequence[Rung], trial: DAG, steps: dict[str, Any], run_values: dict[str, str]
) -> str:
    """Add the rungs, and prune between them; return the name of the last rung."""
    item = {name: f"{{{{item.{name}}}}}" for name in (*CANDIDATES.inputs, *flag_names(plan.search))}
    trials: dict[str, Any] = {"with_items": search_items(plan)}
    listed, name = json.dumps(search_items(plan)), TRIAL
    for number, (rung, following) in enumerate(zip(rounds, [*rounds[1:], None], strict=True), 1):
        name = TRIAL if len(rounds) == 1 else f"rung-{number}"
        share = {key: f"{rung.share:g}" for key in _stop_input(plan)}
        trial(name=name, arguments=item | share | run_values, **trials)
        if following:
            prune = f"prune-{number}"
            arguments = {"candidates": _outputs_of(name), "trials": listed, "keep": str(following.trials)}
            steps["prune"](name=prune, arguments=arguments, depends=f"{name}.AnySucceeded")
            listed = task_output(prune, "survivors")
            trials = {"with_param": listed, "depends": prune}
    return name


def _run_inputs(plan: Plan) -> list[str]:
    """Return the inputs of the search that are the same for all trials."""
    return ["data-digest", *(["previous"] if plan.schedule else [])]


def _stop_input(plan: Plan) -> list[str]:
    return ["stop-after"] if required(plan.search).method == "halving" else []


def _from_inputs(names: Iterable[str]) -> dict[str, str]:
    return {name: f"{{{{inputs.parameters.{name}}}}}" for name in names}


def _outputs_of(task: str) -> str:
    """Return Argo's aggregate of the outputs of a fan-out, without the trials that failed."""
    return f"{{{{tasks.{task}.outputs.parameters}}}}"


def _forward(task: str, name: str) -> Parameter:
    """Return an output of a DAG that forwards an output of one of its tasks."""
    return Parameter(name=name, value_from=m.ValueFrom(parameter=task_output(task, name)))
