"""Concurrent tasks: items that fan out, independent tasks, and the limits of parallelism."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runner_documents import (
    dag,
    echo,
    exits,
    inputs,
    leaf,
    log_text,
    phases,
    run,
    task,
    workflow,
    writer,
)

from workflows.runner.outcome import Outcome


def test_items_fan_out_and_their_outputs_are_gathered(tmp_path: Path) -> None:
    items = ["x", 2, {"k": "v", "n": 1}]
    document = workflow(
        dag(
            task("fan", "one", withItems=items, arguments={"text": "{{item}}"}),
            task(
                "by-key",
                "one",
                withItems=[{"k": "v"}, {"k": "w"}],
                when="{{item.k}} == w",
                arguments={"text": "{{item.k}}"},
            ),
            task("after", "echo", depends="fan && by-key", arguments={"text": "{{tasks.fan.outputs.parameters.out}}"}),
        ),
        writer("one", "{{inputs.parameters.text}}", inputs=inputs("text")),
        echo(),
    )
    outcome = run(tmp_path, document)
    assert outcome.phase == "Succeeded"
    assert json.loads(log_text(tmp_path, "after")) == ["x", "2", '{"k":"v","n":1}']
    assert [outcome.nodes[f"fan.{i}"].task for i in range(2)] == ["fan(0:x)", "fan(1:2)"]
    assert phases(outcome)["by-key.0"] == "Skipped" and outcome.outputs["by-key.1"] == {"out": "w"}
    assert outcome.nodes["fan"].type == "TaskGroup"


def test_items_from_a_parameter(tmp_path: Path) -> None:
    document = workflow(
        dag(
            task("list"),
            task(
                "fan",
                "echo",
                depends="list",
                withParam="{{tasks.list.outputs.parameters.out}}",
                arguments={"text": "<{{item}}>"},
            ),
            task("none", "echo", withParam="[]", arguments={"text": "{{item}}"}),
            task("wrong", "echo", depends="none", withParam="{{workflow.name}}", arguments={"text": "{{item}}"}),
            dag_fail_fast=False,
        ),
        writer("list", '["a b", {"k": 1}]'),
        echo(),
    )
    outcome = run(tmp_path, document)
    assert (log_text(tmp_path, "fan.0"), log_text(tmp_path, "fan.1")) == ("<a b>", '<{"k":1}>')
    assert phases(outcome)["none"] == "Skipped"
    assert phases(outcome)["wrong"] == "Error" and "not a JSON list: test-1" in outcome.nodes["wrong"].message


def test_any_succeeded_and_all_failed_select_the_next_tasks(tmp_path: Path) -> None:
    document = workflow(
        dag(
            task("mixed", "exits", withItems=["0", "1"], arguments={"code": "{{item}}"}),
            task("bad", "exits", withItems=["1", "1"], arguments={"code": "{{item}}"}),
            task("any", "exits", depends="mixed.AnySucceeded"),
            task("all", "exits", depends="bad.AllFailed"),
            task("not-all", "exits", depends="mixed.AllFailed"),
            dag_fail_fast=False,
        ),
        exits(),
    )
    got = phases(run(tmp_path, document))
    assert (got["mixed"], got["any"], got["all"], got["not-all"]) == ("Failed", "Succeeded", "Succeeded", "Omitted")


def overlap(outcome: Outcome) -> int:
    """Return the maximum number of concurrent containers."""
    leaves = [node for node in outcome.nodes.values() if node.type == "Container"]
    moments = [(n.started_at or 0, 1) for n in leaves] + [(n.finished_at or 0, -1) for n in leaves]
    most = now = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


# Each container waits for all others, so that they must run concurrently.
MEET = """import os, sys, time
folder, me, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.makedirs(folder, exist_ok=True); open(os.path.join(folder, me), 'w').close()
until = time.time() + 120
while len(os.listdir(folder)) < size:
    if time.time() > until: sys.exit(1)
    time.sleep(0.01)
"""


def test_independent_tasks_run_concurrently(tmp_path: Path) -> None:
    meet = leaf("meet", MEET, str(tmp_path / "m"), "{{inputs.parameters.me}}", "3", inputs=inputs("me"))
    outcome = run(
        tmp_path, workflow(dag(task("x", "meet", withItems=["1", "2", "3"], arguments={"me": "{{item}}"})), meet)
    )
    assert outcome.phase == "Succeeded"
    assert overlap(outcome) == 3


@pytest.mark.parametrize("where", ["workflow", "dag"])
def test_parallelism_is_a_limit(tmp_path: Path, where: str) -> None:
    spec: dict[str, Any] = {"parallelism": 1} if where == "workflow" else {}
    main = dag(
        task("x", "exits", withItems=[0, 0, 0]), task("y", "exits"), **({"parallelism": 1} if where == "dag" else {})
    )
    outcome = run(tmp_path, workflow(main, exits(), **spec))
    assert outcome.phase == "Succeeded"
    assert overlap(outcome) == 1
