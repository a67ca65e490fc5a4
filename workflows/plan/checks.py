"""Rules for a whole plan, independent of the origin of its values."""

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
from workflows.spec import resource_rules, rules, search_rules, serving_rules, sources, training, urls
from workflows.spec.findings import Findings
from workflows.spec.source import Source
from workflows.spec.training import ROOT, TrainingConfig

OVERRIDES = ("environment", "flag")
"""Origins outside a file; values of files are checked where they are read, with their lines."""
# Paths in the plan of the sections of a training_config.yaml.
PLAN_PATHS = {
    f"{ROOT}.TrainingArguments": "tuning.trainingArguments",
    f"{ROOT}.LoraConfig": "tuning.loraConfig",
    f"{ROOT}.LoraConfig.r": "tuning.rank",
    f"{ROOT}.QuantizationConfig": "tuning.quantizationConfig",
    f"{ROOT}.ModelConfig": "tuning.modelConfig",
}

ACCESS = ("rollout.apiKeysSecret", "rollout.requestsPerMinute", "rollout.tokensPerMinute")
"""Settings of argotune's servers that a custom pod does not have."""
CUSTOM_POD = Problem(
    "a custom pod cannot run locally, without containers",
    "inference.template",
    fix="use preset: {name: ...}, or run it on a cluster: argotune submit FILE",
)


def problems(plan: Plan) -> list[Problem]:
    """Return what cannot be run."""
    found = Findings(Source(""))
    found.file_paths = PLAN_PATHS
    overridden = {path: value for path, value, origin in plan.values() if origin in OVERRIDES}
    for path, value in overridden.items():
        rules.check_braces(_without_template(path, value), path, found)
    _check_nodes(plan, found)
    _check_sources(plan, overridden, found)
    machine = _check_instance_types(plan, found)
    if plan.rollout and plan.rollout.template is not None:
        for path in [path for path, value, _ in plan.values() if path in ACCESS and value]:
            what = "cannot be combined with inference.template: a custom pod checks its own clients"
            found.error(path, what, f"remove pipeline.{path}")
    _check_group(plan, found)
    if plan.evaluation:
        rules.check_answers(plan.evaluation, "evaluation", found)
        rules.check_tasks(plan.evaluation, "evaluation", found)
    if plan.search and any(path.startswith("search.") for path in overridden):
        search_rules.check(plan.search, "search", found)
    if plan.tuning:
        _check_training(plan, plan.tuning, machine, overridden, found)
    return found.errors


def _check_nodes(plan: Plan, found: Findings) -> None:
    """Reject several nodes for serving, and for a training that would use one GPU of each."""
    if plan.resource.count == 1:
        return
    if not plan.tuning:
        fix = "set rollout.nodes, the nodes of a server; for more servers set rollout.replicas"
        found.error("resource.count", "is not supported for serving", fix)
    elif plan.tuning.processes == 1 and plan.resource.gpus > 1:
        what = f"uses one of the {plan.resource.gpus} GPUs of each of {plan.resource.count} nodes"
        found.error("pipeline.tune.processes", what, "remove processes: 1, or write resource: {count: 1}")


def _check_group(plan: Plan, found: Findings) -> None:
    """Reject what cannot be combined with servers on several nodes."""
    rollout = plan.rollout
    if not rollout or rollout.nodes == 1:
        return
    what = f"cannot be combined with servers of {rollout.nodes} nodes (pipeline.rollout.nodes)"
    replaced = "remove it: the whole server is replaced, and restored if the new one does not answer"
    if rollout.canary:
        found.error("pipeline.rollout.canary", what, replaced)
    if rollout.gateway:
        found.error("pipeline.rollout.gateway", what, "remove it: without a canary there is nothing to split")
    if rollout.max_replicas > rollout.replicas:
        found.error("pipeline.rollout.maxReplicas", what, "remove it, and set replicas")
    if rollout.template is not None:
        found.error("inference.template", what, "remove nodes, or use preset: {name: ...}")
    if rollout.runtime != "vllm":
        found.error("pipeline.rollout.runtime", what, "write runtime: vllm")
    if rollout.group_kind == "statefulset" and rollout.replicas > 1:
        what = f"{rollout.replicas} servers of {rollout.nodes} nodes require LeaderWorkerSet"
        found.error("pipeline.rollout.replicas", what, "set replicas: 1, or remove groupKind")


