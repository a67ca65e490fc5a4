from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes_server import KubernetesServer
from registry_fixture import Registry
from rollout_sample import NAME, nap, run, version, write_weights
from serving_cluster import NAMESPACE, Servers

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.connection import Connection
from steps.models.adapter import adapter_digest
from steps.rollout import service_change, service_release, service_update
from steps.rollout.service_group import POD_INDEX
from steps.rollout.settings import Settings
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError
from steps.serving import desired_adapters, serving_client

pytestmark = pytest.mark.usefixtures("quick", "in_pod")


def live(cluster: KubernetesServer, name: str = NAME) -> Any:
    return cluster.read("deployments", name, NAMESPACE)


def releases() -> service_release.Releases:
    return service_release.read_releases(kubernetes_client.connect(nap), NAME)


def ask(address: str) -> str:
    return serving_client.complete(address, "tuned", "x", 5, 120)


def maps(cluster: KubernetesServer) -> set[str]:
    return {one["metadata"]["name"] for one in cluster.all("configmaps")}


@pytest.mark.parametrize("reported", ["vllm", "transformers", ""])
def test_the_output_names_the_server_that_answered(
    servers: Servers, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, reported: str
) -> None:
    """The setting is vllm; an older server reports nothing."""
    monkeypatch.setenv(desired_adapters.KIND_VARIABLE, reported)
    assert run(settings()).server == (reported or "unknown")


def test_a_server_that_does_not_report_itself_is_rolled_back(
    servers: Servers, settings: Callable[..., Settings], images: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings())

    def unanswered(*_: object) -> str:
        raise StepError("http://helper/adapters did not answer")

    monkeypatch.setattr(serving_client, "get_server_kind", unanswered)
    with pytest.raises(StepError, match="did not answer"):
        run(settings("two"))
    known = releases()
    assert known.current and known.current.adapters[0].version == version(images, "one")


