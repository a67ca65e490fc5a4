"""A fake Deployment controller and kubelet, whose pods answer over real HTTP.

Each pod has its address (127.0.0.0/8) and the server of ``adapter_server``; a mounted ConfigMap is written to its file
whenever it changes.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import requests
from adapter_server import RunningServer
from kubernetes_server import KubernetesServer, condition

from steps.kubernetes import client as kubernetes_client
from steps.oci import reference
from steps.oci.registry import pull_data
from steps.rollout import service_release
from steps.rollout.service_release import Release, Releases
from steps.rollout.service_update import Rollout, deploy
from steps.serving import desired_adapters

Object = dict[str, Any]
NAMESPACE = "argotune"


class Servers:
    """Runs the pods of Deployments; ``trouble`` makes new pods fail, and ``answering`` starts their servers."""

    def __init__(self, cluster: KubernetesServer, folder: Path, *, answering: bool = True) -> None:
        self.cluster, self.folder, self.answering = cluster, folder, answering
        self.pods: dict[str, RunningServer] = {}
        self.trouble: Object | None = None
        """Status of new pods instead of ready."""
        self.image_trouble: Object | None = None
        """Status of new pods that mount images."""
        self.empty_images = False
        """True to mount empty folders instead of images, like a runtime without image volumes."""
        self.refused = ""
        """Reason why no pod that mounts an image is created."""
        self.min_ready: dict[str, int] = {}
        """Minimum number of ready pods of each Deployment after the first one was ready."""
        self._numbers = itertools.count(1)
        cluster.controllers.append(self.on_event)

    def close(self) -> None:
        self.cluster.controllers.clear()
        for running in list(self.pods.values()):
            running.close()

    def on_event(self, event: str, document: Object) -> None:
        kind = document["kind"]
        if kind == "Pod":
            self._write_ready()
        elif kind == "Deployment":
            self._reconcile(document, gone=event == "DELETED")
        elif kind == "ConfigMap" and event != "DELETED":
            for pod in self.cluster.all("pods"):
                self._mount(pod)

    def pods_of(self, deployment: str) -> list[Object]:
        return [pod for pod in self.cluster.all("pods") if pod["metadata"]["labels"].get("owner") == deployment]

    def ready(self, **labels: str) -> list[Object]:
        return [
            pod
            for pod in self.cluster.all("pods")
            if labels.items() <= pod["metadata"]["labels"].items()
            and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])
        ]

    def service(self, name: str) -> str:
        """Return the current URL of a pod behind a Service, from a file that forked processes share."""
        service = self.cluster.read("services", name, NAMESPACE)
        assert service
        select = service["spec"]["selector"].items()
        ready = json.loads((self.folder / "ready.json").read_text())
        return next(f"http://{pod['ip']}:5000" for pod in ready if select <= pod["labels"].items())

    def _write_ready(self) -> None:
        ready = [{"labels": pod["metadata"]["labels"], "ip": pod["status"]["podIP"]} for pod in self.ready()]
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / ".ready.new"
        new.write_text(json.dumps(ready))
        new.replace(self.folder / "ready.json")

    def _reconcile(self, deployment: Object, *, gone: bool) -> None:
        name = deployment["metadata"]["name"]
        template = deployment["spec"]["template"]
        revision = template["metadata"]["annotations"]["argotune.dev/revision"]
        desired = 0 if gone else deployment["spec"].get("replicas", 1)
        owned = self.pods_of(name)
        current = [pod for pod in owned if pod["metadata"]["annotations"]["argotune.dev/revision"] == revision]
        refused = bool(self.refused and mounted_images(template))
        for _ in range(0 if refused else desired - len(current)):
            current.append(self._start(name, template))
        up = [pod for pod in current if self._is_ready(pod)]
        old = [pod for pod in owned if pod not in current]
        # maxUnavailable 0: old pods are deleted when the new ones are ready.
        for pod in [*(old if gone or len(up) >= desired else []), *current[desired:]]:
            self._stop(pod)
        ready = len([pod for pod in self.pods_of(name) if self._is_ready(pod)])
        if ready and not gone:
            self.min_ready[name] = min(self.min_ready.get(name, ready), ready)
        if not gone:
            total = len(self.pods_of(name))
            status = {"observedGeneration": deployment["metadata"]["generation"], "replicas": total,
                      "updatedReplicas": len(current[:desired]), "availableReplicas": ready}  # fmt: skip
            if refused:
                status["conditions"] = [condition("ReplicaFailure", reason="FailedCreate", message=self.refused)]
            live = self.cluster.read("deployments", name, NAMESPACE)
            if live and live.get("status") != status:
                self.cluster.put({**live, "status": status})

    def _start(self, owner: str, template: Object, name: str = "", **labels: str) -> Object:
        number = next(self._numbers)
        name = name or f"{owner}-{number}"
        pid = os.getpid()
        ip = f"127.{pid >> 8 & 127 | 1}.{pid & 255}.{number}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**copy.deepcopy(template["metadata"]), "name": name, "namespace": NAMESPACE},
            "spec": copy.deepcopy(template["spec"]),
        }
        pod["metadata"]["labels"] |= {"owner": owner, **labels}
        ready = {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        trouble = self._trouble(pod)
        pod["status"] = copy.deepcopy(trouble) or ready
        if trouble is None and self.answering:
            self._serve(pod)
        return self.cluster.put(pod)

    def _trouble(self, pod: Object) -> Object | None:
        """Return the status of a new pod instead of ready."""
        return self.trouble or (self.image_trouble if mounted_images(pod) else None)

    def _serve(self, pod: Object) -> None:
        """Start the server of a pod."""
        name = pod["metadata"]["name"]
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        self._mount(pod)
        images = self._mount_images(pod, folder)
        running = RunningServer(folder / "adapters.json", folder / "pulled", (pod["status"]["podIP"], 5000), images)
        self.pods[name] = running
        if "readinessProbe" in pod["spec"]["containers"][0] and not self._probed(running.address):
            pod["status"]["conditions"] = []

    def _stop(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        with self.cluster.changed:
            record = self.cluster.get(self.cluster.resource("pods"), NAMESPACE, name)
            self.cluster.delete(record, {})
        if name in self.pods:
            self.pods.pop(name).close()

    def _mount(self, pod: Object) -> None:
        names = [volume["configMap"]["name"] for volume in pod["spec"].get("volumes", []) if "configMap" in volume]
        folder = self.folder / pod["metadata"]["name"]
        for name in names:
            config_map = self.cluster.read("configmaps", name, NAMESPACE)
            if config_map and folder.is_dir():
                new = folder / ".new"
                new.write_text(config_map["data"]["adapters.json"])
                new.replace(folder / "adapters.json")

    def _mount_images(self, pod: Object, folder: Path) -> Path | None:
        """Mount the images of a pod; return the folder in which its server looks for them."""
        (server,) = pod["spec"]["containers"]
        paths = {mount["name"]: folder / mount["mountPath"].lstrip("/") for mount in server.get("volumeMounts", [])}
        for volume, image in mounted_images(pod).items():
            paths[volume].mkdir(parents=True)
            if not self.empty_images:
                pull_data(reference.parse(image), paths[volume] / "data")
        folders = [one["value"] for one in server.get("env", []) if one["name"] == desired_adapters.IMAGES_VARIABLE]
        return folder / folders[0].lstrip("/") if folders else None

    @staticmethod
    def _probed(address: str) -> bool:
        """Return True if the readiness probe succeeds within 20 seconds."""
        end = time.monotonic() + 20
        while requests.get(f"{address}/ready", timeout=5).status_code != 200:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    @staticmethod
    def _is_ready(pod: Object) -> bool:
        return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])


def mounted_images(pod: Object) -> dict[str, str]:
    """Return references by volume of the images that a pod or a pod template mounts."""
    return {one["name"]: one["image"]["reference"] for one in pod["spec"].get("volumes", []) if "image" in one}


def plain_release(image: str) -> Release:
    """Return a release without adapters."""
    containers = [{"name": "server", "image": image}]
    return Release(
        {"metadata": {"labels": {}}, "spec": {"containers": containers}}, [], "", replicas=1
    ).with_revision()


def serve_with_canary(cluster: KubernetesServer, name: str, folder: Path) -> Servers:
    """Deploy the image ``one`` and a canary of ``two`` to the cluster of ``$KUBECONFIG``."""
    servers = Servers(cluster, folder, answering=False)
    client = kubernetes_client.connect()
    deploy(Rollout(client, name, end=1e12), plain_release("one"), None)
    deploy(Rollout(client, name, "canary", end=1e12), plain_release("two"), None)
    known = Releases(current=plain_release("one"), canary=plain_release("two"), percent=20)
    service_release.write_releases(client, name, known)
    return servers


def served_images(cluster: KubernetesServer) -> dict[str, str]:
    """Return images by Deployment."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in cluster.all("deployments")
    }