def tracking(plan: Plan, *, local: bool) -> Iterator[Problem]:
    """Yield what is missing to send metrics: on this machine, or in a pod, which has only what the plan passes it."""
    options, path = plan.tracking, "pipeline.tracking"
    if not plan.tuning or not options:
        return
    if options.report_to == "none":
        fix = "set reportTo: mlflow, or reportTo: wandb"
        for name in [name for name in ("uri", "project", "secret") if getattr(options, name)]:
            yield Problem("has no effect without pipeline.tracking.reportTo", f"{path}.{name}", fix=fix)
        return
    tool = TOOLS[options.report_to]
    if local:
        environment = os.environ | ({tool.address: options.uri} if options.uri else {})
        for message, fix in tracking_tools.missing_settings(options.report_to, environment):
            yield Problem(f"cannot send metrics to {tool.name}: {message}", path, fix=fix)
    elif not options.secret and not (options.report_to == "mlflow" and options.uri):
        missing, field = {"mlflow": ("a URL", "uri or secret"), "wandb": ("an API key", "secret")}[options.report_to]
        fix = f"set pipeline.tracking.{field} (argotune run uses this shell's environment)"
        yield Problem(f"cannot send metrics to {tool.name}: pods need {missing}", path, fix=fix)


def tasks(plan: Plan, *, local: bool) -> Iterator[Problem]:
    """Yield what is missing to run lm-eval tasks; the image of a pod is checked when tune begins."""
    names, path = plan.evaluation.tasks if plan.evaluation else [], "pipeline.evaluation.tasks"
    if local and (message := lm_tasks.missing_package(names)):
        yield Problem(message, path, fix=lm_tasks.INSTALL)
    for index, task in enumerate(names):
        if task.startswith("/") and not task.startswith(f"{MODELS}/"):
            if not local:
                fix = f"copy it to the volume of the models, and set {MODELS}/..."
                yield Problem(f"pods have no file {task}", f"{path}[{index}]", fix=fix)
            elif not os.path.isfile(task):
                yield Problem(f"file {task} not found", f"{path}[{index}]", fix="set the path of the task's YAML file")


def only_in_a_cluster(plan: Plan) -> Iterator[Problem]:
    """Yield what cannot run on this machine."""
    if plan.rollout and plan.rollout.template is not None:
        yield CUSTOM_POD


def warnings(plan: Plan) -> Iterator[Problem]:
    """Yield settings that have no effect with this plan."""
    provider = plan.nodes.provider
    if plan.tuning and plan.tuning.objective == "sft" and plan.origin("tuning.beta") != "built-in":
        yield Problem("has no effect with objective sft", "pipeline.tune.beta", fix="set objective: dpo")
    if plan.tuning and plan.tuning.sharding == "full" and plan.tuning.processes == 1:
        yield Problem("has no effect with one process", "pipeline.tune.sharding", fix="remove processes: 1")
    if plan.tuning and plan.tuning.job_kind != "auto" and plan.resource.count == 1:
        yield Problem("has no effect with one node", "pipeline.tune.jobKind", fix="remove it, or set resource.count")
    if plan.rollout and plan.rollout.group_kind != "auto" and plan.rollout.nodes == 1:
        yield Problem("has no effect with one node", "pipeline.rollout.groupKind", fix="remove it, or set nodes")
    if plan.resource.preferred_nodes and nodes.provisions_nodes(plan):
        message = f"has no effect: each run creates its nodes (nodes.provider is {provider})"
        yield Problem(message, "resource.preferredNodes", fix="remove it, or set nodes.provider=existing")
    if plan.origin("nodes.imageFamily").startswith("Workspace") and provider != "aks":
        message = f"has no effect: the run does not create an AKS node pool (nodes.provider is {provider})"
        fix = "set nodes.provider=aks; with Karpenter, kaito.sh/node-class-name selects a class with an imageFamily"
        yield Problem(message, "metadata.annotations.kaito.sh/node-image-family", fix=fix)
    if plan.origin("nodes.nodeClass").startswith("Workspace") and provider != "karpenter":
        message = f"has no effect: Karpenter does not create the nodes (nodes.provider is {provider})"
        yield Problem(message, "metadata.annotations.kaito.sh/node-class-name", fix="set nodes.provider=karpenter")


