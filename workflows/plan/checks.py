"""What must hold for a whole plan, whoever set its values: ConfigMap, Workspace, site profile, environment or flag."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import presets
from steps.evaluate import lm_tasks
from steps.models import sharding
from steps.tune import dpo, tracking_tools
from steps.tune.tracking_tools import TOOLS
from workflows.errors import Problem
from workflows.plan import nodes
from workflows.plan.model import MODELS, Plan, Tuning
from workflows.plan.sources import FROM_LORA_CONFIG, FROM_TRAINING_ARGUMENTS
from workflows.spec import resource_rules, rules, serving_rules, sources, training, urls
from workflows.spec.findings import Findings
from workflows.spec.source import Source
from workflows.spec.training import ROOT, TrainingConfig

SET_BY_HAND = ("environment", "flag")
"""Origins of values that no file holds; those of files are checked where the files are read, with their lines."""
# Where the plan keeps what a training_config.yaml sets.
PLACES = {
    f"{ROOT}.TrainingArguments": "tuning.trainingArguments",
    f"{ROOT}.LoraConfig": "tuning.loraConfig",
    f"{ROOT}.LoraConfig.r": "tuning.rank",
    f"{ROOT}.QuantizationConfig": "tuning.quantizationConfig",
    f"{ROOT}.ModelConfig": "tuning.modelConfig",
}

OWN_POD = Problem(
    "a pod of your own is for a cluster: this machine starts no containers",
    "inference.template",
    fix="write preset: {name: ...}, or run it in a cluster: argotune submit FILE",
)


def problems(plan: Plan) -> list[Problem]:
    """What no run could honour."""
    found = Findings(Source(""))
    found.places = PLACES
    by_hand = {path: value for path, value, origin in plan.values() if origin in SET_BY_HAND}
    for path, value in by_hand.items():
        rules.check_braces(_without_template(path, value), path, found)
    if plan.resource.count > 1:
        fix = "leave it out: one node tunes and one serves; for more servers set rollout.replicas"
        found.error("resource.count", "is not honoured", fix)
    _addresses(plan, by_hand, found)
    machine = _machine(plan, found)
    if plan.evaluation:
        rules.check_answers(plan.evaluation, "evaluation", found)
        rules.check_tasks(plan.evaluation, "evaluation", found)
    if plan.tuning:
        _training(plan, plan.tuning, machine, by_hand, found)
    return found.errors


def tracking(plan: Plan, *, here: bool) -> Iterator[Problem]:
    """What keeps metrics from where they are to go: on this machine, or in a pod, which knows what it is told only."""
    wanted, path = plan.tracking, "pipeline.tracking"
    if not plan.tuning or not wanted:
        return
    if wanted.report_to == "none":
        fix = "write reportTo: mlflow, or reportTo: wandb"
        for name in [name for name in ("uri", "project", "secret") if getattr(wanted, name)]:
            yield Problem("has no effect without pipeline.tracking.reportTo", f"{path}.{name}", fix=fix)
        return
    tool = TOOLS[wanted.report_to]
    if here:
        environment = os.environ | ({tool.address: wanted.uri} if wanted.uri else {})
        for what, fix in tracking_tools.missing_settings(wanted.report_to, environment):
            yield Problem(f"metrics are to go to {tool.name}, and {what}", path, fix=fix)
    elif not wanted.secret and not (wanted.report_to == "mlflow" and wanted.uri):
        lacks = {"mlflow": ("where it is", "uri or secret"), "wandb": ("an API key", "secret")}[wanted.report_to]
        what = f"metrics are to go to {tool.name}, and nothing gives a pod {lacks[0]}"
        yield Problem(what, path, fix=f"write pipeline.tracking.{lacks[1]} (argotune run takes what this shell has)")


def tasks(plan: Plan, *, here: bool) -> Iterator[Problem]:
    """What keeps the evaluation from asking tasks of lm-eval: a pod's image tells when tune begins."""
    asked, path = plan.evaluation.tasks if plan.evaluation else [], "pipeline.evaluation.tasks"
    if here and (what := lm_tasks.missing_package(asked)):
        yield Problem(what, path, fix=lm_tasks.INSTALL)
    for index, task in enumerate(asked):
        if task.startswith("/") and not task.startswith(f"{MODELS}/"):
            fix = f"put it on the volume of the models, and write {MODELS}/..."
            if not here:
                yield Problem(f"no pod sees {task}", f"{path}[{index}]", fix=fix)
            elif not os.path.isfile(task):
                yield Problem(f"there is no file {task}", f"{path}[{index}]", fix="write the path of the task's YAML")