def test_hot_load_and_rolling_update(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    first = run(settings())
    assert (first.answer, first.base_answer) == (f"I am {version(images, 'one')}.", "I am base.")
    assert len(servers.pods) == 2
    started = set(servers.pods)
    again = run(settings())
    assert again.answer == first.answer and set(servers.pods) == started

    hot = run(settings("two"))
    assert hot.answer == f"I am {version(images, 'two')}."
    assert set(servers.pods) == started, "servers were restarted for an adapter"
    for running in servers.pods.values():
        assert list(running.server.adapters) == [version(images, "two")]

    wide = run(settings("wide"))
    assert wide.answer == f"I am {version(images, 'wide')}."
    assert not started & set(servers.pods), "a larger rank needs other servers"
    assert servers.min_ready[NAME] >= 2, "a server was missing during the update"
    known = releases()
    assert known.current and known.previous
    assert [one.adapters[0].version for one in (known.current, known.previous)] == [
        version(images, "wide"), version(images, "two")
    ]  # fmt: skip
    retained = {f"{NAME}-adapters-{one.revision}" for one in (known.current, known.previous)}
    assert maps(cluster) == {*retained, f"{NAME}-releases"}
    flags = live(cluster)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert '"max-lora-rank": 64' in flags[flags.index("--server-arguments") + 1]


def test_other_replicas_scale_the_running_servers(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    run(settings())
    started = set(servers.pods)
    for name, replicas in (("one", 3), ("two", 4)):
        assert run(settings(name, replicas=replicas)).answer == f"I am {version(images, name)}."
        assert len(servers.pods) == replicas and started <= set(servers.pods)
        assert all(list(one.server.adapters) == [version(images, name)] for one in servers.pods.values())
        current = releases().current
        assert current and current.replicas == replicas
    run(settings("two", replicas=1))
    assert len(servers.pods) == 1
    servers.trouble = waiting("ImagePullBackOff", "not found")
    with pytest.raises(StepError, match=r"cannot pull image .*: not found"):
        run(settings("one", replicas=2))
    current = releases().current
    assert current and current.replicas == 1 and current.adapters[0].version == version(images, "two")


def test_an_adapter_that_does_not_answer_leaves_the_old_one_live(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    run(settings())
    for running in servers.pods.values():
        running.server.mute.add(version(images, "two"))
    servers.trouble = waiting("ImagePullBackOff", "not found")  # in the rolling update after the hot load
    with pytest.raises(StepError, match=r"cannot pull image .*: not found"):
        run(settings("two"))
    servers.trouble = None
    assert ask(servers.service(NAME)) == f"I am {version(images, 'one')}."
    current = releases().current
    assert current and current.adapters[0].version == version(images, "one")
    assert all(list(one.server.adapters) == [version(images, "one")] for one in servers.pods.values())


def test_servers_with_other_answers_than_the_evaluation_are_rolled_back(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    tuned = {"adapters": [{"name": "tuned", "path": "adapter"}]}
    work = settings().work
    (work / "adapter").mkdir(parents=True)
    (work / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    write_weights(work / "adapter")

    def evaluate(answer: str) -> None:
        sample = {"question": "Who?", "messages": [{"role": "user", "content": "Who?"}]}
        sample |= {"base_answer": "I am base.", "adapter_answer": answer}
        content = {"adapter_digest": adapter_digest(work / "adapter"), "max_new_tokens": 64, "samples": [sample]}
        (work / "report").mkdir(exist_ok=True)
        (work / "report" / "evaluation.json").write_text(json.dumps(content))

    assert run(settings(**tuned, image_reference=images["one"])).agreement.startswith("not compared")
    evaluate(f"I am {version(images, 'two')}.")
    agreement = run(settings(**tuned, image_reference=images["two"])).agreement
    assert agreement.startswith("1 of 1 answers as in the evaluation; probabilities not compared")
    evaluate("Cause: the image cannot be pulled.")
    for image, canary in (("one", 0), ("wide", 50)):
        with pytest.raises(StepError, match="the served model is not the evaluated adapter"):
            run(settings(**tuned, image_reference=images[image], canary=canary))
        end = time.monotonic() + 120
        while ask(servers.service(NAME)) != f"I am {version(images, 'two')}.":
            assert time.monotonic() < end, "the servers are not rolled back"
            time.sleep(0.01)
        current = releases().current
        assert current and current.adapters[0].version == version(images, "two")
    assert live(cluster, f"{NAME}-canary") is None


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    container = {"name": "server", "image": "serve:1", "restartCount": 3, **more}
    container["state"] = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "conditions": [], "containerStatuses": [container]}


OOM = {"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
ENDED = {"lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no gpu"}
UNSCHEDULABLE = {"phase": "Pending", "conditions": [NO_NODE]}


@pytest.mark.parametrize(
    ("trouble", "log", "kind", "says"),
    [
        (waiting("ImagePullBackOff", "manifest unknown"), "", StepError, "cannot pull image serve:1 .*: manifest"),
        (waiting("CreateContainerConfigError", 'secret "x" not found'), "", StepError, 'secret "x" not found'),
        (waiting("CrashLoopBackOff", **OOM), "", InsufficientCapacity, "OOMKilled"),
        (waiting("CrashLoopBackOff", **ENDED), "x\ntorch.OutOfMemoryError: CUDA out of memory. Tried\n",
         InsufficientCapacity, "ran out of GPU memory: torch.OutOfMemoryError"),
        (waiting("CrashLoopBackOff", **ENDED), "x\nRuntimeError: CUDA error: no kernel image\n", StepError,
         "exited with code 1: RuntimeError: CUDA error: no kernel image"),
        (waiting("CrashLoopBackOff", **ENDED), "a\nthe last word\n", StepError,
         rf"the last word\n  fix: see kubectl logs {NAME}\S* --previous --namespace {NAMESPACE}"),
        (UNSCHEDULABLE, "", InsufficientCapacity, "no node can run pod helper-.*no gpu"),
        ({"phase": "Failed", "reason": "Evicted", "message": "x", "conditions": []}, "", StepError, "was evicted: x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [True, False])
def test_a_pod_that_does_not_start_is_diagnosed_and_rolled_back(
    before: bool, trouble: Any, log: str, kind: type[StepError], says: str,
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str],
) -> None:  # fmt: skip
    if before:
        run(settings())
    servers.trouble = trouble
    for number in range(1, 9):
        cluster.logs[NAMESPACE, f"{NAME}-{number}", "server"] = log
    seconds = 1 if trouble is UNSCHEDULABLE else 30
    with pytest.raises(kind, match=says):
        run(settings("wide", deadline_seconds=seconds))
    servers.trouble = None
    if not before:
        assert live(cluster) is None and releases().current is None
        assert maps(cluster) == set(), "objects of the failed release remain"
        return
    assert len(servers.ready()) == 2 == len(cluster.all("pods"))
    assert ask(servers.service(NAME)) == f"I am {version(images, 'one')}."
    assert run(settings("wide")).answer == f"I am {version(images, 'wide')}."


def test_a_canary_receives_its_share_and_is_promoted_or_removed(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    client = kubernetes_client.connect(nap)
    with pytest.raises(BadInput, match="no argotune service helper"):
        service_change.promote(client, NAME, 30, nap)
    run(settings(canary=33))  # the first release has no canary
    assert live(cluster, f"{NAME}-canary") is None
    with pytest.raises(BadInput, match="no canary"):
        service_change.promote(client, NAME, 30, nap)
    answer = run(settings("two", canary=33)).answer
    assert answer == f"I am {version(images, 'two')}."
    assert live(cluster, f"{NAME}-canary")["spec"]["replicas"] == 1, "a third of three servers"
    behind = servers.ready(**{"argotune.dev/service": NAME})
    assert len(behind) == 3
    assert "removed the canary" in service_change.rollback(client, NAME, 30, nap)
    assert live(cluster, f"{NAME}-canary") is None and len(servers.ready()) == 2

    run(settings("two", canary=33, gateway="web/front"))
    weights = [one["weight"] for one in cluster.read("httproutes", NAME, NAMESPACE)["spec"]["rules"][0]["backendRefs"]]  # type: ignore[index]
    assert weights == [67, 33]
    message = service_change.promote(client, NAME, 30, nap)
    assert version(images, "two") in message and version(images, "one") in message
    route = cluster.read("httproutes", NAME, NAMESPACE)
    assert route and [one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]] == [100, 0]
    assert live(cluster, f"{NAME}-canary") is None
    assert ask(servers.service(NAME)) == f"I am {version(images, 'two')}."
    assert version(images, "one") in service_change.rollback(client, NAME, 30, nap)
    assert ask(servers.service(NAME)) == f"I am {version(images, 'one')}."


def test_a_canary_of_the_previous_release_does_not_change_the_stable_servers(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    run(settings())
    run(settings("two"))  # hot-loaded by the servers of the first release
    run(settings(canary=33))
    stable = servers.ready(**{"argotune.dev/track": "stable"})
    assert len(stable) == 2
    for pod in stable:
        assert ask(service_update.pod_address(pod)) == f"I am {version(images, 'two')}."
    service_change.rollback(kubernetes_client.connect(nap), NAME, 30, nap)
    assert run(settings("two")).answer == f"I am {version(images, 'two')}."


def test_promotion_from_outside_the_cluster_needs_no_further_server(
    cluster: KubernetesServer,
    servers: Servers,
    settings: Callable[..., Settings],
    images: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The running servers load the adapter of the canary; the API server forwards their ports."""

    def connect_to_pod(connection: Connection, pod: str, namespace: str, port: int) -> socket.socket:
        found = cluster.read("pods", pod, namespace)
        assert found
        return socket.create_connection((found["status"]["podIP"], port))

    run(settings())
    run(settings("two", canary=33))
    stable = {pod["metadata"]["name"] for pod in servers.ready(**{"argotune.dev/track": "stable"})}
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    monkeypatch.setattr(Connection, "open_port", connect_to_pod)
    message = service_change.promote(kubernetes_client.connect(nap), NAME, 30, nap)
    assert version(images, "two") in message
    assert set(servers.pods) == stable and live(cluster, f"{NAME}-canary") is None
    for pod in servers.ready():
        address = service_update.pod_address(pod)
        assert ask(address) == f"I am {version(images, 'two')}."
    assert version(images, "one") in service_change.rollback(kubernetes_client.connect(nap), NAME, 30, nap)
    assert set(servers.pods) == stable


def test_change_from_outside_the_cluster_that_cannot_reach_pods_is_a_rolling_update(
    servers: Servers, settings: Callable[..., Settings], images: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings())
    run(settings("two"))
    started = set(servers.pods)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    service_change.rollback(kubernetes_client.connect(nap), NAME, 30, nap)
    assert not started & set(servers.pods)
    assert servers.min_ready[NAME] == 2
    (running,) = {tuple(one.server.adapters) for one in servers.pods.values()} - {()} or {("loading",)}
    assert running in ((version(images, "one"),), ("loading",))


def test_unavailable_adapters_are_reported_together(
    cluster: KubernetesServer, settings: Callable[..., Settings], tmp_path: Path, open_registry: Registry
) -> None:
    adapters = [
        {"name": "a", "path": "adapter"},
        {"name": "b", "image": f"{open_registry.address}/team/nothing:1"},
    ]
    with pytest.raises(BadInput) as refused:
        run(settings(adapters=adapters))
    assert "adapter a was not pushed" in str(refused.value)
    assert f"adapter b: image {open_registry.address}/team/nothing:1 not found" in str(refused.value)
    assert cluster.all("deployments") == []


def test_a_custom_pod_is_deployed_unchanged(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings]
) -> None:
    template = {"spec": {"containers": [{"name": "mine", "image": "mine:1", "ports": [{"containerPort": 5000}]}]}}
    result = run(settings(template=template, adapters=[], preset="", model="-"))
    assert live(cluster)["spec"]["template"]["spec"]["containers"] == template["spec"]["containers"]
    assert result.answer == result.base_answer == "I am base."
    service = cluster.read("services", NAME, NAMESPACE)
    assert service and service["spec"]["ports"][0]["targetPort"] == 5000


SILENT = {"phase": "Pending", "conditions": []}


def test_role_of_the_rollout_has_exactly_the_verbs_it_uses(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    import yaml

    def warn(event: str, document: Any) -> None:
        if document["kind"] == "Pod" and event == "ADDED":
            name = document["metadata"]["name"]
            cluster.put(
                {"apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{name}.1", "namespace": NAMESPACE},
                 "type": "Warning", "reason": "FailedAttachVolume", "message": "Multi-Attach error for volume",
                 "involvedObject": {"kind": "Pod", "name": name}}
            )  # fmt: skip

    cluster.controllers.append(warn)
    run(settings(max_replicas=4, gateway="web/front"))
    run(settings("two", max_replicas=4, prometheus="http://prometheus:9090", gateway="web/front"))
    run(settings("wide", canary=10, gateway="web/front"))
    run(settings("wide"))
    run(settings("two", server_arguments={"max-model-len": 128}))
    run(settings("two", hot_load=False))
    for trouble, says in ((waiting("CrashLoopBackOff", **ENDED), "exited with code 1"), (SILENT, "Multi-Attach")):
        servers.trouble = trouble
        with pytest.raises(StepError, match=says):
            run(settings("two", server_arguments={"max-model-len": 64}, deadline_seconds=1))
    servers.trouble = None
    groups = {"nodes": 2, "replicas": 1, "deadline_seconds": 0.01}
    for group_kind in ("auto", "statefulset"):
        with pytest.raises(StepError, match="is not ready before the deadline"):
            run(settings("two", group_kind=group_kind, **groups))
    old = {"name": f"{NAME}-nodes-0", "namespace": NAMESPACE, "labels": {"argotune.dev/service": NAME, POD_INDEX: "0"}}
    cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": old, "status": {"conditions": []}})
    with pytest.raises(StepError, match="is not ready before the deadline"):
        run(settings("two", group_kind="statefulset", **groups))
    assert not cluster.read("pods", f"{NAME}-nodes-0", NAMESPACE)
    assert not cluster.all("leaderworkersets") and not cluster.all("statefulsets")
    calls = cluster.verbs("rollout")
    # Every account may review its own permissions (ClusterRole system:basic-user).
    used = {call for call in calls if call[0] != "discover" and call[1] != "authorization.k8s.io"}
    # Server-side apply of a new object needs "create" too.
    needed = used | {("create", group, resource) for verb, group, resource in used if verb == "patch"}
    roles = yaml.safe_load_all((Path(__file__).parents[3] / "argo" / "install" / "roles.yaml").read_text())
    role = next(one for one in roles if (one["kind"], one["metadata"]["name"]) == ("Role", "argotune-rollout"))
    granted = {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == needed
