"""KAITO's InferenceSet (``kaito.sh/v1alpha1`` and ``v1beta1``): several servers of one model.

It becomes a Workspace with ``pipeline.rollout.replicas``: one Service with several servers. Source of fields and
defaults: ``config/crd/bases/kaito.sh_inferencesets.yaml`` of kaito-project/kaito 0.12.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from workflows.spec.fields import Fields
from workflows.spec.findings import Findings
from workflows.spec.pipeline import Pipeline
from workflows.spec.source import Source
from workflows.spec.workspace import V1ALPHA1, Inference, LabelSelector, Metadata, Partition, Workspace

KIND = "InferenceSet"
AUTOSCALER = "scaledobject.kaito.sh/"
"""Prefix of the annotations of KEDA's scaler for KAITO (kaito-project/keda-kaito-scaler)."""
METRIC, THRESHOLD = "vllm:num_requests_waiting", "10"
"""Scaling metric (``steps/rollout/service_manifests.py``), the scaler's default."""
MAX_REPLICAS = 1000
"""Maximum of ``pipeline.rollout.maxReplicas``."""
# Paths of the Workspace and their paths in the InferenceSet; the longest prefix applies.
PLACES = {
    "resource": "spec.template.resource",
    "resource.labelSelector": "spec.labelSelector",
    "inference": "spec.template.inference",
    "pipeline.rollout.replicas": "spec.replicas",
    "pipeline.rollout.maxReplicas": f"metadata.annotations.{AUTOSCALER}max-replicas",
}


class TemplateMetadata(Fields):
    """Labels and annotations of each server."""

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class TemplateResource(Fields):
    """The nodes of one server."""

    instance_type: str = ""
    partition: Partition | None = None
    """v1beta1 only."""


class Template(Fields):
    """Template of each server."""

    metadata: TemplateMetadata = TemplateMetadata()
    resource: TemplateResource = TemplateResource()
    inference: Inference


class MaintenanceWindow(Fields):
    """Maintenance window for upgrades."""

    schedule: str
    duration: str = "4h"


class AutoUpgrade(Fields):
    """Automatic upgrade to newer images of KAITO."""

    enabled: bool = False
    strategy: Literal["InPlace", "Surge"] = "InPlace"
    maintenance_window: MaintenanceWindow | None = None


class RollingUpdate(Fields):
    """Maximum unavailable servers during an update."""

    max_unavailable: int | str = 1


class UpdateStrategy(Fields):
    """Update strategy of the servers."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate = RollingUpdate()


class Spec(Fields):
    """Specification of the InferenceSet."""

    label_selector: LabelSelector
    """Labels of the nodes of each server."""
    replicas: int = Field(1, ge=0, le=100)
    node_count_limit: int = Field(0, ge=0)
    """Maximum number of nodes of all servers; 0: no limit."""
    template: Template
    update_strategy: UpdateStrategy = UpdateStrategy()
    auto_upgrade: AutoUpgrade = AutoUpgrade()


class InferenceSet(Fields):
    """Servers of one model."""

    api_version: Literal["kaito.sh/v1alpha1", "kaito.sh/v1beta1"]
    kind: Literal["InferenceSet"]
    metadata: Metadata
    spec: Spec
    pipeline: Pipeline = Pipeline()
    """argotune's addition, see ``pipeline.py``."""


def read(value: Any, findings: Findings) -> Workspace | None:
    """Convert an InferenceSet to a Workspace; errors go to ``findings``; None if it cannot be repaired."""
    inference_set = findings.read(InferenceSet, value)
    if inference_set is None:
        return None
    _check(inference_set, findings)
    workspace = _workspace(inference_set)
    template = {
        f"metadata.annotations.{key}": f"spec.template.metadata.annotations.{key}" for key in _template(inference_set)
    }
    findings.file_paths = PLACES | template
    findings.source = replace(findings.source, lines=_lines(findings.source, findings.file_paths))
    return workspace


def _check(inference_set: InferenceSet, findings: Findings) -> None:
    spec, old = inference_set.spec, inference_set.api_version == V1ALPHA1
    if spec.replicas == 0:
        what = "0 servers cannot be rolled out"
        findings.error("spec.replicas", what, "write 1, and scale the Deployment down after the run")
    if 0 < spec.node_count_limit < spec.replicas:
        what = f"{spec.replicas} replicas need {spec.replicas} nodes, more than nodeCountLimit {spec.node_count_limit}"
        findings.error("spec.nodeCountLimit", what, f"write replicas: {spec.node_count_limit}, or raise the limit")
    if spec.template.resource.partition and old:
        fix = "write apiVersion: kaito.sh/v1beta1"
        findings.error("spec.template.resource.partition", "is not a field of kaito.sh/v1alpha1", fix)
    if spec.update_strategy.type != "RollingUpdate":
        what = f"{spec.update_strategy.type!r}: only rolling updates are supported"
        findings.error("spec.updateStrategy.type", what, "write RollingUpdate, or remove updateStrategy")
    if spec.auto_upgrade.enabled:
        what = "not supported: the site profile sets the serve image, and a run updates it"
        findings.error(
            "spec.autoUpgrade.enabled", what, "write false; raise images.serve in the site profile and run again"
        )
    if inference_set.pipeline.rollout.model_fields_set & {"replicas"} and "replicas" in spec.model_fields_set:
        findings.error("pipeline.rollout.replicas", "duplicates spec.replicas", "remove it")
    _check_autoscaler(inference_set, findings)


