"""Pods of the tests: small commands that the namespaces of argotune admit."""

from __future__ import annotations

import json
import uuid
from typing import Any

from real_cluster import Cluster

from workflows.version import VERSION


def small_pod(
    name: str, command: list[str], *, labels: dict[str, str] | None = None, claim: str = ""
) -> dict[str, Any]:
    """Return a pod that Pod Security "restricted" admits, with a claim mounted at ``/mnt/claim`` if one is named."""
    mount = {"name": "claim", "mountPath": "/mnt/claim", "readOnly": True}
    volume = {"name": "claim", "persistentVolumeClaim": {"claimName": claim}}
    container = {
        "name": "main",
        "image": f"ghcr.io/argotune/control:{VERSION}",
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [mount] if claim else [],
    }
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "restartPolicy": "Never",
        "securityContext": security,
        "containers": [container],
        "volumes": [volume] if claim else [],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": spec}


def read_work(cluster: Cluster, run: str, pattern: str) -> dict[str, str]:
    """Return the contents of files of a run's work volume by their paths in it."""
    code = (
        "import json, pathlib, sys; root = pathlib.Path('/mnt/claim'); "
        "print(json.dumps({str(file.relative_to(root)): file.read_text() for file in root.glob(sys.argv[1])}))"
    )
    pod = f"reader-{uuid.uuid4().hex[:6]}"
    cluster.apply(small_pod(pod, ["python", "-c", code, pattern], claim=f"{run}-work"))
    cluster.wait(f"pod/{pod}", "jsonpath={.status.phase}=Succeeded")
    contents: dict[str, str] = json.loads(cluster.kubectl("logs", pod))
    cluster.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
    return contents
