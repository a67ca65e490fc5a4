"""Adapters mounted from their images, with and without support of the cluster or its nodes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes_server import KubernetesServer
from kubernetes_server_gates import Gate
from rollout_sample import NAME, nap, run, run_in_pod, settings_of, version
from serving_cluster import NAMESPACE, Servers, mounted_images

from steps.kubernetes import client as kubernetes_client
from steps.oci import reference
from steps.oci.registry import pull_data
from steps.rollout import service_change
from steps.rollout.settings import Settings
from steps.runtime.errors import StepError
from steps.serving import serving_client
from steps.serving.adapter_fetch import fetch_adapter
from steps.serving.desired_adapters import DesiredAdapter

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def cluster(cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesServer:
    run_in_pod(cluster, tmp_path, monkeypatch)
    cluster.image_volumes = "on"
    return cluster


@pytest.fixture
def settings(tmp_path: Path, images: dict[str, str]) -> Callable[..., Settings]:
    return functools.partial(settings_of, tmp_path / "work", images, hot_load=False)


def template(cluster: KubernetesServer, name: str = NAME) -> Any:
    document = cluster.read("deployments", name, NAMESPACE)
    assert document
    return document["spec"]["template"]


def warn_of_mounts(cluster: KubernetesServer, message: str) -> None:
    """Add the kubelet's event of a failed mount for each new pod that mounts images."""

    def warn(event: str, document: Any) -> None:
        if document["kind"] == "Pod" and event == "ADDED" and mounted_images(document):
            name = document["metadata"]["name"]
            cluster.put(
                {"apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{name}.1", "namespace": NAMESPACE},
                 "type": "Warning", "reason": "FailedMount", "message": message,
                 "involvedObject": {"kind": "Pod", "name": name}}
            )  # fmt: skip

    cluster.controllers.append(warn)


def loaded(servers: Servers) -> set[str]:
    """Return the folders from which adapters were loaded, relative to those of the pods."""
    return {
        str(Path(folder).relative_to(servers.folder / pod))
        for pod, running in servers.pods.items()
        for folder in running.server.adapters.values()
    }


def short_digest(images: dict[str, str], name: str) -> str:
    return images[name].rpartition(":")[2][:12]


def test_servers_mount_their_adapters(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str], capsys: Any
) -> None:
    two = [{"name": "tuned", "image": images["one"]}, {"name": "same", "image": images["one"]}]
    first = run(
        settings(adapters=[*two, {"name": "wide", "image": images["wide"]}], registry_secrets=["pull", "push"])
    )
    assert first.answer == f"I am {version(images, 'one')}."
    assert "mounted from their images" in capsys.readouterr().out
    assert loaded(servers) == {f"mnt/images/{short_digest(images, name)}/data" for name in ("one", "wide")}
    assert not list(servers.folder.glob("*/pulled"))
    spec = template(cluster)["spec"]
    assert mounted_images(template(cluster)) == {
        f"image-{short_digest(images, n)}": images[n] for n in ("one", "wide")
    }
    assert spec["imagePullSecrets"] == [{"name": "pull"}, {"name": "push"}]
    assert len(cluster.all("deployments")) == 1, "the dry run created an object"


