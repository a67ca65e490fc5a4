"""Feature gates of an API server: fields of an unknown or disabled feature (image volumes)."""

from __future__ import annotations

from typing import Any, Literal

Object = dict[str, Any]
Gate = Literal["on", "off", "unknown"]
"""``off``: from Kubernetes 1.31 to 1.34, unless the gate is set; ``unknown``: before."""


def image_volumes(gate: Gate, new: Object, old: Object | None) -> None:
    """Take image volumes out of an object as the API server does (``dropImageVolumes`` of its package pod)."""
    spec = _pod_spec(new)
    volumes = spec.get("volumes") or []
    named = {volume["name"] for volume in volumes if "image" in volume}
    if gate == "on" or not named or (gate == "off" and _in_use(old)):
        return
    if gate == "unknown":
        for volume in volumes:
            if volume.pop("image", None) is not None:
                volume["emptyDir"] = {}  # the default of a volume without a source
        return
    spec["volumes"] = [volume for volume in volumes if volume["name"] not in named]
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        mounts = container.get("volumeMounts") or []
        container["volumeMounts"] = [mount for mount in mounts if mount["name"] not in named]


def _in_use(document: Object | None) -> bool:
    return any("image" in volume for volume in _pod_spec(document or {}).get("volumes") or [])


def _pod_spec(document: Object) -> Object:
    spec: Object = document.get("spec") or {}
    template: Object = spec.get("template") or {}
    return template.get("spec") or {} if document.get("kind") in ("Deployment", "ReplicaSet", "Job") else spec
