"""KAITO's InferenceSet (``kaito.sh/v1alpha1`` and ``v1beta1``): several servers of one Workspace's inference.

Here that is a Workspace with ``pipeline.rollout.replicas``: one Service, so many servers behind it. Source of fields
and defaults: ``config/crd/bases/kaito.sh_inferencesets.yaml`` of kaito-project/kaito 0.12.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from workflows.spec.fields import Fields
from workflows.spec.findings import Findings
from workflows.spec.pipeline import Pipeline
from workflows.spec.source import Source
from workflows.spec.workspace import V1ALPHA1, Inference, LabelSelector, Metadata, Partition, Workspace

KIND = "InferenceSet"
AUTOSCALER = "scaledobject.kaito.sh/"
"""Annotations of KEDA's scaler for KAITO begin with this (kaito-project/keda-kaito-scaler)."""
METRIC, THRESHOLD = "vllm:num_requests_waiting", "10"
"""What servers are added by here (``steps/rollout/service_manifests.py``), as the scaler does by default."""
MAX_REPLICAS = 1000
"""Servers that a rollout may have (``pipeline.rollout.maxReplicas``)."""
# Where the fields of the Workspace that an InferenceSet stands for are written; the longest that begins a path counts.
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
    """What each server is."""

    metadata: TemplateMetadata = TemplateMetadata()
    resource: TemplateResource = TemplateResource()
    inference: Inference


class MaintenanceWindow(Fields):
    """When servers may be upgraded."""

    schedule: str
    duration: str = "4h"


class AutoUpgrade(Fields):
    """Whether servers are replaced when the controller has a newer image of KAITO's."""

    enabled: bool = False
    strategy: Literal["InPlace", "Surge"] = "InPlace"
    maintenance_window: MaintenanceWindow | None = None


class RollingUpdate(Fields):
    """How many servers may be gone during an update."""

    max_unavailable: int | str = 1


