"""Schemas of custom resources that reject what the API server would drop."""

from typing import Any


def close(schema: Any) -> None:
    """Reject unknown fields, which an API server drops."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            close(part)
    elif isinstance(schema, list):
        for part in schema:
            close(part)