def only_in_a_cluster(plan: Plan) -> Iterator[Problem]:
    """What this machine could not run."""
    if plan.rollout and plan.rollout.template is not None:
        yield OWN_POD


def warnings(plan: Plan) -> Iterator[Problem]:
    """What has no effect with the nodes of this plan."""
    provider = plan.nodes.provider
    if plan.tuning and plan.tuning.objective == "sft" and plan.origin("tuning.beta") != "built-in":
        yield Problem("has no effect: it is of objective dpo", "pipeline.tune.beta", fix="write objective: dpo")
    if plan.tuning and plan.tuning.sharding == "full" and plan.tuning.processes == 1:
        yield Problem("has no effect: one process holds all", "pipeline.tune.sharding", fix="leave processes: 1 out")
    if plan.resource.preferred_nodes and nodes.provisions_nodes(plan):
        what = f"has no effect: nodes.provider {provider} makes the nodes of a run"
        yield Problem(what, "resource.preferredNodes")
    if plan.origin("nodes.nodeClass").startswith("Workspace") and provider != "karpenter":
        what = f"has no effect: nodes are not made by Karpenter (nodes.provider is {provider})"
        yield Problem(what, "metadata.annotations.kaito.sh/node-class-name", fix="set nodes.provider=karpenter")


def _without_template(path: str, value: Any) -> Any:
    """A value without the chat template in it, which is nothing but braces and is written so that Argo sees none."""
    hidden = {"tuning.modelConfig": "chat_template", "rollout.serverArguments": "chat-template"}.get(path)
    return {key: inner for key, inner in value.items() if key != hidden} if isinstance(value, dict) else value


def _addresses(plan: Plan, by_hand: dict[str, Any], found: Findings) -> None:
    for index, url in enumerate(plan.data.urls if plan.data and "data.urls" in by_hand else ()):
        urls.check(url, f"data.urls[{index}]", bool(plan.data and plan.data.allow_private_hosts), found)
    if plan.data and {"data.urls", "data.weights"} & by_hand.keys():
        sources.check_weights(plan.data.weights, plan.data.urls, "data.weights", found)
    for path in ("data.image", "output.image"):
        sources.check_image(str(by_hand.get(path, "")), path, path.partition(".")[0], found)


def _machine(plan: Plan, found: Findings) -> presets.Sku | None:
    wanted = {"resource.instanceType": plan.resource.instance_type}
    wanted |= {
        f"nodes.fallbackInstanceTypes[{at}]": size for at, size in enumerate(plan.nodes.fallback_instance_types)
    }
    known = {}
    for path, size in wanted.items():
        try:
            known[path] = presets.sku(size) if size else None
        except presets.UnknownSku as error:
            near = f"did you mean {', '.join(error.near)}?" if error.near else "presets/skus.yaml has the known ones"
            found.error(path, f"Unsupported instance type {size}", near)
    return known.get("resource.instanceType")


def _training(
    plan: Plan, tuning: Tuning, machine: presets.Sku | None, by_hand: dict[str, Any], found: Findings
) -> None:
    given = {
        "TrainingArguments": tuning.training_arguments,
        "LoraConfig": tuning.lora_config,
        "QuantizationConfig": tuning.quantization_config,
        "ModelConfig": tuning.model_arguments,
    }
    for section, named in (("TrainingArguments", FROM_TRAINING_ARGUMENTS), ("LoraConfig", FROM_LORA_CONFIG)):
        for path, key in named.items():
            if key in given[section]:
                what = f"has a place of its own in the plan: {path}"
                place = PLACES[f"{ROOT}.{section}"]
                found.error(f"{place}.{key}", what, f"--set {path}={given[section][key]}")
    changed = {section: values for section, values in given.items() if PLACES[f"{ROOT}.{section}"] in by_hand}
    training.parse({ROOT: changed}, "", found)
    whole = TrainingConfig(
        model=given["ModelConfig"],
        quantization=given["QuantizationConfig"],
        lora={**given["LoraConfig"], "r": tuning.rank},
        arguments=given["TrainingArguments"],
    )
    training.check_method(whole, tuning.method == "qlora", found)
    if tuning.objective == "dpo":
        for key, why in dpo.unsupported_keys(tuning.training_arguments).items():
            found.error(f"{ROOT}.TrainingArguments.{key}", why, "remove it, or write objective: sft")
    if tuning.method == "qlora" and (why := sharding.unsupported_reason(tuning.sharding, tuning.quantization_config)):
        found.error("pipeline.tune.sharding", why, "write load_in_4bit: true, or sharding: none")
    resource_rules.check_precision(whole, machine, found)
    if plan.rollout:
        serving_rules.check_servable(whole, {"vllm": plan.rollout.server_arguments}, found)