class UpdateStrategy(Fields):
    """How servers are replaced."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate = RollingUpdate()


class Spec(Fields):
    """What the set is."""

    label_selector: LabelSelector
    """Labels of the nodes of each server."""
    replicas: int = Field(1, ge=0, le=100)
    node_count_limit: int = Field(0, ge=0)
    """The most nodes of all servers; 0: no limit."""
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
    """Ours; see ``pipeline.py``."""


def read(value: Any, found: Findings) -> Workspace | None:
    """The Workspace that an InferenceSet stands for, or None with too little there; complaints go to ``found``."""
    given = found.read(InferenceSet, value)
    if given is None:
        return None
    _check(given, found)
    workspace = _workspace(given)
    template = {f"metadata.annotations.{key}": f"spec.template.metadata.annotations.{key}" for key in _template(given)}
    found.places = PLACES | template
    found.source = Source(found.source.file, _lines(found.source, found.places))
    return workspace


def _check(given: InferenceSet, found: Findings) -> None:
    spec, old = given.spec, given.api_version == V1ALPHA1
    if spec.replicas == 0:
        what = "with 0 servers nothing is served, and no rollout could be proven"
        found.wrong("spec.replicas", what, "write 1, and scale the Deployment down when the run has ended")
    if 0 < spec.node_count_limit < spec.replicas:
        what = f"{spec.replicas} replicas need {spec.replicas} nodes, more than nodeCountLimit {spec.node_count_limit}"
        found.wrong("spec.nodeCountLimit", what, f"write replicas: {spec.node_count_limit}, or raise the limit")
    if spec.template.resource.partition and old:
        fix = "write apiVersion: kaito.sh/v1beta1"
        found.wrong("spec.template.resource.partition", "is not a field of kaito.sh/v1alpha1", fix)
    if spec.update_strategy.type != "RollingUpdate":
        what = f"{spec.update_strategy.type!r}: a new server answers before the old one goes, always"
        found.wrong("spec.updateStrategy.type", what, "write RollingUpdate, or leave updateStrategy out")
    if spec.auto_upgrade.enabled:
        what = "not honoured: the serve image is the site profile's, and changes when a run brings another"
        found.wrong(
            "spec.autoUpgrade.enabled", what, "write false; raise images.serve in the site profile and run again"
        )
    if given.pipeline.rollout.model_fields_set & {"replicas"} and "replicas" in spec.model_fields_set:
        found.wrong("pipeline.rollout.replicas", "stands twice, in spec.replicas too", "leave it out here")
    _check_autoscaler(given, found)


def _check_autoscaler(given: InferenceSet, found: Findings) -> None:
    scaler, replicas = _autoscaler(given), given.spec.replicas
    if scaler.get("auto-provision") != "true":
        return
    path = f"metadata.annotations.{AUTOSCALER}"
    most = scaler.get("max-replicas", "")
    if most and not (most.isdecimal() and 0 < int(most) <= MAX_REPLICAS):
        found.wrong(f"{path}max-replicas", f"{most!r} is no number of servers", f"write a number up to {MAX_REPLICAS}")
    elif not most and not given.spec.node_count_limit:
        what = f"how many servers there may be is not told, so {replicas} run, always"
        found.warn(f"{path}auto-provision", what, f'add {AUTOSCALER}max-replicas: "10", or nodeCountLimit')
    said = {
        "metricName": (METRIC, f"servers are added by {METRIC} alone"),
        "threshold": (THRESHOLD, f"a server is added when more than {THRESHOLD} requests wait at each"),
        "min-replicas": (str(replicas), f"there are at least spec.replicas servers, {replicas}"),
    }
    for key, value in scaler.items():
        if key in said and value != said[key][0]:
            found.warn(f"{path}{key}", f"{value!r} is not honoured: {said[key][1]}", f'write "{said[key][0]}"')
        elif key not in (*said, "auto-provision", "max-replicas"):
            found.warn(f"{path}{key}", f"is not read: {said['metricName'][1]}", "leave it out")


def _workspace(given: InferenceSet) -> Workspace:
    """The same fields where a Workspace has them."""
    spec = given.spec
    pipeline = given.pipeline.model_dump(by_alias=True, exclude_unset=True)
    rollout = pipeline.get("rollout", {})
    if "replicas" in spec.model_fields_set:
        rollout = {**rollout, "replicas": max(spec.replicas, 1)}
    if most := _most(given):
        rollout = {"maxReplicas": most, **rollout}
    if rollout:
        pipeline["rollout"] = rollout
    resource = spec.template.resource.model_dump(by_alias=True, exclude_unset=True)
    labels = spec.label_selector.model_dump(by_alias=True, exclude_unset=True)
    metadata = given.metadata.model_dump(by_alias=True, exclude_unset=True)
    metadata["labels"] = given.metadata.labels | spec.template.metadata.labels
    metadata["annotations"] = given.metadata.annotations | _template(given)
    return Workspace.model_validate(
        {
            "apiVersion": given.api_version,
            "kind": given.kind,
            "metadata": metadata,
            "resource": {"instanceType": "", **resource, "labelSelector": labels},
            "inference": spec.template.inference.model_dump(by_alias=True, exclude_unset=True),
            "pipeline": pipeline,
        }
    )


def _most(given: InferenceSet) -> int:
    """The most servers that there may be while requests wait; 0: no autoscaler is asked for."""
    scaler = _autoscaler(given)
    if scaler.get("auto-provision") != "true":
        return 0
    most = scaler.get("max-replicas", "")
    return min(int(most), MAX_REPLICAS) if most.isdecimal() else min(given.spec.node_count_limit, MAX_REPLICAS)


def _autoscaler(given: InferenceSet) -> dict[str, str]:
    """Annotations of the scaler, without what all begin with."""
    annotations = given.metadata.annotations.items()
    return {key.removeprefix(AUTOSCALER): value for key, value in annotations if key.startswith(AUTOSCALER)}


def _template(given: InferenceSet) -> dict[str, str]:
    return given.spec.template.metadata.annotations


def _lines(source: Source, places: dict[str, str]) -> dict[str, int]:
    """The lines of the file under the names that a Workspace has for them too."""
    lines = dict(source.lines)
    for ours, theirs in sorted(places.items()):
        for path, line in source.lines.items():
            if path == theirs or path.startswith((f"{theirs}.", f"{theirs}[")):
                lines[ours + path.removeprefix(theirs)] = line
    return lines
