"""vLLM's CPU build on two pods of a StatefulSet: they answer together, and a lost pod comes back.

The pods mount vLLM from this machine, so the cluster must have its only node here. Pod Security "restricted" forbids
such mounts: the namespace is privileged during the test.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from installation import SMALL_MODEL
from random_models import save_vllm_model
from real_cluster import ROOT, Cluster
from vllm_command import check_next_token, next_token_request, write_command

from steps.oci import reference
from steps.oci.oci_layout import build_image
from steps.oci.registry import push_image
from steps.rollout import rollout_cluster, service_group, service_manifests
from steps.rollout.service_release import STABLE
from steps.rollout.settings import AdapterSource, Settings
from steps.serving.vllm_probe import find_interpreter

NAME, GROUP, NODES = "two-nodes", "statefulset", 2
WAIT_SECONDS = 900
CLIENT = """
import sys, urllib.request
address, body = sys.argv[1], sys.argv[2].encode()
request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=200).read().decode())
"""
SECURITY = "pod-security.kubernetes.io/enforce"
ARGUMENTS = {
    "dtype": "float32", "max-num-seqs": 4, "enforce-eager": True, "max-loras": 2, "max-lora-rank": 8,
    # The CPU build fails with pipeline parallelism, the default across nodes.
    "tensor-parallel-size": NODES,
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """A server of two pods, and what transformers predicts with its model."""

    cluster: Cluster
    base: str
    expected: dict[str, Any]

    def wait(self) -> None:
        """Wait until the leader answers."""
        self.cluster.wait(f"pod/{node(0)}", "condition=Ready", seconds=WAIT_SECONDS)

    def check(self) -> None:
        """Compare the predictions of base and adapter with those of transformers, asked through the Service."""
        for kind, model in (("base", self.base), ("tuned", "tuned")):
            request = json.dumps(next_token_request(model, self.expected["prompt"]))
            address = f"http://{NAME}.{self.cluster.namespace}.svc/v1/completions"
            client = ["exec", node(1), "--", "python", "-c", CLIENT, address, request]
            check_next_token(json.loads(self.cluster.kubectl(*client, timeout=300)), self.expected[kind], kind)


def node(rank: int) -> str:
    """Return the name of a pod."""
    return f"{service_group.set_name(NAME, GROUP)}-{rank}"


@pytest.fixture(scope="module")
def privileged(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whose namespace permits mounts of the node's folders; the test is skipped on another machine."""
    addresses = [
        address["address"]
        for node in cluster.get("nodes")["items"]
        for address in node["status"]["addresses"]
        if address["type"] == "InternalIP" and "kwok" not in node["metadata"]["name"]
    ]
    if not (len(addresses) == 1 and is_local(addresses[0])):
        pytest.skip("this machine is not the only node of the cluster")
    before = cluster.get("namespace", cluster.namespace)["metadata"].get("labels", {}).get(SECURITY)
    cluster.kubectl("label", "namespace", cluster.namespace, f"{SECURITY}=privileged", "--overwrite")
    yield cluster
    label = f"{SECURITY}={before}" if before else f"{SECURITY}-"
    cluster.kubectl("label", "namespace", cluster.namespace, label, "--overwrite")


@pytest.fixture(scope="module")
def group(privileged: Cluster, registry: str, vllm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """The server, created from the objects of a rollout."""
    folder = tmp_path_factory.mktemp("vllm-nodes")
    expected = save_vllm_model(folder / "model", "llama")
    build_image(folder / "model" / "adapter", folder / "layout", "1", {})
    target = reference.parse(f"{registry}/team/{NAME}:1")
    image = f"{target.name}@{push_image(folder / 'layout', target)}"
    settings = Settings(
        work=folder, name=NAME, model=str(folder / "model"), adapters=[AdapterSource(name="tuned", image=image)],
        serve_image=SMALL_MODEL, nodes=NODES, gpus=0, replicas=1, group_kind=GROUP, context_length=128,
        server_arguments=ARGUMENTS, pod_options=_pod_options(folder, vllm, registry),
    )  # fmt: skip
    release = rollout_cluster.build_release(settings, GROUP)
    # As root: vLLM's files can be in a home directory.
    release.pod["spec"]["securityContext"] = {"runAsUser": 0}
    release.pod["spec"]["containers"][0]["securityContext"] = {}
    workload = service_manifests.workload(NAME, STABLE, release, scaled=False, deadline=900)
    supporting = service_manifests.supporting_objects(settings, GROUP, grouped=True)
    adapters = service_manifests.adapters_config_map(NAME, release.revision, release.adapters)
    bodies = [adapters, *(body for _, body in [*workload, *supporting])]
    privileged.apply(*bodies)
    yield Group(privileged, release.base_name, expected)
    for body in bodies:
        privileged.kubectl("delete", body["kind"], body["metadata"]["name"], "--wait=false")


def is_local(address: str) -> bool:
    """Return True if an address is one of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _pod_options(folder: Path, vllm: str, registry: str) -> dict[str, Any]:
    """Return mounts of the model, and of vLLM and the library that it needs, at the same paths as here."""
    command = write_command(folder / "vllm", vllm)
    python = find_interpreter(Path(vllm))
    [library] = Path("/usr/lib").glob("*-linux-gnu/libnuma.so.1")
    paths = {folder, library, ROOT, Path(python).parents[1], Path(python).resolve().parents[1]}
    names = {f"node-{number}": str(path) for number, path in enumerate(sorted(paths))}
    # The image has no C++ compiler.
    environment = {
        "ARGOTUNE_VLLM": str(command), "TORCHDYNAMO_DISABLE": "1", "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "ARGOTUNE_INSECURE_REGISTRIES": registry,
    }  # fmt: skip
    return {
        "spec": {"volumes": [{"name": name, "hostPath": {"path": path}} for name, path in names.items()]},
        "container": {
            "env": [{"name": name, "value": value} for name, value in environment.items()],
            "volumeMounts": [{"name": name, "mountPath": path} for name, path in names.items()],
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            "imagePullPolicy": "IfNotPresent",
        },
    }


def test_both_pods_compute_the_answer(group: Group) -> None:
    group.wait()
    group.check()


def test_a_lost_pod_comes_back(group: Group) -> None:
    """The leader ends with the other node, and both start again."""
    group.wait()
    restarted = "jsonpath={.status.containerStatuses[0].restartCount}=1"
    group.cluster.kubectl("delete", "pod", node(1), "--force", "--grace-period=0")
    group.cluster.wait(f"pod/{node(0)}", restarted, seconds=WAIT_SECONDS)
    group.wait()
    group.check()
