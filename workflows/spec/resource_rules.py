"""What must hold for the nodes that a Workspace asks for, in the words of KAITO's webhook where it has some."""

from __future__ import annotations

import re

from presets import Model, Sku, UnknownSku, sku, skus
from workflows.spec import kaito_annotations, names
from workflows.spec.findings import Findings
from workflows.spec.source import join
from workflows.spec.training import ROOT, TrainingConfig
from workflows.spec.workspace import V1ALPHA1, Partition, Resource, Workspace

# QLoRA keeps the base weights in 4 bits, and beside them the quantization constants and what stays in 16 bits.
QUANTIZED_SHARE = 0.3
# Of a GPU's memory, what KAITO lets vLLM use; of that, what weights may take (pkg/sku and estimator, 0.12).
SERVING_SHARE = 0.84 / 1.07
PROFILE = re.compile(r"[1-9]g\.([1-9][0-9]{0,3})gb(\.me)?")
"""Of a MIG slice, as NVIDIA's device plugin names it in ``nvidia.com/mig-PROFILE``."""


def check(workspace: Workspace, tuned: Model | None, served: Model | None, found: Findings) -> Sku | None:
    """Note what is wrong with ``resource``; gives the machine size that is asked for, where it is a known one."""
    resource, path = workspace.resource, "resource"
    if not resource:
        return None
    _partition(workspace, resource.partition, served, found)
    for index, node in enumerate(resource.preferred_nodes):
        place = join(join(path, "preferredNodes"), index)
        if not names.is_subdomain(node):
            found.wrong(place, f"{node!r} is not the name of a node", "kubectl get nodes lists them")
    _selector(resource, found)
    machine = _machine(resource, found)
    _count(workspace, resource, served, machine, found)
    for kind, model in (("tuning", tuned), ("inference", served)):
        if model and machine and not (resource.count > 1 and kind == "inference"):
            _fits(model, kind, machine, workspace, found)
    return machine


def check_precision(training: TrainingConfig, machine: Sku | None, found: Findings) -> None:
    """Note types that the GPUs of the machine do not compute in; transformers would refuse them there."""
    if not machine or machine.bfloat16:
        return
    for key in ("bf16", "tf32"):
        if training.arguments.get(key):
            what = f"the {machine.gpu} of {machine.name} has no {'bfloat16' if key == 'bf16' else 'TF32'}"
            place = f"{ROOT}.TrainingArguments.{key}"
            found.wrong(place, what, f"write {'fp16: true' if key == 'bf16' else 'tf32: false'}, or another size")
    for section, key, values in (
        ("ModelConfig", "torch_dtype", training.model),
        ("ModelConfig", "dtype", training.model),
        ("QuantizationConfig", "bnb_4bit_compute_dtype", training.quantization),
    ):
        if values.get(key) == "bfloat16":
            what = f"the {machine.gpu} of {machine.name} has no bfloat16 and emulates it, several times slower"
            found.warn(f"{ROOT}.{section}.{key}", what, "write float16")


def _partition(workspace: Workspace, partition: Partition | None, served: Model | None, found: Findings) -> None:
    path = "resource.partition"
    if not partition:
        return
    given = partition.model_fields_set
    if workspace.api_version == V1ALPHA1:
        found.wrong(path, "is not a field of kaito.sh/v1alpha1", "write apiVersion: kaito.sh/v1beta1")
    elif workspace.tuning:
        found.wrong(path, "GPU partitioning is not supported for tuning workloads", "leave it out")
    elif workspace.resource and workspace.resource.instance_type:
        what = "GPU partitioning is only supported with BYO nodes (disableNodeAutoProvisioning=true)"
        found.wrong(path, what, "leave instanceType out, and name nodes that are there under labelSelector")
    elif partition.mode == "accelerator" and partition.profile:
        found.wrong(join(path, "profile"), "profile is not valid for accelerator mode", "leave it out")
    elif partition.mode == "mig" and "count" in given:
        found.wrong(join(path, "count"), "count is only valid for accelerator mode", "leave it out")
    elif partition.mode == "mig" and not partition.profile:
        found.wrong(path, "missing field profile", "add profile: 1g.10gb, the part of a GPU")
    elif partition.mode == "mig":
        _slice(partition.profile, join(path, "profile"), served, found)


