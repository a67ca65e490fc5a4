"""Options of pods that a platform team sets (`pods:` of the site profile): environment, scheduling, resources, images.

The fields are those of Kubernetes' Container and PodSpec, with their names and meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from steps.runtime.options import Pattern
from steps.runtime.redaction import redact_secrets
from workflows.spec.field_types import Labels, ObjectName

ALL, SERVE = "all", "serve"
"""Keys of `pods:` that are not names of steps: every pod, and the servers of a rollout."""
CA_VOLUME, CA_FOLDER = "ca-bundle", "/mnt/ca-bundle"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Variables that OpenSSL and httpx, requests and urllib3, and pyarrow's S3 client read."""

EnvName = Annotated[str, Pattern(r"[A-Za-z_][A-Za-z0-9_.-]*", "the name of an environment variable")]
Amount = Annotated[str, Pattern(r"[0-9]+(\.[0-9]+)?(m|[kKMGTP]i?)?", "a quantity such as 500m or 4Gi")]
ResourceName = Annotated[str, Pattern(r"[A-Za-z0-9./_-]+", "the name of a resource, such as cpu or memory")]
Amounts = dict[ResourceName, Amount]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class KeySelector(_Part):
    """A key of a Secret or ConfigMap in the namespace of the run."""

    name: Annotated[ObjectName, Field(min_length=1)]
    key: Annotated[str, Pattern(r"[-._a-zA-Z0-9]+", "a key of a Secret or ConfigMap")]
    optional: bool | None = None


class EnvSource(_Part):
    """Source of the value of an environment variable: one of both."""

    secret_key_ref: KeySelector | None = None
    config_map_key_ref: KeySelector | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.secret_key_ref is None) == (self.config_map_key_ref is None):
            raise ValueError("set one of secretKeyRef and configMapKeyRef")
        return self


class EnvVar(_Part):
    """An environment variable; secrets come from a Secret."""

    name: EnvName
    value: str | None = None
    value_from: EnvSource | None = None

    @model_validator(mode="after")
    def _has_no_secret(self) -> Self:
        if self.value is not None and self.value_from is not None:
            raise ValueError("set one of value and valueFrom")
        # Not the message's business to repeat the value.
        if self.value and redact_secrets({"name": self.name, "value": self.value})["value"] != self.value:
            raise ValueError(f"{self.name} is or contains a secret; use valueFrom: {{secretKeyRef: {{name, key}}}}")
        return self


class Toleration(_Part):
    """A taint that does not keep the pod away."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class PodResources(_Part):
    """CPU, memory and other resources; they replace those of the step with the same names."""

    requests: Amounts = {}
    limits: Amounts = {}


class PodOptions(_Part):
    """Settings of the pods of a step."""

    env: list[EnvVar] = []
    """Environment variables, such as HTTPS_PROXY, NO_PROXY or AWS_ENDPOINT_URL."""
    ca_bundle: KeySelector | None = None
    """ConfigMap key with the certificates (PEM) to trust: all of them, since they replace those of the image."""
    resources: PodResources = PodResources()
    """Requests and limits."""
    node_selector: Labels = {}
    """Labels that nodes must have, in addition to those that a GPU pod selects."""
    tolerations: list[Toleration] = []
    """Tolerations, in addition to those of GPU pods."""
    priority_class_name: ObjectName = ""
    """PriorityClass."""
    runtime_class_name: ObjectName = ""
    """RuntimeClass, for example `nvidia`."""
    labels: Labels = {}
    """Additional labels."""
    annotations: dict[str, str] = {}
    """Additional annotations."""
    image_pull_secrets: list[ObjectName] = []
    """Secrets of the registry of the images in `images`."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """Pull policy; absent: Kubernetes' own."""


def for_pod(pods: Mapping[Any, PodOptions], name: str) -> PodOptions:
    """Return the options of one kind of pod: those of ``all``, extended and replaced by its own."""
    common, own = pods.get(ALL, PodOptions()), pods.get(name, PodOptions())
    merged: dict[str, Any] = {}
    for field in PodOptions.model_fields:
        base, value = getattr(common, field), getattr(own, field)
        if isinstance(value, dict):
            value = {**base, **value}
        elif field == "env":
            value = list({variable.name: variable for variable in [*base, *value]}.values())
        elif isinstance(value, list):
            value = [*base, *(item for item in value if item not in base)]
        elif isinstance(value, PodResources):
            value = PodResources(requests={**base.requests, **value.requests}, limits={**base.limits, **value.limits})
        merged[field] = value or base
    return PodOptions(**merged)


def fragments(options: PodOptions) -> dict[str, dict[str, Any]]:
    """Return the options as parts of a pod: ``metadata``, ``spec`` and ``container``; empty without options."""
    fields = options.model_dump(by_alias=True, exclude_none=True)
    bundle = options.ca_bundle
    variables = [{"name": name, "value": f"{CA_FOLDER}/{bundle.key}"} for name in CA_VARIABLES] if bundle else []
    mounts = [{"name": CA_VOLUME, "mountPath": CA_FOLDER, "readOnly": True}] if bundle else []
    volumes = [{"name": CA_VOLUME, "configMap": {"name": bundle.name}}] if bundle else []
    parts = {
        "metadata": {key: fields[key] for key in ("labels", "annotations")},
        "spec": {
            **{key: fields[key] for key in ("nodeSelector", "tolerations", "priorityClassName", "runtimeClassName")},
            "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
            "volumes": volumes,
        },
        "container": {
            "env": [*variables, *fields["env"]],
            "resources": {key: value for key, value in fields["resources"].items() if value},
            "imagePullPolicy": fields.get("imagePullPolicy"),
            "volumeMounts": mounts,
        },
    }
    if options == PodOptions():
        return {}
    return {name: {key: value for key, value in part.items() if value} for name, part in parts.items()}