def test_another_adapter_gets_new_servers(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    run(settings())
    started = set(servers.pods)
    run(settings())
    assert set(servers.pods) == started, "the same adapter needs no other servers"
    assert run(settings("two")).answer == f"I am {version(images, 'two')}."
    assert not started & set(servers.pods) and servers.min_ready[NAME] == 2
    assert loaded(servers) == {f"mnt/images/{short_digest(images, 'two')}/data"}
    assert list(mounted_images(template(cluster)).values()) == [images["two"]], "it mounts only its image"
    cluster.image_volumes = "off"  # existing objects keep their image volumes
    assert run(settings()).answer == f"I am {version(images, 'one')}."
    assert mounted_images(template(cluster)) == {}


def test_hot_loading_servers_mount_nothing(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    run(settings(hot_load=True))
    started = set(servers.pods)
    run(settings("two", hot_load=True))
    assert set(servers.pods) == started and mounted_images(template(cluster)) == {}
    assert not [call for call in cluster.calls if call.verb == "create"], "there was a dry run"
    run(settings("two"))
    assert not started & set(servers.pods) and mounted_images(template(cluster))


@pytest.mark.parametrize("gate", ["off", "unknown"])
def test_without_image_volumes_the_servers_pull(
    gate: Gate, cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str],
    capsys: Any,
) -> None:  # fmt: skip
    cluster.image_volumes = gate
    assert run(settings()).answer == f"I am {version(images, 'one')}."
    assert "pulled by the servers, because the cluster has no image volumes" in capsys.readouterr().out
    assert loaded(servers) == {f"pulled/{version(images, 'one')}"}
    names = {volume["name"] for volume in template(cluster)["spec"]["volumes"]}
    assert not {name for name in names if name.startswith("image-")}, "the image volume was sent"
    started = set(servers.pods)
    run(settings("two"))
    assert not started & set(servers.pods), "the servers were replaced"
    started = set(servers.pods)
    cluster.image_volumes = "on"  # an upgrade is no reason to replace servers
    run(settings("two"))
    assert set(servers.pods) == started
    run(settings())
    assert not started & set(servers.pods) and loaded(servers) == {f"mnt/images/{short_digest(images, 'one')}/data"}


def test_servers_pull_if_the_dry_run_is_forbidden(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str], capsys: Any
) -> None:
    cluster.forbidden.add(("create", "deployments"))
    assert run(settings()).answer == f"I am {version(images, 'one')}."
    assert "pulled by the servers, because the cluster rejects image volumes" in capsys.readouterr().out
    assert loaded(servers) == {f"pulled/{version(images, 'one')}"}


def waiting(reason: str, message: str, **more: Any) -> dict[str, Any]:
    container = {"name": "server", "image": "serve:1", "state": {"waiting": {"reason": reason, "message": message}}}
    return {"phase": "Pending", "conditions": [], "containerStatuses": [container | more]}


STARTED = {"lastState": {"terminated": {"reason": "StartError", "exitCode": 128, "message": "no such file"}}}
SILENT = {"phase": "Pending", "conditions": []}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        # Kubelets tell of an image to be mounted as of the container's own, and name it in the message alone.
        (waiting("ImagePullBackOff", 'Back-off pulling image "{image}": 401 Unauthorized'), "401 Unauthorized"),
        # containerd before 2.1
        (waiting("CreateContainerError", 'failed to generate spec: failed to mkdir "": mkdir'), "mkdir"),
        (waiting("CrashLoopBackOff", "back-off 10s restarting failed container", **STARTED), "no such file"),
        # A kubelet that is older than the API server, or whose gate is closed.
        (SILENT, "timed out waiting for the condition"),
        # Pod Security "restricted" before Kubernetes 1.33.
        ("refused", "restricted volume types"),
    ],
)
def test_servers_pull_if_the_nodes_cannot_mount(
    before: bool, trouble: Any, says: str, cluster: KubernetesServer, servers: Servers,
    settings: Callable[..., Settings], images: dict[str, str], capsys: Any,
) -> None:  # fmt: skip
    volume = f"image-{short_digest(images, 'wide')}"
    if before:
        run(settings())
    if trouble == "refused":
        servers.refused = f'pods "x" is forbidden: violates PodSecurity: restricted volume types (volume "{volume}")'
    else:
        servers.image_trouble = json.loads(json.dumps(trouble).replace("{image}", images["wide"]))
    message = f"Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[]: {says}"

    if trouble is SILENT:
        warn_of_mounts(cluster, message)
    assert run(settings("wide")).answer == f"I am {version(images, 'wide')}."
    (message,) = (line for line in capsys.readouterr().out.splitlines() if "cannot mount them" in line)
    assert says in message
    assert loaded(servers) == {f"pulled/{version(images, 'wide')}"} and mounted_images(template(cluster)) == {}
    assert len(servers.ready()) == 2 == len(cluster.all("pods"))
    assert len(cluster.all("configmaps")) == (3 if before else 2), "objects of the failed release remain"
    assert not before or servers.min_ready[NAME] == 2
    started = set(servers.pods)
    run(settings("wide"))
    assert set(servers.pods) == started, "the servers were replaced again"


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (waiting("ImagePullBackOff", 'Back-off pulling image "serve:1"'), "cannot pull image serve:1 "),
        (waiting("CreateContainerConfigError", 'secret "hub" not found'), 'secret "hub" not found'),
    ],
)
def test_other_failures_are_not_retried(
    trouble: Any, says: str, cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings],
    capsys: Any,
) -> None:  # fmt: skip
    servers.image_trouble = trouble
    with pytest.raises(StepError, match=says):
        run(settings())
    assert "cannot mount them" not in capsys.readouterr().out
    assert cluster.read("deployments", NAME, NAMESPACE) is None


