"""GPU time and price in the report."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from report_sample import PLAN, Reader, write_run

from steps.report import report_gpu
from steps.report.gpu_usage import GpuUsage
from steps.report.settings import Settings
from steps.report.step import report
from steps.runtime import gpu_time

START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def write_times(work: Path) -> None:
    for minute, name, seconds in (
        (0, "tune-1", {"loading": 300, "training": 900}),
        (30, "evaluate-1", {"loading": 60, "evaluating": 540}),
    ):
        record = {"step": name.partition("-")[0], "started": START.replace(minute=minute).isoformat()}
        (work / gpu_time.FOLDER).mkdir(parents=True, exist_ok=True)
        (work / gpu_time.FOLDER / f"{name}.json").write_text(json.dumps(record | {"seconds": seconds}))


def usage(work: Path, end: datetime, **values: Any) -> GpuUsage:
    nodes = report_gpu.read_nodes({"gpus": 2, "usdPerHour": 6, "created": False} | values)
    found = report_gpu.read_usage(gpu_time.read(work), nodes, end)
    assert found
    return found


def test_created_nodes_are_paid_between_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    write_times(tmp_path)
    end = START.replace(minute=50)
    created = usage(tmp_path, end, created=True)
    assert created.minutes() == pytest.approx(2 * 50)
    assert created.minutes("idle") == pytest.approx(2 * 20)
    assert created.usd() == pytest.approx(5)
    assert str(created) == "100.0 GPU minutes (training 30%, evaluating 18%, loading 12%, idle 40%), 5.00 USD"
    existing = usage(tmp_path, end)
    assert (existing.minutes(), existing.minutes("idle")) == (pytest.approx(2 * 30), 0)
    unknown = usage(tmp_path, end, usdPerHour=None)
    assert (unknown.usd(), str(unknown).endswith("price unknown")) == (None, True)
    assert str(usage(tmp_path, end, maximum=True)).endswith(", at most 3.00 USD")


def test_an_evaluation_counts_the_gpus_of_its_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 minutes on two nodes, then 10 on one of them: the other is paid only if the run created it."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    write_times(tmp_path)
    end, shares = START.replace(minute=40), {"evaluate": 0.5}
    existing = usage(tmp_path, end, shares=shares)
    assert existing.minutes() == pytest.approx(2 * 20 + 10)
    assert existing.usd() == pytest.approx(6 * 25 / 60)
    created = usage(tmp_path, end, shares=shares, created=True)
    assert created.minutes() == pytest.approx(2 * 40)
    assert created.minutes("idle") == pytest.approx(2 * 10 + 10)


def test_the_report_of_a_pod_has_the_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    write_run(tmp_path)
    write_times(tmp_path)
    nodes = {"gpus": 1, "usdPerHour": 4.0, "created": False}
    report(Settings(work=tmp_path, plan=PLAN, status="Succeeded", budget_hours=2, gpu_nodes=nodes))
    page = Reader((tmp_path / "report" / "report.html").read_text())
    for words in ("GPU time 30.0 min 2.00 USD", "training 15.0 50% 1.00", "paid 30.0 100% 2.00", "budget of 2 hours"):
        assert page.contains(words), words
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["verdict"] == "pass"
    assert content["gpu"] == {
        "gpus": 1, "minutes": 30.0, "training": 15.0, "evaluating": 9.0, "loading": 6.0, "idle": 0.0,
        "usd": 2.0, "budget_hours": 2.0,
    }  # fmt: skip


def test_a_local_run_costs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path)
    write_times(tmp_path)
    report(Settings(work=tmp_path, plan=PLAN, status="Succeeded"))
    line = "GPU steps   30.0 minutes without a GPU (training 50%, evaluating 30%, loading 20%)"
    assert line in capsys.readouterr().out.splitlines()
    assert json.loads((tmp_path / "report" / "report.json").read_text())["gpu"]["usd"] == 0


def test_a_run_without_gpu_steps_has_no_gpu_time(tmp_path: Path) -> None:
    write_run(tmp_path, until="download")
    report(Settings(work=tmp_path, plan=PLAN, status="Failed"))
    assert not Reader((tmp_path / "report" / "report.html").read_text()).contains("All attempts of tune")
    assert json.loads((tmp_path / "report" / "report.json").read_text())["gpu"] is None


@pytest.mark.parametrize("text", ["", "{{workflow.parameters.budget-hours}}", "two", "nan"])
def test_an_invalid_budget_does_not_fail_the_report(tmp_path: Path, text: str) -> None:
    assert Settings.model_validate({"work": tmp_path, "budget_hours": text}).budget_hours == 0


@pytest.mark.parametrize("values", [{}, {"gpus": "x"}, {"gpus": 1, "usdPerHour": -1, "created": True}])
def test_damaged_nodes_have_no_price(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert report_gpu.read_nodes(values).usd_per_hour is None
