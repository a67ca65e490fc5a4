"""The fake Kubernetes API responds like the real one, to the kubernetes client and to kubectl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from certificates import write_certificate
from kubernetes import client, config, watch
from kubernetes.client import ApiException
from kubernetes_server import KubernetesServer

NS = "argotune"


@pytest.fixture
def api(cluster: KubernetesServer, tmp_path: Path) -> client.ApiClient:
    configuration = client.Configuration()
    config.load_kube_config(str(tmp_path / "kubeconfig"), client_configuration=configuration)
    configuration.retries = False
    return client.ApiClient(configuration)


@pytest.fixture
def custom(api: client.ApiClient) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(api)


def deployment(image: str = "serve:1", **labels: str) -> dict[str, Any]:
    containers = [{"name": "serve", "image": image, "ports": [{"containerPort": 5000}]}]
    template = {"metadata": {"labels": {"app": "phi"}}, "spec": {"containers": containers}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "phi"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "phi", "labels": labels}, "spec": spec}


def code(error: pytest.ExceptionInfo[ApiException]) -> tuple[int, str]:
    return error.value.status, json.loads(error.value.body)["reason"]


def apply(api: client.ApiClient, body: dict[str, Any], manager: str, *, force: bool = False) -> Any:
    return client.AppsV1Api(api).patch_namespaced_deployment(
        "phi",
        NS,
        body,
        field_manager=manager,
        force=force,
        _content_type="application/apply-patch+yaml",
    )


def test_objects_are_made_once_read_changed_and_removed(api: client.ApiClient, cluster: KubernetesServer) -> None:
    core = client.CoreV1Api(api)
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="settings"), data={"a": "1"})
    made = core.create_namespaced_config_map(NS, body)
    assert made.metadata.uid and made.metadata.creation_timestamp
    with pytest.raises(ApiException) as twice:
        core.create_namespaced_config_map(NS, body)
    assert code(twice) == (409, "AlreadyExists")
    core.patch_namespaced_config_map("settings", NS, {"data": {"b": "2"}})
    made.data = {"a": "3"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("settings", NS, made)
    assert code(stale) == (409, "Conflict")
    assert core.read_namespaced_config_map("settings", NS).data == {"a": "1", "b": "2"}
    core.delete_namespaced_config_map("settings", NS)
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("settings", NS)
    assert code(gone) == (404, "NotFound")
    assert cluster.verbs() == {
        ("create", "", "configmaps"),
        ("patch", "", "configmaps"),
        ("update", "", "configmaps"),
    } | {(verb, "", "configmaps") for verb in ("get", "delete")}


def test_requests_without_token_or_permission_are_rejected(api: client.ApiClient, cluster: KubernetesServer) -> None:
    cluster.forbidden.add(("list", "secrets"))
    core = client.CoreV1Api(api)
    with pytest.raises(ApiException) as forbidden:
        core.list_namespaced_secret(NS)
    assert code(forbidden) == (403, "Forbidden")
    stranger = client.ApiClient(client.Configuration(host=cluster.url))
    with pytest.raises(ApiException) as unknown:
        client.CoreV1Api(stranger).list_namespaced_secret(NS)
    assert code(unknown) == (401, "Unauthorized")


def test_invalid_names_labels_namespaces_and_kinds_are_rejected(
    custom: client.CustomObjectsApi, api: client.ApiClient, cluster: KubernetesServer
) -> None:
    core = client.CoreV1Api(api)
    for body, namespace, status in (
        ({"metadata": {"name": "Upper"}}, NS, 422),
        ({"metadata": {"name": "a", "labels": {"run": "x" * 64}}}, NS, 422),
        ({"metadata": {"name": "a"}}, "nowhere", 404),
        ({"metadata": {"name": "a"}, "kind": "Secret", "apiVersion": "v1"}, NS, 400),
    ):
        with pytest.raises(ApiException) as refused:
            core.create_namespaced_config_map(namespace, {"apiVersion": "v1", "kind": "ConfigMap"} | body)
        assert refused.value.status == status, body
    cluster.without("karpenter.sh")
    with pytest.raises(ApiException) as absent:
        custom.list_cluster_custom_object("karpenter.sh", "v1", "nodepools")
    assert absent.value.status == 404


def test_lists_select_and_come_in_pages(api: client.ApiClient, cluster: KubernetesServer) -> None:
    for number in range(5):
        labels = {"run": "a" if number % 2 else "b", "n": str(number)}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p{number}", "namespace": NS, "labels": labels},
        }
        spec = {"nodeName": f"node{number}", "containers": [{"name": "main"}]}
        cluster.put({**pod, "spec": spec, "status": {"phase": "Running"}})
    core = client.CoreV1Api(api)

    def names(**query: Any) -> list[str]:
        return [item.metadata.name for item in core.list_namespaced_pod(NS, **query).items]

    assert names(label_selector="run=a") == ["p1", "p3"]
    assert names(label_selector="run!=a,n in (0, 2)") == ["p0", "p2"]
    assert names(label_selector="!run") == []
    assert names(label_selector="n notin (1,2,3),run") == ["p0", "p4"]
    assert names(field_selector="spec.nodeName=node3,status.phase=Running") == ["p3"]
    first = core.list_namespaced_pod(NS, limit=2)
    assert [len(first.items), first.metadata.remaining_item_count] == [2, 3]
    assert len(core.list_namespaced_pod(NS, limit=9, _continue=first.metadata._continue).items) == 3
    cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later", "namespace": NS}})
    cluster.compact()
    with pytest.raises(ApiException) as old:
        core.list_namespaced_pod(NS, limit=2, _continue=first.metadata._continue)
    assert code(old) == (410, "Expired")


def test_status_and_spec_are_written_apart_and_generations_count_the_spec(api: client.ApiClient) -> None:
    apps = client.AppsV1Api(api)
    made = apps.create_namespaced_deployment(NS, {**deployment(), "status": {"replicas": 9}})
    assert made.status is None and made.metadata.generation == 1
    received = apps.patch_namespaced_deployment_status("phi", NS, {"status": {"replicas": 1}, "spec": {"replicas": 7}})
    assert (received.status.replicas, received.spec.replicas, received.metadata.generation) == (1, 1, 1)
    scaled = apps.patch_namespaced_deployment_scale("phi", NS, {"spec": {"replicas": 3}})
    assert (scaled.spec.replicas, scaled.status.replicas) == (3, 1)
    now = apps.read_namespaced_deployment("phi", NS)
    assert (now.spec.replicas, now.metadata.generation, now.status.replicas) == (3, 2, 1)
    with pytest.raises(ApiException) as refused:
        apps.patch_namespaced_deployment("phi", NS, {"spec": {"selector": {"matchLabels": {"app": "other"}}}})
    assert code(refused) == (422, "Invalid")


def test_patches_of_each_kind(api: client.ApiClient) -> None:
    apps = client.AppsV1Api(api)
    apps.create_namespaced_deployment(NS, deployment())
    side = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}}

    def containers(kind: str, body: Any) -> list[str]:
        new = apps.patch_namespaced_deployment("phi", NS, body, _content_type=kind)
        return [container.image for container in new.spec.template.spec.containers]

    assert containers("application/strategic-merge-patch+json", side) == ["serve:1", "side:1"]
    path = "/spec/template/spec/containers/0/image"
    replaced = [{"op": "test", "path": path, "value": "serve:1"}, {"op": "replace", "path": path, "value": "serve:2"}]
    assert containers("application/json-patch+json", replaced) == ["serve:2", "side:1"]
    with pytest.raises(ApiException) as failed:
        containers("application/json-patch+json", replaced)
    assert failed.value.status == 422
    assert containers("application/merge-patch+json", side) == ["side:1"]


def test_apply_owns_fields_conflicts_and_takes_back(api: client.ApiClient, cluster: KubernetesServer) -> None:
    first = apply(api, deployment(team="a", tier="gold"), "argotune")
    assert [entry.manager for entry in first.metadata.managed_fields] == ["argotune"]
    again = apply(api, deployment(team="a", tier="gold"), "argotune")
    assert again.metadata.resource_version == first.metadata.resource_version
    client.AppsV1Api(api).patch_namespaced_deployment("phi", NS, {"spec": {"replicas": 5}}, field_manager="hpa")
    with pytest.raises(ApiException) as conflict:
        apply(api, deployment(team="a"), "argotune")
    causes = json.loads(conflict.value.body)["details"]["causes"]
    assert code(conflict) == (409, "Conflict")
    assert causes == [{"reason": "FieldManagerConflict", "message": 'conflict with "hpa"', "field": ".spec.replicas"}]
    without = deployment(team="a")
    del without["spec"]["replicas"]
    kept = apply(api, without, "argotune")
    # What only argotune owned and no longer names goes; what the autoscaler took stays.
    assert kept.metadata.labels == {"team": "a"} and kept.spec.replicas == 5
    forced = apply(api, deployment(image="serve:2", team="a"), "argotune", force=True)
    assert forced.spec.replicas == 1 and forced.spec.template.spec.containers[0].image == "serve:2"
    two = deployment(image="serve:2", team="a")
    two["spec"]["template"]["spec"]["containers"].append(
        {"name": "side", "image": "side:1", "env": [{"name": name, "value": "1"} for name in "abcdef"]}
    )
    assert len(apply(api, two, "argotune").spec.template.spec.containers) == 2
    assert len(apply(api, deployment(image="serve:2"), "argotune").spec.template.spec.containers) == 1
    assert cluster.verbs() == {("patch", "apps", "deployments")}


def test_dry_runs_change_nothing(api: client.ApiClient, cluster: KubernetesServer) -> None:
    apps = client.AppsV1Api(api)
    assert apps.create_namespaced_deployment(NS, deployment(), dry_run="All").metadata.generation == 1
    assert cluster.read("deployments", "phi", NS) is None
    apps.create_namespaced_deployment(NS, deployment())
    before = cluster.read("deployments", "phi", NS)
    apps.patch_namespaced_deployment("phi", NS, {"spec": {"replicas": 4}}, dry_run="All")
    apps.delete_namespaced_deployment("phi", NS, dry_run="All")
    assert cluster.read("deployments", "phi", NS) == before


def test_deletion_waits_for_finalizers_and_includes_owned_objects(
    custom: client.CustomObjectsApi, cluster: KubernetesServer
) -> None:
    pool = {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "run"}}
    made = custom.create_cluster_custom_object("karpenter.sh", "v1", "nodepools", pool)
    owner = {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "name": "run", "uid": made["metadata"]["uid"]}
    metadata = {"name": "run-x", "ownerReferences": [owner], "finalizers": ["karpenter.sh/termination"]}
    cluster.put({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": metadata})
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
    with pytest.raises(ApiException) as refused:
        custom.delete_cluster_custom_object("karpenter.sh", "v1", "nodepools", "run", body=wrong)
    assert code(refused) == (409, "Conflict")
    custom.delete_cluster_custom_object("karpenter.sh", "v1", "nodepools", "run")
    claim = cluster.read("nodeclaims", "run-x")
    assert claim and claim["metadata"]["deletionTimestamp"]
    done = {"metadata": {"finalizers": None}}
    custom.patch_cluster_custom_object("karpenter.sh", "v1", "nodeclaims", "run-x", done)
    assert cluster.read("nodeclaims", "run-x") is None


def test_watches_tell_changes_bookmark_and_forgotten_versions(
    api: client.ApiClient, cluster: KubernetesServer
) -> None:
    core = client.CoreV1Api(api)
    start = core.list_namespaced_pod(NS).metadata.resource_version
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": NS, "labels": {"run": "a"}}}
    cluster.put(pod)
    cluster.put({**pod, "metadata": {"name": "elsewhere", "namespace": "default", "labels": {"run": "a"}}})
    received: list[tuple[str, str]] = []
    stream = watch.Watch().stream(
        core.list_namespaced_pod,
        NS,
        label_selector="run=a",
        resource_version=start,
        allow_watch_bookmarks=True,
        timeout_seconds=30,
    )
    for event in stream:
        metadata = event["raw_object"]["metadata"]
        received.append((event["type"], metadata.get("name", "")))
        if received[-1][0] == "ADDED":
            cluster.put({**pod, "status": {"phase": "Running"}})
        elif received[-1][0] == "MODIFIED":
            cluster.put({**pod, "metadata": {**pod["metadata"], "labels": {"run": "b"}}})
        elif received[-1][0] == "DELETED":
            cluster.end_watches()
        else:
            break
    assert received == [("ADDED", "p"), ("MODIFIED", "p"), ("DELETED", "p"), ("BOOKMARK", "")]
    cluster.compact()
    with pytest.raises(ApiException) as old:
        list(watch.Watch().stream(core.list_namespaced_pod, NS, resource_version=start, timeout_seconds=30))
    assert old.value.status == 410


def test_controllers_react_and_hooks_see_calls(api: client.ApiClient, cluster: KubernetesServer) -> None:
    seen: list[str] = []

    def controller(kind: str, document: dict[str, Any]) -> None:
        seen.append(f"{kind} {document['kind']}")
        if (kind, document["kind"]) == ("ADDED", "Deployment"):
            cluster.put({**document, "status": {"readyReplicas": 1}})

    def hook(call: Any) -> None:
        if str(call) == "get deployments":
            cluster.put({**deployment(late="yes"), "metadata": {"name": "late", "namespace": NS}})

    cluster.controllers.append(controller)
    cluster.every_call.append(hook)
    apps = client.AppsV1Api(api)
    assert apps.create_namespaced_deployment(NS, deployment()).status is None
    assert apps.read_namespaced_deployment("phi", NS).status.ready_replicas == 1
    assert cluster.read("deployments", "late", NS)
    assert seen[:2] == ["ADDED Deployment", "MODIFIED Deployment"]


def test_logs_are_those_the_test_gave(api: client.ApiClient, cluster: KubernetesServer) -> None:
    containers = [{"name": "main"}, {"name": "wait"}]
    metadata = {"name": "p", "namespace": NS}
    cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}})
    cluster.logs[NS, "p", "main"] = "one\ntwo\nthree\n"
    core = client.CoreV1Api(api)
    assert core.read_namespaced_pod_log("p", NS, container="main") == "one\ntwo\nthree\n"
    assert core.read_namespaced_pod_log("p", NS, tail_lines=1) == "three\n"
    with pytest.raises(ApiException, match="waiting to start"):
        core.read_namespaced_pod_log("p", NS, container="wait")
    assert ("get", "", "pods/log") in cluster.verbs()


def test_permissions_can_be_queried(api: client.ApiClient, cluster: KubernetesServer) -> None:
    cluster.forbidden.add(("create", "nodepools"))

    def may(verb: str) -> bool:
        attributes = client.V1ResourceAttributes(group="karpenter.sh", resource="nodepools", verb=verb)
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        return bool(client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed)

    assert [may("create"), may("get")] == [False, True]


def test_faults_reach_the_client_and_watchers(api: client.ApiClient, cluster: KubernetesServer) -> None:
    core = client.CoreV1Api(api)
    cluster.faults.fail("429", 1)
    with pytest.raises(ApiException) as busy:
        core.list_namespaced_pod(NS)
    assert code(busy) == (429, "TooManyRequests") and busy.value.headers["Retry-After"]
    cluster.faults.fail("truncated", 1)
    with pytest.raises(Exception, match="IncompleteRead"):
        core.list_namespaced_pod(NS)
    assert cluster.faults.calls == ["list pods", "list pods"]


def test_another_process_uses_it(cluster: KubernetesServer, tmp_path: Path) -> None:
    program = (
        "from kubernetes import client, config; config.load_kube_config();"
        "print([n.metadata.name for n in client.CoreV1Api().list_namespace().items])"
    )
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['argotune', 'default', 'kube-system']"
    assert [(call.user, str(call)) for call in cluster.calls] == [("tester", "list namespaces")]


def test_kubectl_takes_it_for_a_cluster(cluster: KubernetesServer, tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    # Over plain HTTP kubectl sends no token.
    cluster.use_tls(*write_certificate(tmp_path))
    cluster.kubeconfig(tmp_path / "kubeconfig")
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}

    def kubectl_output(*words: str, stdin: str = "", status: int = 0) -> str:
        done = subprocess.run(
            [kubectl, *words], env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    manifest = json.dumps(deployment())
    flags = ("apply", "--server-side", "--validate=false", "-f", "-")
    assert "deployment.apps/phi serverside-applied" in kubectl_output(*flags, stdin=manifest)
    assert "conflict" in kubectl_output(
        *flags, "--field-manager=another", stdin=json.dumps(deployment("serve:2")), status=1
    )
    assert kubectl_output("get", "deployment", "phi", "-o", "name").strip() == "deployment.apps/phi"
    assert "scaled" in kubectl_output("scale", "deployment", "phi", "--replicas=4")
    assert kubectl_output("get", "deployment", "phi", "-o", "jsonpath={.spec.replicas}") == "4"
    assert "deleted" in kubectl_output("delete", "deployment", "phi", "--wait=false")
    assert "(NotFound)" in kubectl_output("get", "deployment", "phi", status=1)
