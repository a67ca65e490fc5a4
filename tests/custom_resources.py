"""CustomResourceDefinitions of other projects, made of the schemas in tests/data."""

from __future__ import annotations

from typing import Any

from steps.kubernetes.client import Kind

Object = dict[str, Any]


def definition(kind: Kind, name: str, schema: Object, status: Object | None = None) -> Object:
    """Return the CustomResourceDefinition of a kind.

    Args:
        kind: Group, version and plural.
        name: The kind as documents name it, for example ``JobSet``.
        schema: JSON Schema of the version; its parts under ``$defs`` replace references to them.
        status: JSON Schema of its status (default: any fields).
    """
    schema = _without_references(schema, schema.pop("$defs", {}))
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema["properties"] |= {"metadata": {"type": "object"}, "status": status or anything}
    group, version = kind.api_version.split("/")
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    names = {"kind": name, "listKind": f"{name}List", "plural": kind.plural, "singular": name.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.qualified},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [served]},
    }


def _without_references(schema: Any, parts: Object) -> Any:
    """Return a schema with its parts in place of references, as a CustomResourceDefinition requires."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _without_references(parts[schema["$ref"].rpartition("/")[2]], parts)
        return {key: _without_references(value, parts) for key, value in schema.items()}
    return [_without_references(item, parts) for item in schema] if isinstance(schema, list) else schema