def test_failed_mounts_of_other_volumes_are_not_final(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    message = f"unmounted volumes=[models], unattached volumes=[image-{short_digest(images, 'one')} models]: timed out"

    warn_of_mounts(cluster, message)
    servers.image_trouble = SILENT
    with pytest.raises(StepError, match=r"is not ready: unmounted volumes=\[models\]") as raised:
        run(settings(deadline_seconds=1))
    assert type(raised.value) is StepError


def test_servers_pull_if_a_node_mounts_an_empty_folder(
    servers: Servers, settings: Callable[..., Settings], images: dict[str, str], capsys: Any
) -> None:
    servers.empty_images = True
    assert run(settings()).answer == f"I am {version(images, 'one')}."
    assert loaded(servers) == {f"pulled/{version(images, 'one')}"}
    assert "pulling its image" in capsys.readouterr().out


def test_a_canary_mounts_its_adapter_until_and_after_promotion(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    client = kubernetes_client.connect(nap)
    run(settings())
    run(settings("two", canary=33))
    assert list(mounted_images(template(cluster, f"{NAME}-canary")).values()) == [images["two"]]
    service_change.promote(client, NAME, 30, nap)
    assert list(mounted_images(template(cluster)).values()) == [images["two"]]
    assert loaded(servers) == {f"mnt/images/{short_digest(images, 'two')}/data"}
    service_change.rollback(client, NAME, 30, nap)
    assert list(mounted_images(template(cluster)).values()) == [images["one"]]
    assert serving_client.complete(servers.service(NAME), "tuned", "x", 5, 120) == f"I am {version(images, 'one')}."
    assert servers.min_ready[NAME] == 2


def test_adapters_in_volumes_need_no_image_volume(
    cluster: KubernetesServer, servers: Servers, settings: Callable[..., Settings], images: dict[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = pull_data(reference.parse(images["one"]), tmp_path / "claim")
    claim = {"persistentVolumeClaim": {"claimName": "c"}}
    requested = settings(adapters=[{"name": "tuned", "path": str(folder)}], adapter_volumes={"tuned": claim})
    cluster.forbidden.add(("create", "deployments"))
    servers.trouble = waiting("CreateContainerConfigError", "seen")
    with pytest.raises(StepError, match="seen"):
        run(requested)
    assert not [call for call in cluster.calls if call.verb == "create"], "there was a dry run"


def test_unreadable_mounted_files_are_pulled(images: dict[str, str], tmp_path: Path) -> None:
    name, _, digest = images["one"].rpartition("@")
    adapter = DesiredAdapter("tuned", digest, image=name)
    mounted = pull_data(reference.parse(images["one"]), tmp_path / "images" / adapter.short_digest / "data")
    assert fetch_adapter(adapter, tmp_path / "pulled", str(tmp_path / "images")) == mounted
    (mounted / "adapter_model.safetensors").unlink()  # root can read any mode
    pulled = fetch_adapter(adapter, tmp_path / "pulled", str(tmp_path / "images"))
    assert pulled == tmp_path / "pulled" / adapter.version and (pulled / "adapter_model.safetensors").is_file()
