"""``benchmarks/idle``: the causes of the time to the first step, the sequential order, and the shaped cluster."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
import yaml

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"idle_{name}", ROOT / "benchmarks" / "idle" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


idle, shaped = load("measure"), load("shaped")
DAY = "2026-11-24T10:"


def node(template: str, start: str, end: str, kind: str = "Pod") -> dict[str, Any]:
    times = {"startedAt": f"{DAY}{start}Z", "finishedAt": f"{DAY}{end}Z"}
    return {"templateName": template, "type": kind, "phase": "Succeeded", **times}


def workflow(*nodes: dict[str, Any]) -> dict[str, Any]:
    status = {"nodes": {str(number): one for number, one in enumerate(nodes)}}
    return {"metadata": {"creationTimestamp": f"{DAY}00:00Z"}, "status": status}


def test_causes_add_up_to_the_time_of_the_first_step() -> None:
    run = workflow(
        node("preflight", "00:02", "00:10"),
        node("provision", "00:10", "03:00", "Retry"),
        node("provision", "00:10", "00:40"),
        node("download", "00:10", "01:00"),
        node("fetch", "00:10", "02:00"),
    )
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": f"{DAY}03:05Z"}
    running = {"name": "main", "state": {"running": {"startedAt": f"{DAY}04:05Z"}}}
    pod = {"status": {"conditions": [scheduled], "containerStatuses": [running]}}
    log = (
        f"{DAY}04:06.123456789Z loading\n{DAY}05:00.500000001Z step 1/10 loss 2.000\n{DAY}05:09.5Z step 2/10 loss 1.9"
    )
    moment = idle.first_step_time(log)
    found = idle.causes(run, pod, moment)
    assert list(found.values()) == pytest.approx([10, 170, 5, 60, 55.5])
    assert sum(found.values()) == pytest.approx(300.5)
    assert idle.first_step_time("") is None


def test_the_sequential_order_is_that_of_a_compiled_workflow() -> None:
    document = compiled("smollm2_135m_on_cluster.yaml")
    tasks = {
        task["name"]: task for one in document["spec"]["templates"] for task in one.get("dag", {}).get("tasks", [])
    }
    assert tasks["provision"]["depends"] == tasks["download"]["depends"], "in parallel"
    idle.make_sequential(document)
    assert tasks["provision"]["depends"] == "download"
    with pytest.raises(SystemExit, match="do not run in parallel"):
        idle.make_sequential(document)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "rows").write_bytes(bytes(range(100)))
    (tmp_path / "v2/image/manifests").mkdir(parents=True)
    (tmp_path / "v2/image/manifests/1").write_text('{"mediaType": "application/vnd.oci.image.manifest.v1+json"}')
    server = shaped.file_server(tmp_path, 0, 10**9)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_are_served_whole_and_in_ranges(address: str) -> None:
    assert requests.get(f"{address}/rows", timeout=60).content == bytes(range(100))
    for header, expected in (
        ("bytes=10-19", range(10, 20)),
        ("bytes=95-", range(95, 100)),
        ("bytes=-5", range(95, 100)),
    ):
        response = requests.get(f"{address}/rows", headers={"Range": header}, timeout=60)
        assert (response.status_code, response.content) == (206, bytes(expected))
        assert response.headers["Content-Range"] == f"bytes {expected.start}-{expected.stop - 1}/100"
    assert requests.head(f"{address}/rows", timeout=60).headers["Content-Length"] == "100"
    assert requests.get(f"{address}/missing", timeout=60).status_code == 404
    assert requests.get(f"{address}/v2/", timeout=60).status_code == 200
    kind = requests.get(f"{address}/v2/image/manifests/1", timeout=60).headers["Content-Type"]
    assert kind == "application/vnd.oci.image.manifest.v1+json"


def test_a_node_joins_and_leaves_with_its_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    node_labels: dict[str, str] = {}
    labels = {shaped.RUN_LABEL: "uid", "app": "x", "karpenter.sh/nodepool": "kaito"}
    claims = [{"metadata": {"name": "a00", "labels": labels, "creationTimestamp": f"{DAY}00:00Z"}}]

    def kubectl(verb: str, kind: str, *arguments: str) -> dict[str, Any]:
        if verb == "label":
            for word in arguments[1:]:
                key, equals, value = word.partition("=")
                if equals:
                    node_labels[key] = value
                else:
                    node_labels.pop(key.removesuffix("-"), None)
        if verb == "patch":
            claims[0] |= json.loads(arguments[-1])
        return {"items": claims} if kind == "nodeclaims" else {"metadata": {"labels": node_labels}}

    def play(minutes: int) -> None:
        shaped.play_provisioner("local", 60, datetime(2026, 11, 24, 10, minutes, 1, tzinfo=UTC))

    monkeypatch.setattr(shaped, "_kubectl", kubectl)
    play(0)
    assert (node_labels, "status" in claims[0]) == ({}, False)
    play(1)
    assert node_labels == {shaped.RUN_LABEL: "uid", "app": "x"}
    status: Any = claims[0]["status"]
    assert (status["nodeName"], status["conditions"][-1]["type"]) == ("local", "Ready")
    claims.clear()
    play(2)
    assert shaped.RUN_LABEL not in node_labels


def compiled(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "argo" / name).read_text())
    return document
