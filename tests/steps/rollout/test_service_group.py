"""Servers on several nodes: the objects of both kinds, and the choice between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from closed_schema import close
from jsonschema import Draft202012Validator
from kubernetes import client as kubernetes_models
from kubernetes_server import KubernetesServer
from rollout_sample import nap
from test_service_manifests import settings_of, unknown

from steps.kubernetes import client as kubernetes_client
from steps.rollout import rollout_cluster, service_group, service_manifests
from steps.rollout.service_release import STABLE
from steps.rollout.settings import Settings
from steps.runtime.errors import BadInput

SCHEMA = Path(__file__).parents[2] / "data" / "lws" / "leaderworkerset-crd.json"
NODES = {"nodes": 3, "max_replicas": 0, "replicas": 1, "queue": "team-a"}


def group_of(group: str, **changes: Any) -> list[dict[str, Any]]:
    settings = settings_of(**NODES | changes)
    release = rollout_cluster.build_release(settings, group)
    return [body for _, body in service_manifests.workload("oncall", STABLE, release, scaled=False, deadline=900)]


def test_a_leader_worker_set_is_valid() -> None:
    schema = json.loads(SCHEMA.read_text())
    close(schema)
    validator = Draft202012Validator(schema)
    (document,) = group_of("leaderworkerset", replicas=2)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []
    spec = document["spec"]
    assert (spec["replicas"], spec["leaderWorkerTemplate"]["size"]) == (2, 3)
    assert document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    spec["leaderWorkerTemplate"]["sizes"] = 2
    assert len(list(validator.iter_errors(document))) == 1


def test_a_stateful_set_is_valid() -> None:
    service, document = group_of("statefulset")
    assert list(unknown(document, kubernetes_models.V1StatefulSet.__name__)) == []
    assert list(unknown(service, kubernetes_models.V1Service.__name__)) == []
    assert document["spec"]["serviceName"] == service["metadata"]["name"] == "oncall-nodes"
    selector = document["spec"]["selector"]["matchLabels"].items()
    assert selector <= document["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["publishNotReadyAddresses"] and service["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("group", ["leaderworkerset", "statefulset"])
def test_flags_place_the_model_on_all_gpus(group: str) -> None:
    document = group_of(group)[-1]
    spec = document["spec"]
    template = spec["leaderWorkerTemplate"]["workerTemplate"] if group == "leaderworkerset" else spec["template"]
    (server,) = template["spec"]["containers"]
    args = server["args"]
    flags = json.loads(args[args.index("--server-arguments") + 1])
    assert (flags["tensor-parallel-size"], flags["pipeline-parallel-size"]) == (2, 3)
    assert args[args.index("--nodes") + 1] == "3"
    assert {"ARGOTUNE_NODE_RANK", "VLLM_HOST_IP"} <= {one["name"] for one in server["env"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensor-parallel-size": 4}, "is not the 6 GPUs of 3 nodes"),
        ({"distributed-executor-backend": "ray"}, "cannot be combined with several nodes"),
        ({"nnodes": 2}, "pipeline.rollout.nodes"),
    ],
)
def test_flags_that_do_not_fit_the_nodes_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        group_of("leaderworkerset", server_arguments=arguments)


def test_only_the_leader_is_behind_the_service_and_nodes_reach_each_other() -> None:
    settings = settings_of(**NODES)
    objects = {
        body["kind"]: body
        for _, body in service_manifests.supporting_objects(settings, "leaderworkerset", grouped=True)
    }
    assert objects["Service"]["spec"]["selector"][service_group.WORKER_INDEX] == "0"
    peers = {"podSelector": {"matchLabels": {"argotune.dev/service": "oncall"}}}
    assert {"from": [peers]} in objects["NetworkPolicy"]["spec"]["ingress"]
    assert {"to": [peers]} in objects["NetworkPolicy"]["spec"]["egress"]
    alone = [body for _, body in service_manifests.supporting_objects(settings) if body["kind"] == "NetworkPolicy"]
    assert peers not in [peer for rule in alone[0]["spec"]["ingress"] for peer in rule["from"]]


@pytest.mark.parametrize(
    ("group_kind", "installed", "expected"),
    [
        ("auto", True, "leaderworkerset"),
        ("auto", False, "statefulset"),
        ("statefulset", True, "statefulset"),
        ("leaderworkerset", True, "leaderworkerset"),
    ],
)
def test_the_kind_is_chosen(
    cluster: KubernetesServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group_kind: str,
    installed: bool,
    expected: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    if not installed:
        cluster.without("leaderworkerset.x-k8s.io")
    client = kubernetes_client.connect(nap)
    settings: Settings = settings_of(**NODES | {"group_kind": group_kind})
    assert service_group.choose_kind(client, settings) == expected
    if expected == "statefulset":
        with pytest.raises(BadInput, match="2 servers of 3 nodes require LeaderWorkerSet"):
            service_group.choose_kind(client, settings.model_copy(update={"replicas": 2}))


@pytest.mark.parametrize("forbidden", ["leaderworkersets", "selfsubjectaccessreviews"])
def test_an_account_without_the_role_gets_a_stateful_set(
    cluster: KubernetesServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    forbidden: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    cluster.forbidden = {("create", forbidden)}
    client = kubernetes_client.connect(nap)
    assert service_group.choose_kind(client, settings_of(**NODES)) == "statefulset"
    assert "the account may not use LeaderWorkerSets" in capsys.readouterr().out
    assert not [call for call in cluster.calls if call.resource == "leaderworkersets"]
