"""Rules for the requested nodes, with the messages of KAITO's webhook where it has them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from presets import Model, Sku, UnknownSku, find_sku, skus
from workflows.field_path import join
from workflows.spec import kaito_annotations, names, sources
from workflows.spec.findings import Findings
from workflows.spec.training import ROOT, TrainingConfig
from workflows.spec.workspace import V1ALPHA1, Partition, Resource, Workspace

# QLoRA stores the base weights in 4 bits, plus quantization constants and layers that stay in 16 bits.
QUANTIZED_SHARE = 0.3
# Share of a GPU's memory that KAITO allows for weights (pkg/sku and estimator, 0.12).
SERVING_SHARE = 0.84 / 1.07
PROFILE = re.compile(r"[1-9]g\.([1-9][0-9]{0,3})gb(\.me)?")
"""MIG profile, as in NVIDIA's resource name ``nvidia.com/mig-PROFILE``."""


def check(workspace: Workspace, tuned: Model | None, served: Model | None, findings: Findings) -> Sku | None:
    """Report errors of ``resource``; return the requested instance type if it is known."""
    resource, path = workspace.resource, "resource"
    if not resource:
        return None
    _partition(workspace, resource.partition, served, findings)
    for index, node in enumerate(resource.preferred_nodes):
        place = join(join(path, "preferredNodes"), index)
        if not names.is_subdomain(node):
            findings.error(place, f"{node!r} is not the name of a node", "kubectl get nodes lists them")
    _selector(resource, findings)
    machine = _machine(resource, findings)
    _count(workspace, resource, served, machine, findings)
    for kind, model in (("tuning", tuned), ("inference", served)):
        if model and machine and not (resource.count > 1 and kind == "inference"):
            _fits(model, kind, machine, workspace, findings)
    return machine


def check_precision(training: TrainingConfig, machine: Sku | None, findings: Findings) -> None:
    """Report data types that the GPUs do not support; transformers would reject them at runtime."""
    if not machine or machine.bfloat16:
        return
    for key in ("bf16", "tf32"):
        if training.arguments.get(key):
            what = f"the {machine.gpu} of {machine.name} has no {'bfloat16' if key == 'bf16' else 'TF32'}"
            place = f"{ROOT}.TrainingArguments.{key}"
            findings.error(
                place, what, f"write {'fp16: true' if key == 'bf16' else 'tf32: false'}, or use another instance type"
            )
    for section, key, values in (
        ("ModelConfig", "torch_dtype", training.model),
        ("ModelConfig", "dtype", training.model),
        ("QuantizationConfig", "bnb_4bit_compute_dtype", training.quantization),
    ):
        if values.get(key) == "bfloat16":
            what = f"the {machine.gpu} of {machine.name} emulates bfloat16, several times slower"
            findings.warn(f"{ROOT}.{section}.{key}", what, "write float16")


def _partition(workspace: Workspace, partition: Partition | None, served: Model | None, findings: Findings) -> None:
    path = "resource.partition"
    if not partition:
        return
    given = partition.model_fields_set
    if workspace.api_version == V1ALPHA1:
        findings.error(path, "is not a field of kaito.sh/v1alpha1", "write apiVersion: kaito.sh/v1beta1")
    elif workspace.tuning:
        findings.error(path, "GPU partitioning is not supported for tuning workloads", "remove it")
    elif workspace.resource and workspace.resource.instance_type:
        what = "GPU partitioning is only supported with BYO nodes (disableNodeAutoProvisioning=true)"
        findings.error(path, what, "remove instanceType, and select existing nodes with labelSelector")
    elif partition.mode == "accelerator" and partition.profile:
        findings.error(join(path, "profile"), "profile is not valid for accelerator mode", "remove it")
    elif partition.mode == "mig" and "count" in given:
        findings.error(join(path, "count"), "count is only valid for accelerator mode", "remove it")
    elif partition.mode == "mig" and not partition.profile:
        findings.error(path, "missing field profile", "add profile: 1g.10gb, the MIG profile")
    elif partition.mode == "accelerator" and "count" not in given:
        findings.error(path, "missing field count", "add count: 1, the GPUs of one server")
    elif partition.mode == "mig":
        is_checked = not _bypasses(workspace, findings)
        _slice(partition.profile, join(path, "profile"), served if is_checked else None, findings)


def _slice(profile: str, path: str, served: Model | None, findings: Findings) -> None:
    match = PROFILE.fullmatch(profile)
    if not match:
        findings.error(path, f"{profile!r} is not a MIG profile", "write a profile such as 1g.10gb")
    elif served and served.weights_gib > int(match[1]):
        what = (
            f"Model {served.name} requires at least {served.weights_gib:.2f}Gi for weights, which exceeds the "
            f"{profile} MIG slice capacity of {match[1]}Gi"
        )
        findings.error(path, what, "use a larger slice or a smaller model")


