"""KAITO's Workspace as pydantic models: group ``kaito.sh``, versions ``v1alpha1`` and ``v1beta1``.

There is no ``spec:``; ``resource``, ``inference`` and ``tuning`` stand at top level. Source of fields and defaults:
``config/crd/bases/kaito.sh_workspaces.yaml`` of kaito-project/kaito 0.12. Ours: ``tuning`` and ``inference`` may both
stand (tune, then serve what was tuned), and the ``pipeline`` block. What these models take but no run can honour is
refused in ``rules.py``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from workflows.spec.fields import Fields
from workflows.spec.pipeline import Pipeline

V1ALPHA1 = "kaito.sh/v1alpha1"
V1BETA1 = "kaito.sh/v1beta1"
RESERVED_LABELS = ("kaito.sh/workspace", "kaito.sh/ragengine", "karpenter.kaito.sh/")
DEFAULT_V1ALPHA1_INSTANCE = "Standard_NC24ads_A100_v4"


class Metadata(Fields):
    """Name and labels of the Workspace."""

    name: str
    """A DNS-1123 label; the run, the served model and the Kubernetes objects carry it."""
    namespace: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Requirement(Fields):
    """One expression of a label selector."""

    key: str
    operator: str
    values: list[str] = Field(default_factory=list)


class LabelSelector(Fields):
    """Which nodes may run the workload."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[Requirement] = Field(default_factory=list)
    """Only ``In`` with one value, as in KAITO."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that a node must have. KAITO strips those of its own from a selector, and so does this."""
        return {key: value for key, value in self.written.items() if not key.startswith(RESERVED_LABELS)}

    @property
    def written(self) -> dict[str, str]:
        """All that the selector names, as plain labels."""
        return self.match_labels | {rule.key: rule.values[0] for rule in self.match_expressions if rule.values}


class Partition(Fields):
    """A part of a GPU (v1beta1)."""

    mode: Literal["mig", "accelerator"]
    profile: str = ""
    """Of a MIG slice, like ``1g.10gb``; a pod asks for one of ``nvidia.com/mig-PROFILE``."""
    count: int = Field(1, ge=1)
    """GPUs that one server takes (``mode: accelerator``)."""


class Resource(Fields):
    """The nodes asked for."""

    count: int = 1
    """Nodes. Deprecated in v1beta1; here one node tunes, and one node serves the model."""
    instance_type: str = ""
    """VM size. Empty: nodes that are already there, found by ``labelSelector``. v1alpha1 has a default."""
    label_selector: LabelSelector
    preferred_nodes: list[str] = Field(default_factory=list)
    """Names of nodes to take before others. Deprecated in v1beta1."""
    partition: Partition | None = None
    """v1beta1 only."""


class PresetOptions(Fields):
    """How the preset is fetched."""

    image: str = ""
    """Deprecated in v1beta1."""
    image_pull_secrets: list[str] = Field(default_factory=list)
    """Deprecated in v1beta1."""
    model_access_secret: str = ""
    """Name of a Secret with key ``HF_TOKEN``; v1beta1 only."""


class Preset(Fields):
    """The base model."""

    name: str
    """A preset name (``argotune presets ls``) or its Hugging Face id."""
    access_mode: Literal["public", "private"] = "public"
    """Deprecated in v1beta1."""
    preset_options: PresetOptions = PresetOptions()


class DataSource(Fields):
    """Where data comes from: exactly one of ``urls``, ``volumeSource`` and ``image``."""

    name: str = ""
    urls: list[str] = Field(default_factory=list)
    """Files fetched over HTTP. ``#sha256=<64 hex digits>`` after a URL is its checksum."""
    volume_source: dict[str, Any] | None = None
    """A Kubernetes VolumeSource."""
    image: str = ""
    """An OCI image; its ``/data`` is taken."""
    image_pull_secrets: list[str] = Field(default_factory=list)


class DataDestination(Fields):
    """Where the adapter goes: exactly one of ``volumeSource`` and ``image``."""

    volume_source: dict[str, Any] | None = None
    """A Kubernetes VolumeSource."""
    image: str = ""
    """Reference that the adapter image is pushed to."""
    image_push_secret: str = ""
    """Name of a ``kubernetes.io/dockerconfigjson`` Secret. Optional here: a workload identity may push too."""


class Adapter(Fields):
    """One more adapter to serve."""

    source: DataSource
    strength: str = "1.0"


class Inference(Fields):
    """What is served."""

    preset: Preset | None = None
    template: dict[str, Any] | None = None
    """A pod of the user's own instead of a preset; a cluster's rollout serves it as it is."""
    config: str = ""
    """Name of a ConfigMap with key ``inference_config.yaml``."""
    adapters: list[Adapter] = Field(default_factory=list)


class Tuning(Fields):
    """What is tuned."""

    preset: Preset
    method: str
    """``lora`` or ``qlora``, in any case."""
    config: str = ""
    """Name of a ConfigMap with key ``training_config.yaml``."""
    input: DataSource
    output: DataDestination

    @property
    def quantized(self) -> bool:
        """Whether the base model is quantized while the adapter is trained."""
        return self.method.lower() == "qlora"


class Workspace(Fields):
    """A model to tune, to serve, or to tune and then serve."""

    api_version: Literal["kaito.sh/v1alpha1", "kaito.sh/v1beta1"]
    kind: Literal["Workspace", "InferenceSet"]
    """``InferenceSet``: made from one (``inference_set.py``)."""
    metadata: Metadata
    resource: Resource | None = None
    inference: Inference | None = None
    tuning: Tuning | None = None
    pipeline: Pipeline = Pipeline()
    """Ours; see ``pipeline.py``."""

    @model_validator(mode="before")
    @classmethod
    def _default_instance(cls, given: Any) -> Any:
        resource = given.get("resource") if isinstance(given, dict) else None
        if isinstance(resource, dict) and given.get("apiVersion") == V1ALPHA1:
            return {**given, "resource": {"instanceType": DEFAULT_V1ALPHA1_INSTANCE, **resource}}
        return given

    @property
    def preset(self) -> Preset | None:
        """The base model, which tuning and inference share; None where only a pod of the user's own is served."""
        return self.tuning.preset if self.tuning else self.inference.preset if self.inference else None
