"""The base of all models of the spec."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

KUBERNETES_NAMES = {"storage_class": "storageClassName"}
"""Fields of a Workspace that have Kubernetes's name, and a shorter one in the plan."""


class Fields(BaseModel):
    """Frozen, camel case in YAML; rejects unknown fields and wrong types; docstrings of fields become their help."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=lambda name: KUBERNETES_NAMES.get(name) or to_camel(name),
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
