"""The JSON Schema of Workspaces and InferenceSets, for editors: derived from the models that read them."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from workflows.spec.inference_set import InferenceSet
from workflows.spec.workspace import Workspace

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema of a document of a Workspace file; documents of other kinds, such as ConfigMaps, are valid."""
    models = {"Workspace": Workspace, "InferenceSet": InferenceSet}
    inputs: list[Any] = [(model, "validation") for model in models.values()]
    _, content = models_json_schema(inputs, by_alias=True)
    definitions = content["$defs"]
    for kind in models:
        # An InferenceSet is read into a Workspace, whose model has both kinds.
        definitions[kind]["properties"]["kind"] = {"const": kind}
    # Written by the cluster, and ignored.
    definitions["Metadata"]["additionalProperties"] = True
    definitions["Workspace"]["properties"]["status"] = {"type": "object"}
    return {
        "$schema": DIALECT,
        "title": "argotune Workspace",
        "description": "KAITO Workspace (kaito.sh/v1alpha1, kaito.sh/v1beta1) with argotune's pipeline block",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "allOf": [
            {"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": f"#/$defs/{kind}"}} for kind in models
        ],
        "$defs": definitions,
    }
