"""The nodes of a Workflow's status, and the names of their pods.

Argo describes ``NodeStatus`` in its docs/fields.md; compression is in workflow/packer, pod names in workflow/util.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from steps.runtime.json_text import parse_json

Node = dict[str, Any]

POD_NAME_FORMAT = "workflows.argoproj.io/pod-name-format"
MAX_NODES_BYTES = 256 << 20
"""Argo compresses nodes that exceed etcd's limit, about 1 MB, to below it: text, at most some 50 times."""
MAX_PREFIX_LENGTH = 253 - 10 - 1


def read_nodes(workflow: Mapping[str, Any]) -> tuple[dict[str, Node], str]:
    """Return the nodes by id, and why they cannot be read (those of a large run are compressed or in a database)."""
    status = workflow.get("status") or {}
    if not isinstance(status, dict) or not isinstance(status.get("nodes") or {}, dict):
        return {}, "the status is not that of a Workflow"
    if status.get("nodes"):
        return dict(status["nodes"]), ""
    if status.get("compressedNodes"):
        try:
            return _unpack(status["compressedNodes"]), ""
        except (OSError, ValueError, TypeError, EOFError, zlib.error):
            return {}, "the steps are compressed in an unknown format; set ARGO_SERVER to use an Argo server"
    if status.get("offloadNodeStatusVersion"):
        return {}, "the steps are in Argo's database; set ARGO_SERVER to use an Argo server"
    return {}, ""


def _unpack(compressed: str) -> dict[str, Node]:
    """Return compressed nodes.

    Raises:
        Exception: they are damaged, or unpack to more than ``MAX_NODES_BYTES``.
    """
    with gzip.open(io.BytesIO(base64.b64decode(compressed))) as file:
        content = file.read(MAX_NODES_BYTES + 1)
    nodes = parse_json(content) if len(content) <= MAX_NODES_BYTES else None
    if not isinstance(nodes, dict):
        raise ValueError("not the nodes of a Workflow")
    return nodes


def pack_nodes(workflow: Mapping[str, Any], nodes: dict[str, Node], changed: Node) -> dict[str, Any]:
    """Return the part of a status to write in order to update the node ``changed``."""
    if (workflow.get("status") or {}).get("nodes"):
        return {"nodes": {changed["id"]: changed}}
    content = json.dumps({**nodes, changed["id"]: changed}, separators=(",", ":")).encode()
    return {"compressedNodes": base64.b64encode(gzip.compress(content)).decode()}


def resume_node(node: Node, values: Mapping[str, str], message: str) -> Node:
    """Return a suspended node with its outputs set, as ``argo node set`` and ``argo resume`` write it."""
    outputs = dict(node.get("outputs") or {})
    if outputs.get("parameters"):
        outputs["parameters"] = [_set_value(parameter, values) for parameter in outputs["parameters"]]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    message = "; ".join(part for part in (node.get("message"), message) if part)
    return {**node, "outputs": outputs, "phase": "Succeeded", "message": message, "finishedAt": now}


def pod_name(workflow: Mapping[str, Any], node: Node) -> str:
    """Return the pod name of a node (Argo: workflow/util/pod_name.go); in format v1 it is the node's id."""
    metadata = workflow["metadata"]
    if (metadata.get("annotations") or {}).get(POD_NAME_FORMAT) == "v1":
        return str(node["id"])
    if node["name"] == metadata["name"]:
        return str(metadata["name"])
    template = node.get("templateName") or (node.get("templateRef") or {}).get("template") or ""
    prefix = "-".join(part for part in (metadata["name"], template) if part)[:MAX_PREFIX_LENGTH]
    return f"{prefix}-{_fnv(node['name'])}"


def parse_time(text: Any) -> datetime | None:
    """Return a time that Kubernetes wrote (RFC 3339); None if there is none."""
    try:
        return datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None


def _set_value(parameter: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    source = parameter.get("valueFrom") or {}
    value = values.get(parameter["name"], source.get("default"))
    if "supplied" not in source or value is None:
        return dict(parameter)
    return {key: inner for key, inner in parameter.items() if key != "valueFrom"} | {"value": value}


def _fnv(text: str) -> int:
    """Return the 32-bit FNV-1a hash (RFC 9923)."""
    hashed = 0x811C9DC5
    for byte in text.encode():
        hashed = (hashed ^ byte) * 0x01000193 & 0xFFFFFFFF
    return hashed