def _without_template(path: str, value: Any) -> Any:
    """Return a value without its chat template, whose braces the compiler escapes."""
    hidden = {"tuning.modelConfig": "chat_template", "rollout.serverArguments": "chat-template"}.get(path)
    return {key: inner for key, inner in value.items() if key != hidden} if isinstance(value, dict) else value


def _check_sources(plan: Plan, overridden: dict[str, Any], found: Findings) -> None:
    for index, url in enumerate(plan.data.urls if plan.data and "data.urls" in overridden else ()):
        urls.check(url, f"data.urls[{index}]", bool(plan.data and plan.data.allow_private_hosts), found)
    if plan.data and {"data.urls", "data.weights"} & overridden.keys():
        sources.check_weights(plan.data.weights, plan.data.urls, "data.weights", found)
    for path in ("data.image", "output.image"):
        sources.check_image(str(overridden.get(path, "")), path, path.partition(".")[0], found)
    for path in ("data.volume", "output.volume"):
        sources.check_volume(overridden.get(path), path, found)


def _check_instance_types(plan: Plan, found: Findings) -> presets.Sku | None:
    names = {"resource.instanceType": plan.resource.instance_type}
    names |= {f"nodes.fallbackInstanceTypes[{at}]": name for at, name in enumerate(plan.nodes.fallback_instance_types)}
    known = {}
    for path, name in names.items():
        try:
            known[path] = presets.find_sku(name)
        except presets.UnknownSku as error:
            fix = f"did you mean {', '.join(error.near)}?" if error.near else "use one of presets/skus.yaml"
            found.error(path, f"Unsupported instance type {name}", fix)
    return known.get("resource.instanceType")


def _check_training(
    plan: Plan, tuning: Tuning, machine: presets.Sku | None, overridden: dict[str, Any], found: Findings
) -> None:
    sections = {
        "TrainingArguments": tuning.training_arguments,
        "LoraConfig": tuning.lora_config,
        "QuantizationConfig": tuning.quantization_config,
        "ModelConfig": tuning.model_config_,
    }
    for section, named in (("TrainingArguments", FROM_TRAINING_ARGUMENTS), ("LoraConfig", FROM_LORA_CONFIG)):
        for path, key in named.items():
            if key in sections[section]:
                fix = f"--set {path}={sections[section][key]}"
                found.error(f"{PLAN_PATHS[f'{ROOT}.{section}']}.{key}", f"is set by {path}", fix)
    changed = {
        section: values for section, values in sections.items() if PLAN_PATHS[f"{ROOT}.{section}"] in overridden
    }
    training.parse({ROOT: changed}, "", found)
    whole = TrainingConfig(
        model=sections["ModelConfig"],
        quantization=sections["QuantizationConfig"],
        lora={**sections["LoraConfig"], "r": tuning.rank},
        arguments=sections["TrainingArguments"],
    )
    training.check_method(whole, tuning.method == "qlora", found)
    if tuning.objective == "dpo":
        for key, reason in dpo.unsupported_keys(tuning.training_arguments).items():
            found.error(f"{ROOT}.TrainingArguments.{key}", reason, "remove it, or set objective: sft")
    reason = sharding.unsupported_reason(tuning.sharding, tuning.quantization_config)
    if tuning.method == "qlora" and reason:
        found.error("pipeline.tune.sharding", reason, "set load_in_4bit: true, or sharding: none")
    resource_rules.check_precision(whole, machine, found)
    if plan.rollout:
        serving_rules.check_servable(whole, {"vllm": plan.rollout.server_arguments}, found)