def _check_autoscaler(inference_set: InferenceSet, findings: Findings) -> None:
    scaler, replicas = _autoscaler(inference_set), inference_set.spec.replicas
    if scaler.get("auto-provision") != "true":
        return
    path = f"metadata.annotations.{AUTOSCALER}"
    limit = scaler.get("max-replicas", "")
    if limit and not (limit.isdecimal() and 0 < int(limit) <= MAX_REPLICAS):
        findings.error(
            f"{path}max-replicas", f"{limit!r} is not a number of servers", f"write a number up to {MAX_REPLICAS}"
        )
    elif not limit and not inference_set.spec.node_count_limit:
        what = f"the maximum number of servers is missing, so the number stays at {replicas}"
        findings.warn(f"{path}auto-provision", what, f'add {AUTOSCALER}max-replicas: "10", or nodeCountLimit')
    supported = {
        "metricName": (METRIC, f"servers are only scaled by {METRIC}"),
        "threshold": (THRESHOLD, f"a server is added at more than {THRESHOLD} waiting requests per server"),
        "min-replicas": (str(replicas), f"the minimum is spec.replicas ({replicas})"),
    }
    for key, value in scaler.items():
        if key in supported:
            required, reason = supported[key]
            if value != required:
                findings.warn(f"{path}{key}", f"{value!r} is not supported: {reason}", f'write "{required}"')
        elif key not in ("auto-provision", "max-replicas"):
            findings.warn(f"{path}{key}", f"is ignored: {supported['metricName'][1]}", "remove it")


def _workspace(inference_set: InferenceSet) -> Workspace:
    """Convert the fields to those of a Workspace."""
    spec = inference_set.spec
    pipeline = inference_set.pipeline.model_dump(by_alias=True, exclude_unset=True)
    rollout = pipeline.get("rollout", {})
    if "replicas" in spec.model_fields_set:
        rollout = {**rollout, "replicas": max(spec.replicas, 1)}
    if max_replicas := _max_replicas(inference_set):
        rollout = {"maxReplicas": max_replicas, **rollout}
    if rollout:
        pipeline["rollout"] = rollout
    resource = spec.template.resource.model_dump(by_alias=True, exclude_unset=True)
    labels = spec.label_selector.model_dump(by_alias=True, exclude_unset=True)
    metadata = inference_set.metadata.model_dump(by_alias=True, exclude_unset=True)
    metadata["labels"] = inference_set.metadata.labels | spec.template.metadata.labels
    metadata["annotations"] = inference_set.metadata.annotations | _template(inference_set)
    return Workspace.model_validate(
        {
            "apiVersion": inference_set.api_version,
            "kind": inference_set.kind,
            "metadata": metadata,
            "resource": {"instanceType": "", **resource, "labelSelector": labels},
            "inference": spec.template.inference.model_dump(by_alias=True, exclude_unset=True),
            "pipeline": pipeline,
        }
    )


def _max_replicas(inference_set: InferenceSet) -> int:
    """Return the maximum number of servers; 0: no autoscaler."""
    scaler = _autoscaler(inference_set)
    if scaler.get("auto-provision") != "true":
        return 0
    limit = scaler.get("max-replicas", "")
    requested = int(limit) if limit.isdecimal() else inference_set.spec.node_count_limit
    return min(requested, MAX_REPLICAS)


def _autoscaler(inference_set: InferenceSet) -> dict[str, str]:
    """Return the scaler's annotations without their prefix."""
    annotations = inference_set.metadata.annotations.items()
    return {key.removeprefix(AUTOSCALER): value for key, value in annotations if key.startswith(AUTOSCALER)}


def _template(inference_set: InferenceSet) -> dict[str, str]:
    return inference_set.spec.template.metadata.annotations


def _lines(source: Source, places: dict[str, str]) -> dict[str, int]:
    """Return the lines of the file, also under the paths of the Workspace."""
    lines = dict(source.lines)
    for ours, theirs in sorted(places.items()):
        for path, line in source.lines.items():
            if path == theirs or path.startswith((f"{theirs}.", f"{theirs}[")):
                lines[ours + path.removeprefix(theirs)] = line
    return lines
