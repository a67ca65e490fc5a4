"""The fake Kubernetes server of other tests answers as the real API server, to the calls that argotune makes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes import config
from kubernetes_server import KubernetesServer
from real_cluster import Cluster

from steps.kubernetes import connection
from steps.kubernetes.connection import APPLY_PATCH, JSON, MERGE_PATCH

CORE = "/api/v1/namespaces/{namespace}"
MAPS = f"{CORE}/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/{namespace}/deployments"
WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"
FORCE, NO_FORCE = ({"fieldManager": "argotune", "force": force} for force in ("true", "false"))


@dataclass(frozen=True)
class Request:
    """A request to both servers."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    query: dict[str, str] = field(default_factory=dict)
    content: str = JSON


def config_map(name: str, value: str = "1", **metadata: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"fake-server": name}, **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": value}}


def deployment(replicas: int, app: str = "fake-server") -> dict[str, Any]:
    labels = {"app": app}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none:1"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "fake-server"}, "spec": spec}


def workflow(name: str, **metadata: Any) -> dict[str, Any]:
    spec = {"suspend": True, "entrypoint": "main", "templates": [{"name": "main", "suspend": {}}]}
    metadata = {"name": name, **metadata}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": spec}


# Argo's controller leaves the runs of other controllers alone.
LABELS = {"fake-server": "run", "workflows.argoproj.io/controller-instanceid": "none"}
REQUESTS = [
    # Created once; a name, a label or a namespace that is not valid.
    Request("POST", MAPS, config_map("one")),
    Request("POST", MAPS, config_map("one")),
    Request("POST", MAPS, config_map("Upper")),
    Request("POST", MAPS, config_map("label", labels={"a": "x" * 64})),
    Request("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("one")),
    Request("POST", MAPS, config_map("dry"), {"dryRun": "All"}),
    # Absent objects, and kinds that are not installed.
    Request("GET", f"{MAPS}/one"),
    Request("GET", f"{MAPS}/absent"),
    Request("GET", f"{MAPS}/dry"),
    Request("GET", "/apis/absent.example.com/v1/things"),
    Request("GET", f"{CORE}/pods/absent/log"),
    Request("DELETE", f"{MAPS}/absent"),
    Request("PATCH", f"{MAPS}/absent", {"data": {"a": "1"}}, {}, MERGE_PATCH),
    # Server-side apply, and a field that another manager owns.
    Request("PATCH", f"{MAPS}/two", config_map("two"), FORCE, APPLY_PATCH),
    Request("PATCH", f"{MAPS}/two", config_map("two"), FORCE, APPLY_PATCH),
    Request("PATCH", f"{MAPS}/two", {"data": {"key": "2"}}, {"fieldManager": "other"}, MERGE_PATCH),
    Request("PATCH", f"{MAPS}/two", config_map("two"), NO_FORCE, APPLY_PATCH),
    Request("PATCH", f"{MAPS}/two", config_map("two"), FORCE, APPLY_PATCH),
    Request("PATCH", f"{MAPS}/two", {"data": {"key": None}}, {}, MERGE_PATCH),
    # Lists.
    Request("GET", MAPS, query={"labelSelector": "fake-server in (one, two)"}),
    Request("GET", MAPS, query={"labelSelector": "fake-server=two"}),
    Request("GET", MAPS, query={"labelSelector": "fake-server=nothing"}),
    Request("GET", MAPS, query={"fieldSelector": "metadata.name=one"}),
    Request("GET", f"{CORE}/events", query={"fieldSelector": "involvedObject.name=absent,type=Warning"}),
    # Objects with a status, whose generation counts changes of the spec.
    Request("PATCH", f"{DEPLOYMENTS}/fake-server", deployment(0), FORCE, APPLY_PATCH),
    Request("PATCH", f"{DEPLOYMENTS}/fake-server", {"metadata": {"labels": {"a": "1"}}}, {}, MERGE_PATCH),
    Request("PATCH", f"{DEPLOYMENTS}/fake-server", deployment(0, "other"), FORCE, APPLY_PATCH),
    Request("GET", f"{DEPLOYMENTS}/fake-server"),
    # Argo's objects.
    Request("POST", WORKFLOWS, workflow("fake-server", labels=LABELS)),
    Request("POST", WORKFLOWS, workflow("fake-server")),
    Request("PATCH", f"{WORKFLOWS}/fake-server", {"spec": {"shutdown": "Stop"}}, {}, MERGE_PATCH),
    Request("GET", WORKFLOWS, query={"labelSelector": "fake-server=run"}),
    # Deletions, of an object with this uid only.
    Request("DELETE", f"{MAPS}/two", {"preconditions": {"uid": "11111111-1111-1111-1111-111111111111"}}),
    Request("DELETE", f"{MAPS}/two", {"propagationPolicy": "Background"}),
    Request("DELETE", f"{MAPS}/one"),
    Request("DELETE", f"{DEPLOYMENTS}/fake-server"),
    Request("DELETE", f"{WORKFLOWS}/fake-server"),
]


def answers(kubeconfig: str, namespace: str) -> list[dict[str, Any]]:
    """Return what a server answers to each request, without what differs from server to server."""
    context = config.list_kube_config_contexts(kubeconfig)[1]
    server = connection.from_kubeconfig(kubeconfig, context)
    found = []
    for request in REQUESTS:
        path = request.path.format(namespace=namespace)
        opened = server.open(
            request.method, path, request.query, request.body, content_type=request.content, timeout=(10, 30)
        )
        with opened as response:
            answer = described(response.status, response.data.decode())
            found.append({"request": f"{request.method} {path} {request.query}", **answer})
    return found


def described(status: int, text: str) -> dict[str, Any]:
    """Return the parts of an answer that argotune reads."""
    if not text.startswith("{"):
        return {"status": status, "text": text.strip()}
    content = json.loads(text)
    if content["kind"] == "Status":
        details = {key: value for key, value in (content.get("details") or {}).items() if key != "uid"}
        causes = [(cause.get("reason"), cause.get("field")) for cause in details.pop("causes", [])]
        return {"status": status, "reason": content.get("reason"), "details": details, "causes": causes}
    if "items" in content:
        return {"status": status, "kind": content["kind"], "items": [_object(item) for item in content["items"]]}
    return {"status": status, "kind": content["kind"], **_object(content)}


def _object(content: dict[str, Any]) -> dict[str, Any]:
    metadata = content["metadata"]
    managers = {(entry["manager"], entry["operation"]) for entry in metadata.get("managedFields", [])}
    return {
        "name": metadata.get("name"),
        "labels": metadata.get("labels"),
        "generation": metadata.get("generation"),
        "data": content.get("data"),
        "replicas": content.get("spec", {}).get("replicas"),
        "shutdown": content.get("spec", {}).get("shutdown"),
        "argotune manages it": ("argotune", "Apply") in managers,
    }


def test_the_fake_server_answers_as_the_real_one(cluster: Cluster, tmp_path: Path):
    with KubernetesServer(namespaces=("default", cluster.namespace)) as fake:
        expected = answers(cluster.kubeconfig, cluster.namespace)
        received = answers(str(fake.kubeconfig(tmp_path / "kubeconfig")), cluster.namespace)
    differences = [pair for pair in zip(expected, received, strict=True) if pair[0] != pair[1]]
    assert not differences, "\n".join(f"real {real}\nfake {answer}" for real, answer in differences)
