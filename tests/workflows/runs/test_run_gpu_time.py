"""GPU time of a run, from the node times of Argo and the outputs of its steps."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from argo_run import START, ArgoRun

from workflows.cluster.read_run import read_run
from workflows.runs import gpu_time, table
from workflows.runs.status import RunStatus

END = START + timedelta(minutes=100)


def run(*, created: bool = True, usd: float | None = 6.0, gpus: int = 1, **values: Any) -> ArgoRun:
    result = ArgoRun()
    nodes = {"gpus": gpus, "usdPerHour": usd, "created": created, **values}
    result.document["metadata"].setdefault("annotations", {})[gpu_time.NODES] = json.dumps(nodes)
    return result


def finished(argo: ArgoRun) -> RunStatus:
    """Nodes from minute 10 to 90; tune from 20 to 60, evaluate from 65 to 75."""
    argo.at(0).step("provision", "Running").at(10).step("provision", "Succeeded")
    argo.at(20).step("tune", "Running").at(60).step(
        "tune", "Succeeded", outputs={"train-seconds": "1800.0", "load-seconds": "300.0"}
    )
    argo.at(65).step("evaluate", "Running").at(75).step(
        "evaluate", "Succeeded", outputs={"evaluate-seconds": "420", "load-seconds": "60"}
    )
    argo.at(80).step("onExit.release", "Running").at(90).step("onExit.release", "Succeeded")
    return read_run(argo.now())


def test_created_nodes_are_paid_until_they_are_released() -> None:
    usage = gpu_time.usage(finished(run(gpus=2)), END)
    assert usage
    assert {cause: usage.minutes(cause) / 2 for cause in usage.seconds} == pytest.approx(
        {"training": 30, "evaluating": 7, "loading": 6, "idle": 37}
    )
    assert usage.usd() == pytest.approx(8.0)


def test_existing_nodes_are_paid_while_their_pods_run() -> None:
    usage = gpu_time.usage(finished(run(created=False)), END)
    assert usage
    assert (usage.minutes(), usage.minutes("idle")) == (pytest.approx(43), 0)


def test_a_running_step_counts_up_to_now() -> None:
    argo = run(created=False)
    argo.at(20).step("tune", "Running")
    usage = gpu_time.usage(read_run(argo.now()), START + timedelta(minutes=50))
    assert usage
    assert usage.minutes("training") == pytest.approx(30)


def test_trials_are_summed() -> None:
    """Four trials of ten minutes on a half of the node, of which the second failed."""
    status = finished(run(created=False, shares={"tune": 0.5}))
    tune = next(step for step in status.steps if step.key == "tune")
    trials = [
        replace(
            tune,
            key=f"search.trial({number}:learning-rate:0.5).tune",
            started=START + timedelta(minutes=10 * number),
            finished=START + timedelta(minutes=10 * number + 10),
            phase="Failed" if number == 1 else "Succeeded",
            outputs={} if number == 1 else {"train-seconds": "540", "load-seconds": "60"},
        )
        for number in range(4)
    ]
    usage = gpu_time.usage(replace(status, steps=trials), END)
    assert usage
    assert usage.minutes("training") == pytest.approx((3 * 9 + 10) / 2)
    assert usage.minutes("loading") == pytest.approx(3 / 2)


def test_an_evaluation_on_one_of_two_existing_nodes_is_paid_once() -> None:
    usage = gpu_time.usage(finished(run(created=False, gpus=2, shares={"evaluate": 0.5})), END)
    assert usage
    assert (usage.minutes("training"), usage.minutes("evaluating")) == (pytest.approx(2 * 30), pytest.approx(7))


def test_a_pending_step_is_not_paid_on_existing_nodes() -> None:
    status = finished(run(created=False))
    tune = next(step for step in status.steps if step.key == "tune")
    waiting = replace(tune, phase="Pending", finished=None, outputs={})
    assert gpu_time.usage(replace(status, steps=[waiting]), END) is None


def test_the_tables_show_it() -> None:
    status = finished(run())
    wide = dict(zip(table.header(wide=True), table.row(status, END, wide=True), strict=True))
    assert (wide["GPU-MINUTES"], wide["USD"]) == ("80.0", "8.00")
    rows = {row[0]: row[1:] for row in table.gpu_rows(status, END)}
    assert rows["training"] == ("30.0", "38%", "3.00")
    assert rows["total"] == ("80.0", "100%", "8.00")
    assert table.as_data(status)["gpu"]["training"] == 30
    unknown = finished(run(usd=None))
    assert table.gpu_rows(unknown, END)[-1][-1] == "-"


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"gpus": "x"}', '{"gpus": 1, "usdPerHour": []}'])
def test_a_run_without_the_annotation_shows_nothing(text: str | None) -> None:
    argo = run()
    annotations = argo.document["metadata"]["annotations"]
    if text is None:
        del annotations[gpu_time.NODES]
    else:
        annotations[gpu_time.NODES] = text
    status = finished(argo)
    assert gpu_time.usage(status, END) is None
    assert table.gpu_rows(status, END) == []
