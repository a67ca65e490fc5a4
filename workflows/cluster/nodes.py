"""The nodes of a Workflow's status: unpacked, named as people name steps, and the pods behind them.

Argo's ``NodeStatus`` is described in its docs/fields.md; packing in workflow/packer, pod names in workflow/util.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Node = dict[str, Any]

POD_NAMES = "workflows.argoproj.io/pod-name-format"
MAX_PREFIX_LENGTH = 253 - 10 - 1


def read_nodes(workflow: Mapping[str, Any]) -> tuple[dict[str, Node], str]:
    """The nodes by id, or why they can't be read here (a large run's are packed, or kept in a database)."""
    status = workflow.get("status") or {}
    if status.get("nodes"):
        return dict(status["nodes"]), ""
    if status.get("compressedNodes"):
        try:
            return json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"]))), ""
        except (OSError, ValueError, EOFError):
            return {}, "the steps are packed in a way that is not known here; set ARGO_SERVER to ask an Argo server"
    if status.get("offloadNodeStatusVersion"):
        return {}, "the steps are kept in Argo's database; set ARGO_SERVER to ask an Argo server"
    return {}, ""


def packed(workflow: Mapping[str, Any], nodes: dict[str, Node], changed: Node) -> dict[str, Any]:
    """The part of a status to write so that ``changed`` takes its place among the nodes."""
    if (workflow.get("status") or {}).get("nodes"):
        return {"nodes": {changed["id"]: changed}}
    content = json.dumps({**nodes, changed["id"]: changed}, separators=(",", ":")).encode()
    return {"compressedNodes": base64.b64encode(gzip.compress(content)).decode()}


def supplied(node: Node, answers: Mapping[str, str], message: str) -> Node:
    """A suspended node that was answered: what ``argo node set`` and ``argo resume`` make of it."""
    outputs = dict(node.get("outputs") or {})
    if outputs.get("parameters"):
        outputs["parameters"] = [_answered(parameter, answers) for parameter in outputs["parameters"]]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = "; ".join(part for part in (node.get("message"), message) if part)
    return {**node, "outputs": outputs, "phase": "Succeeded", "message": said, "finishedAt": now}


def pod_name(workflow: Mapping[str, Any], node: Node) -> str:
    """The pod of a node (Argo: workflow/util/pod_name.go); v1 of the format is the node's id."""
    metadata = workflow["metadata"]
    if (metadata.get("annotations") or {}).get(POD_NAMES) == "v1":
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


def _answered(parameter: Mapping[str, Any], answers: Mapping[str, str]) -> dict[str, Any]:
    source = parameter.get("valueFrom") or {}
    value = answers.get(parameter["name"], source.get("default"))
    if "supplied" not in source or value is None:
        return dict(parameter)
    return {key: inner for key, inner in parameter.items() if key != "valueFrom"} | {"value": value}


def _fnv(text: str) -> int:
    """FNV-1a of 32 bits (RFC 9923)."""
    hashed = 0x811C9DC5
    for byte in text.encode():
        hashed = (hashed ^ byte) * 0x01000193 & 0xFFFFFFFF
    return hashed
