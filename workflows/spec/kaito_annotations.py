"""KAITO's annotations on a Workspace: supported and rejected values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workflows.field_path import join
from workflows.spec.findings import Findings, unknown

PREFIX = "kaito.sh/"
BYPASS_CHECKS = "kaito.sh/bypass-resource-checks"
"""If present, with any value: memory is not checked against the instance type."""
PERFORMANCE_MODE = "kaito.sh/performance-mode"
"""vLLM flag of the same name."""
RUNTIME = "kaito.sh/runtime"
"""Server of the model."""
NODE_CLASS = "kaito.sh/node-class-name"
"""Karpenter node class, if a run creates its nodes with Karpenter."""

IMAGE_FAMILY = "kaito.sh/node-image-family"
"""Operating system of the nodes, if a run creates an AKS node pool."""


@dataclass(frozen=True)
class Rule:
    """Rule for an annotation."""

    accepted: tuple[str, ...] = ()
    """Values that describe the actual behavior; if this and ``effective`` are empty: any."""
    effective: tuple[str, ...] = ()
    """Values with an effect."""
    message: str = ""
    """KAITO's message for an invalid value."""
    known: tuple[str, ...] = ()
    """Values that KAITO accepts, if it validates them."""
    ignore_case: bool = False
    reason: str = ""
    """Reason why other values are rejected."""
    fix: str = ""
    """Closest alternative."""
    ignored: tuple[str, str] = ("", "")
    """Reason and fix, if values other than ``accepted`` have no effect."""


BENCH = "run argotune bench NAME after the rollout"
STREAMING = (
    "weights are read from the models volume, not streamed",
    "remove it; storage.modelsClaim of the site profile names the volume",
)
STATIC_MIRROR = "inference.kaito.sh/static-model-mirror"
"""KAITO's switch for weights of a blob container."""

RULES: Mapping[str, Rule] = {
    BYPASS_CHECKS: Rule(),
    NODE_CLASS: Rule(),
    PERFORMANCE_MODE: Rule(
        accepted=("balanced",),
        effective=("interactivity", "throughput"),
        message='"{}" is not a valid performance mode; choose one of: balanced, interactivity, throughput',
        known=("balanced", "interactivity", "throughput"),
    ),
    RUNTIME: Rule(
        accepted=("vllm",),
        effective=("transformers",),
        reason="unknown runtime",
        fix="write vllm or transformers",
    ),
    "kaito.sh/disable-benchmark": Rule(accepted=("true",), ignored=("a load is not followed by a benchmark", BENCH)),
    "kaito.sh/model-streaming": Rule(accepted=("disabled",), ignored=STREAMING),
    "kaito.sh/streaming-service-account": Rule(ignored=STREAMING),
    "kaito.sh/model-mirror-storage-class": Rule(ignored=STREAMING),
    "kaito.sh/use-local-weights": Rule(
        accepted=("false",),
        message='"{}" must be "true" or "false"',
        known=("true", "false"),
        reason="weights on node disks are not supported: their revision is unknown",
        fix='write "false"; weights are cached on the models volume (storage.modelsClaim of the site profile)',
    ),
    "kaito.sh/enablelb": Rule(
        accepted=("False", "false", "no", "off", "0"),
        reason="public endpoints are not supported: they would have no access control",
        fix='write "False"; then kubectl expose service NAME --type=LoadBalancer --name=NAME-public, or use a gateway',
    ),
    IMAGE_FAMILY: Rule(
        message='unsupported node image family "{}", supported values are azurelinux, ubuntu',
        known=("azurelinux", "ubuntu"),
        ignore_case=True,
    ),
}


def check(annotations: Mapping[str, str], serves: bool, findings: Findings) -> None:
    """Report unknown and unsupported KAITO annotations; other annotations are not checked."""
    for key, value in annotations.items():
        path = join("metadata.annotations", key)
        if key == STATIC_MIRROR and value == "true":
            fix = "remove it; copy the weights to the models volume and use --set model.repository=/mnt/models/FOLDER"
            findings.error(path, "loading weights from a blob container is not supported", fix)
        if not key.startswith(PREFIX):
            continue
        rule = RULES.get(key)
        if not rule:
            findings.error(path, "unknown KAITO annotation", unknown(key, RULES))
        elif rule.known and (value.lower() if rule.ignore_case else value) not in rule.known:
            findings.error(path, rule.message.format(value), f"write one of {', '.join(rule.known)}")
        elif rule.ignored[0]:
            if value not in rule.accepted:
                findings.warn(path, f"has no effect: {rule.ignored[0]}", rule.ignored[1])
        elif (rule.accepted or rule.reason) and value not in (*rule.accepted, *rule.effective):
            findings.error(path, f"{value!r}: {rule.reason}", rule.fix)
        elif value in rule.effective and not serves:
            findings.warn(path, "has no effect without inference", "remove it")
