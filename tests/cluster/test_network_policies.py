"""The network policy of a service: which pods connect to its metrics.

Without a CNI plugin that enforces policies, the API server stores them, and every pod connects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_cluster import Cluster
from small_pods import small_pod

from steps.rollout.service_manifests import POLICIES, supporting_objects
from steps.rollout.service_release import SERVICE_LABEL
from steps.rollout.settings import Settings
from steps.serving.drain import PORT
from steps.serving.metrics_address import PORT as METRICS_PORT

NAME = "measured"
SERVER = """
import socket, sys, time
listeners = [socket.create_server(("0.0.0.0", int(port))) for port in sys.argv[1:]]
print("listening", flush=True)
time.sleep(3600)
"""
CLIENT = """
import json, socket, sys

def connects(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError:
        return False
    return True

print(json.dumps([connects(address) for address in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def clients(cluster: Cluster) -> Iterator[dict[str, Cluster]]:
    """Namespaces of clients: that of Prometheus, and one that the policy does not allow."""
    names = {role: f"{cluster.namespace}-{role}" for role in ("prometheus", "stranger")}
    for name in names.values():
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield {role: Cluster(name, cluster.site, cluster.kubeconfig) for role, name in names.items()}
    cluster.kubectl("delete", "namespace", *names.values(), "--wait=false")


def connections(cluster: Cluster, *addresses: str) -> list[bool]:
    """Return which addresses a pod connects to."""
    cluster.wait("serviceaccount/default", "create")
    cluster.apply(small_pod("client", ["python", "-c", CLIENT, *addresses]))
    cluster.wait("pod/client", "jsonpath={.status.phase}=Succeeded")
    connected: list[bool] = json.loads(cluster.kubectl("logs", "client"))
    cluster.kubectl("delete", "pod", "client", "--force", "--grace-period=0")
    return connected


def test_only_prometheus_connects_to_metrics(cluster: Cluster, clients: dict[str, Cluster]):
    prometheus = f"http://prometheus.{clients['prometheus'].namespace}.svc:9090"
    settings = Settings(work=Path("/w"), name=NAME, model="m", prometheus=prometheus)
    [policy] = [document for kind, document in supporting_objects(settings) if kind == POLICIES]
    cluster.apply(policy)
    assert cluster.get("networkpolicy", NAME)["spec"] == policy["spec"]

    ports = (str(PORT), str(METRICS_PORT))
    cluster.apply(small_pod(NAME, ["python", "-c", SERVER, *ports], labels={SERVICE_LABEL: NAME}))
    cluster.wait_for_line(NAME, "listening")
    address = cluster.get("pod", NAME)["status"]["podIP"]
    # default-deny of argo/install lets a pod without labels connect to nothing.
    api_server = cluster.get("service", "kubernetes", "--namespace", "default")["spec"]["clusterIP"]
    [is_open] = connections(cluster, f"{api_server}:443")
    connected = {
        role: connections(namespace, *(f"{address}:{port}" for port in ports)) for role, namespace in clients.items()
    }
    cluster.kubectl("delete", "pod", NAME, "--force", "--grace-period=0")
    assert connected == {"prometheus": [is_open, True], "stranger": [is_open, is_open]}
