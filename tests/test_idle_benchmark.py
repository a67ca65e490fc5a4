"""``benchmarks/idle/measure.py``: the causes of the time to the first step, and the sequential order."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("idle", ROOT / "benchmarks" / "idle" / "measure.py")
assert SPEC and SPEC.loader
idle = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(idle)
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


def compiled(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "argo" / name).read_text())
    return document
