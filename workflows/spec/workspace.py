"""KAITO's Workspace as pydantic models: group ``kaito.sh``, versions ``v1alpha1`` and ``v1beta1``.

There is no ``spec:``; ``resource``, ``inference`` and ``tuning`` are top-level. Source of fields and defaults:
``config/crd/bases/kaito.sh_workspaces.yaml`` of kaito-project/kaito 0.12. argotune's additions: ``tuning`` and
``inference`` can be combined (tune, then serve the result), and the ``pipeline`` block. ``rules.py`` rejects values
that are valid here but cannot be run.
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
    """DNS-1123 label; names the run, the served model and the Kubernetes objects."""
    namespace: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Requirement(Fields):
    """One expression of a label selector."""

    key: str
    operator: str
    values: list[str] = Field(default_factory=list)


class LabelSelector(Fields):
    """Selector of the nodes."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[Requirement] = Field(default_factory=list)
    """Only ``In`` with one value, as in KAITO."""

    @property
    def labels(self) -> dict[str, str]:
        """Labels that a node must have, without KAITO's own labels (as KAITO does)."""
        return {key: value for key, value in self.written.items() if not key.startswith(RESERVED_LABELS)}

    @property
    def written(self) -> dict[str, str]:
        """All labels of the selector."""
        return self.match_labels | {rule.key: rule.values[0] for rule in self.match_expressions if rule.values}


class Partition(Fields):
    """Partition of a GPU (v1beta1)."""

    mode: Literal["mig", "accelerator"]
    profile: str = ""
    """Profile of a MIG slice, such as ``1g.10gb``; a pod requests one ``nvidia.com/mig-PROFILE``."""
    count: int = Field(1, ge=1)
    """GPUs of one server (``mode: accelerator``)."""


class Resource(Fields):
    """The requested nodes."""

    count: int = 1
    """Number of nodes (deprecated in v1beta1); one node tunes, and one node serves the model."""
    instance_type: str = ""
    """VM size; empty: existing nodes that match ``labelSelector``. v1alpha1 has a default."""
    label_selector: LabelSelector
    """Labels of the nodes, as ``{matchLabels: {kubernetes.io/os: linux}}``."""
    preferred_nodes: list[str] = Field(default_factory=list)
    """Names of nodes to prefer (deprecated in v1beta1)."""
    partition: Partition | None = None
    """v1beta1 only."""


class PresetOptions(Fields):
    """Options for downloading the preset."""

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
    """Source of the data: exactly one of ``urls``, ``volumeSource`` and ``image``."""

    name: str = ""
    urls: list[str] = Field(default_factory=list)
    """Files to download by HTTP; ``#sha256=<64 hex digits>`` after a URL is its checksum."""
    volume_source: dict[str, Any] | None = None
    """A Kubernetes VolumeSource."""
    image: str = ""
    """OCI image with the files under ``/data``."""
    image_pull_secrets: list[str] = Field(default_factory=list)


class DataDestination(Fields):
    """Destination of the adapter: exactly one of ``volumeSource`` and ``image``."""

    volume_source: dict[str, Any] | None = None
    """A Kubernetes VolumeSource."""
    image: str = ""
    """Reference to push the adapter image to."""
    image_push_secret: str = ""
    """Name of a ``kubernetes.io/dockerconfigjson`` Secret. Optional: a workload identity can push too."""


class Adapter(Fields):
    """One more adapter to serve."""

    source: DataSource
    strength: str = "1.0"


class Inference(Fields):
    """The served model."""

    preset: Preset | None = None
    template: dict[str, Any] | None = None
    """Custom pod instead of a preset; served unchanged on a cluster."""
    config: str = ""
    """Name of a ConfigMap with key ``inference_config.yaml``."""
    adapters: list[Adapter] = Field(default_factory=list)


class Tuning(Fields):
    """The tuned model."""

    preset: Preset
    method: str
    """``lora`` or ``qlora``, in any case."""
    config: str = ""
    """Name of a ConfigMap with key ``training_config.yaml``."""
    input: DataSource
    output: DataDestination

    @property
    def quantized(self) -> bool:
        """True if the base model is quantized during the training."""
        return self.method.lower() == "qlora"


class Workspace(Fields):
    """A model to tune, to serve, or to tune and then serve."""

    api_version: Literal["kaito.sh/v1alpha1", "kaito.sh/v1beta1"]
    kind: Literal["Workspace", "InferenceSet"]
    """``InferenceSet``: converted from one (``inference_set.py``)."""
    metadata: Metadata
    resource: Resource | None = None
    inference: Inference | None = None
    tuning: Tuning | None = None
    pipeline: Pipeline = Pipeline()
    """argotune's addition, see ``pipeline.py``."""

    @model_validator(mode="before")
    @classmethod
    def _default_instance(cls, value: Any) -> Any:
        resource = value.get("resource") if isinstance(value, dict) else None
        if isinstance(resource, dict) and value.get("apiVersion") == V1ALPHA1:
            return {**value, "resource": {"instanceType": DEFAULT_V1ALPHA1_INSTANCE, **resource}}
        return value

    @property
    def preset(self) -> Preset | None:
        """The base model, which tuning and inference share; None if only a custom pod is served."""
        return self.tuning.preset if self.tuning else self.inference.preset if self.inference else None