def _slice(profile: str, path: str, served: Model | None, found: Findings) -> None:
    match = PROFILE.fullmatch(profile)
    if not match:
        found.wrong(path, f"{profile!r} is no profile of a MIG slice", "write it like 1g.10gb")
    elif served and served.weights_gib > int(match[1]):
        what = (
            f"Model {served.name} requires at least {served.weights_gib:.2f}Gi for weights, which exceeds the "
            f"{profile} MIG slice capacity of {match[1]}Gi"
        )
        found.wrong(path, what, "take a larger slice, or a smaller model")


def _count(
    workspace: Workspace, resource: Resource, served: Model | None, machine: Sku | None, found: Findings
) -> None:
    path = "resource.count"
    if resource.count < 1:
        found.wrong(path, "must be at least 1")
    elif resource.count > 1 and workspace.tuning:
        what = "Tuning does not currently support multinode configurations. Please set the node count to 1."
        found.wrong(path, what, "write count: 1; a larger instanceType has more GPUs")
    elif resource.count > 1 and served and machine and served.weights_gib > _room(machine):
        what = (
            f"{served.name} has {served.weights_gib:.0f}Gi of weights, more than one {machine.name} can serve, and a "
            "model is not spread over several nodes"
        )
        larger = [size for size in skus() if not size.retired and _room(size) >= served.weights_gib and size.bfloat16]
        best = min(larger, key=lambda size: size.total_memory_gib, default=None)
        found.wrong(path, what, f"write count: 1 and instanceType: {best.name}" if best else "take a smaller model")
    elif resource.count > 1:
        what = "one node serves the model, as KAITO too takes no more nodes than the model needs"
        found.warn(path, what, f"for more servers write pipeline: {{rollout: {{replicas: {resource.count}}}}}")


def _room(machine: Sku) -> float:
    """GiB of weights that a node can serve."""
    return machine.total_memory_gib * SERVING_SHARE


def _selector(resource: Resource, found: Findings) -> None:
    path = "resource.labelSelector"
    for index, rule in enumerate(resource.label_selector.match_expressions):
        if rule.operator != "In" or len(rule.values) != 1:
            place = join(join(path, "matchExpressions"), index)
            found.wrong(place, "Only allow matchLabels or 'IN' matchExpression", "write it under matchLabels")
    labels, written = resource.label_selector.labels, resource.label_selector.written
    reserved = [key for key in written if key not in labels]
    if reserved and not labels:
        fix = "add a label of your own, like apps: my-model"
        found.wrong(path, f"only labels reserved by KAITO: {', '.join(reserved)}", fix)
    elif reserved:
        found.warn(path, f"labels reserved by KAITO, which no node is asked for: {', '.join(reserved)}")


def _machine(resource: Resource, found: Findings) -> Sku | None:
    path = "resource.instanceType"
    if not resource.instance_type:
        return None
    try:
        machine = sku(resource.instance_type)
    except UnknownSku as error:
        near = f"did you mean {', '.join(error.near)}?" if error.near else "presets/skus.yaml has those KAITO knows."
        what = f"Unsupported instance type {resource.instance_type}"
        found.wrong(path, what, f"{near} Leave it out to use nodes that are already there")
        return None
    if machine.retired:
        kept = "" if machine.bfloat16 else f", and its {machine.gpu} has no bfloat16"
        what = f"{machine.name} is retired: new nodes of it can hardly be had{kept}"
        found.warn(path, what, f"write {machine.successor}")
    return machine


def _fits(base: Model, kind: str, machine: Sku, workspace: Workspace, found: Findings) -> None:
    if found.here or kaito_annotations.BYPASS_CHECKS in workspace.metadata.annotations:
        return
    quantized = kind == "tuning" and workspace.tuning is not None and workspace.tuning.quantized
    need = base.weights_gib * (QUANTIZED_SHARE if quantized else 1)
    if need <= machine.total_memory_gib:
        return
    what = (
        f"Insufficient total GPU memory: Instance type {machine.name} has a total of {machine.total_memory_gib}Gi,"
        f" but preset {base.name} requires at least {need:.2f}Gi"
    )
    # Sizes in the catalogue may count weights that the repository holds twice.
    note = found.wrong if base.tuning else found.warn
    note("resource.instanceType", what, f"take a larger size, or set the annotation {kaito_annotations.BYPASS_CHECKS}")