def _count(
    workspace: Workspace, resource: Resource, served: Model | None, machine: Sku | None, findings: Findings
) -> None:
    path = "resource.count"
    if resource.count < 1:
        findings.error(path, "must be at least 1", "write count: 1")
    elif resource.count > 1 and workspace.tuning:
        return  # unlike in KAITO, whose webhook rejects it
    elif needs_nodes(resource, served, machine):
        assert served and machine
        needed = math.ceil(served.weights_gib / _room(machine))
        if needed > resource.count:
            size = f"{served.weights_gib:.0f}Gi of weights"
            what = f"{served.name} has {size}, more than {resource.count} {machine.name} can serve"
            findings.error(path, what, f"write count: {needed}, or larger nodes")
    elif resource.count > 1 and workspace.pipeline.rollout.nodes == 1:
        what = "one node serves the model; as in KAITO, additional nodes are not used"
        findings.warn(path, what, f"for more servers write pipeline: {{rollout: {{replicas: {resource.count}}}}}")


def needs_nodes(resource: Resource, served: Model | None, machine: Sku | None) -> bool:
    """Return True if a server has all requested nodes, because its weights do not fit one."""
    return bool(resource.count > 1 and served and machine and served.weights_gib > _room(machine))


def _room(machine: Sku) -> float:
    """Return the GiB of weights that a node can serve."""
    return machine.total_memory_gib * SERVING_SHARE


def smallest_server(model: Model) -> Sku | None:
    """Return the smallest current instance type of Azure that can serve the weights of a model; None if none can."""
    return _smallest("azure", lambda size: _room(size) >= model.weights_gib)


def _smallest(cloud: str, is_sufficient: Callable[[Sku], bool]) -> Sku | None:
    """Return the current instance type of a cloud with bfloat16 and the least sufficient memory; None if none is."""
    current = (
        size for size in skus() if size.cloud == cloud and not size.retired and size.bfloat16 and is_sufficient(size)
    )
    return min(current, key=lambda size: size.total_memory_gib, default=None)


def _selector(resource: Resource, findings: Findings) -> None:
    path = "resource.labelSelector"
    for index, rule in enumerate(resource.label_selector.match_expressions):
        if rule.operator != "In" or len(rule.values) != 1:
            place = join(join(path, "matchExpressions"), index)
            findings.error(place, "Only allow matchLabels or 'IN' matchExpression", "write it under matchLabels")
    sources.check_labels(resource.label_selector.match_labels, join(path, "matchLabels"), findings)
    for index, rule in enumerate(resource.label_selector.match_expressions):
        place = join(join(path, "matchExpressions"), index)
        for value in rule.values:
            sources.check_labels({rule.key: value}, place, findings)
    labels, written = resource.label_selector.labels, resource.label_selector.written
    reserved = [key for key in written if key not in labels]
    if reserved and not labels:
        fix = "add a custom label such as apps: my-model"
        findings.error(path, f"has only labels reserved by KAITO: {', '.join(reserved)}", fix)
    elif reserved:
        findings.warn(path, f"labels reserved by KAITO are ignored: {', '.join(reserved)}", "remove them")


def _machine(resource: Resource, findings: Findings) -> Sku | None:
    path = "resource.instanceType"
    if not resource.instance_type:
        return None
    try:
        machine = find_sku(resource.instance_type)
    except UnknownSku as error:
        near = (
            f"did you mean {', '.join(error.near)}?" if error.near else "presets/skus.yaml lists the supported types."
        )
        what = f"Unsupported instance type {resource.instance_type}"
        findings.error(path, what, f"{near} Remove it to use existing nodes")
        return None
    if machine is None:
        warn_unlisted(resource.instance_type, path, findings)
    elif machine.retired:
        kept = "" if machine.bfloat16 else f", and its {machine.gpu} has no bfloat16"
        what = f"{machine.name} is retired: new nodes are rarely available{kept}"
        findings.warn(path, what, f"write {machine.successor}")
    elif machine.arm:
        what = f"{machine.name} has Arm processors: pods need images for linux/arm64"
        findings.warn(path, what, "set images in the site profile to ones that have them")
    return machine


def warn_unlisted(name: str, path: str, findings: Findings) -> None:
    """Warn that nothing is known about an instance type."""
    what = f"{name} is not a known size: GPUs, memory and price are not checked"
    findings.warn(
        path, what, "add it to instanceTypes of the site profile; pods request one GPU unless --set resource.gpus=N"
    )


def _bypasses(workspace: Workspace, findings: Findings) -> bool:
    """Return True if memory is not checked against the requested nodes."""
    return findings.local or kaito_annotations.BYPASS_CHECKS in workspace.metadata.annotations


def _fits(base: Model, kind: str, machine: Sku, workspace: Workspace, findings: Findings) -> None:
    if _bypasses(workspace, findings):
        return
    quantized = kind == "tuning" and workspace.tuning is not None and workspace.tuning.quantized
    need = base.weights_gib * (QUANTIZED_SHARE if quantized else 1)
    if need <= machine.total_memory_gib:
        return
    what = (
        f"Insufficient total GPU memory: Instance type {machine.name} has a total of {machine.total_memory_gib}Gi,"
        f" but preset {base.name} requires at least {need:.2f}Gi"
    )
    best = _smallest(machine.cloud, lambda size: size.total_memory_gib >= need)
    fix = f"{f'write {best.name}' if best else 'use a smaller model'}, or set the annotation"
    findings.error("resource.instanceType", what, f"{fix} {kaito_annotations.BYPASS_CHECKS}")
