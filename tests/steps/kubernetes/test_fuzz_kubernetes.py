"""Damaged kubeconfigs and answers of the Kubernetes API end in an object, or in an error with a fix."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fuzz
import pytest
import yaml
from mutations import mutate_bytes, mutate_document, mutate_json
from scripted_server import ScriptedServer, response

from steps.kubernetes import client
from workflows.cluster import kubernetes_api, nodes
from workflows.cluster.failures import ApiFailure

POD = {"kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "1"}, "status": {"phase": "Running"}}
PODS = {"kind": "PodList", "metadata": {"continue": ""}, "items": [POD, POD]}
STATUS = {"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "x", "details": {"name": "p"}}
CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "SERVER", "insecure-skip-tls-verify": True}}],
    "users": [{"name": "u", "user": {"token": "t"}}, {"name": "v", "user": {"exec": {"command": "none", "args": []}}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "d"}}],
}
NODES = {"compressedNodes": "H4sIAAAAAAACA6uu5QIABrCh3QMAAAA="}
STATUSES = ("200 OK", "404 Not Found", "409 Conflict", "403 Forbidden", "400 Bad Request", "418 Teapot")


def damaged_yaml(chance: random.Random, value: Any) -> bytes:
    changed = mutate_json(chance, value) if chance.random() < 0.7 else value
    content = yaml.safe_dump(changed).encode("utf-8", "surrogatepass")
    return mutate_bytes(chance, content) if chance.random() < 0.5 else content


def read_kubeconfig(path: Path, url: str) -> Callable[[bytes], Any]:
    def read(content: bytes) -> None:
        path.write_bytes(content.replace(b"SERVER", url.encode()))
        try:
            client.connect(lambda seconds: None).get(client.PODS, "p", "d")
        finally:
            kubernetes_api.connect(str(path), None, "d", lambda seconds: None).get("w")

    return read


def read_answers(_: bytes) -> None:
    api = client.connect(lambda seconds: None)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: api.get(client.PODS, "p", "d"),
        lambda: api.list(client.PODS, "d"),
        lambda: api.create(client.PODS, POD, "d"),
        lambda: api.delete(client.PODS, "p", "d"),
        lambda: api.log("p", "main", "d"),
    )
    errors = []
    for call in calls:
        try:
            call()
        except fuzz.StepError as error:
            errors.append(error)
    if errors:
        raise errors[0]


CREATE: dict[str, Callable[[random.Random], bytes]] = {
    "kubeconfig": lambda chance: damaged_yaml(chance, CONFIG),
    "object": lambda chance: mutate_document(chance, chance.choice([POD, PODS])),
    "status": lambda chance: mutate_document(chance, STATUS),
}


def run(tmp_path: Path, kind: str, count: int) -> None:
    if kind == "compressed nodes":
        fuzz.check(kind, nodes.read_nodes, lambda c: {"status": mutate_json(c, NODES)}, count, min_refused=0)
        return
    damaged = b""

    def respond(method: str, target: str, headers: Mapping[str, str]) -> bytes:
        status = STATUSES[len(damaged) % len(STATUSES)] if kind == "status" else STATUSES[0]
        return response(b"{}" if kind == "kubeconfig" else damaged, status)

    with ScriptedServer(respond) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        patch.setattr(client, "MAX_PAGES", 5)
        patch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        read = read_kubeconfig(tmp_path / "kubeconfig", server.url)
        if kind != "kubeconfig":
            (tmp_path / "kubeconfig").write_text(yaml.safe_dump(CONFIG).replace("SERVER", server.url))

            def read(content: bytes) -> None:
                nonlocal damaged
                damaged = content
                read_answers(content)

        fuzz.check(f"kubernetes {kind}", read, CREATE[kind], count, refusals=(ApiFailure,))


@pytest.mark.parametrize(
    ("kind", "count"), [*fuzz.cases(CREATE, 40, parts=len(CREATE)), *fuzz.cases(["compressed nodes"], 40)]
)
def test_damaged_answers_are_refused(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)
