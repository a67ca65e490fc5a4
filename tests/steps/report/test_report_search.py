"""The search in the report: a table of the trials, their curves, and the outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report_sample import PLAN, Reader, curve, write, write_run

from steps.report.report_data import Failure
from steps.report.settings import Settings
from steps.report.step import report

TRIALS = [{"candidate": f"trial-{n}", "learning-rate": f"{n}e-4", "rank": "8"} for n in (1, 2, 3, 4)]


def write_trial(work: Path, name: str, loss: float, *, verdict: str = "pass", share: float = 1) -> None:
    folder = work / "candidates" / name
    write(folder / "report" / "train.jsonl", "\n".join(json.dumps(point) for point in curve(round(40 * share))))
    tuned: dict[str, Any] = {"settings": {"stop_after": share}, "result": {"device": "cpu"}}
    result = {"base_loss": 2.0, "adapter_loss": loss, "verdict": verdict}
    write(folder / "results" / "tune.json", tuned)
    write(folder / "results" / "evaluate.json", {"result": result})
    write(folder / "report" / "evaluation.json", result)
    record = {"step": "tune", "candidate": name, "started": "2026-11-24T10:00:00+00:00", "seconds": {"training": 90}}
    write(work / "gpu-time" / f"tune-{name}-1.json", record)


def page_of(
    work: Path, status: str = "Succeeded", failures: tuple[Failure, ...] = ()
) -> tuple[Reader, dict[str, str]]:
    shares = dict.fromkeys(("tune", "evaluate"), 1 / 3)
    nodes = {"gpus": 3, "usdPerHour": None, "created": False, "shares": shares}
    settings = Settings(work=work, plan=PLAN, status=status, trials=TRIALS, gpu_nodes=nodes)
    result = report(settings.model_copy(update={"failures": failures}))
    page = Path(result.report_path).read_text()
    return Reader(page), {"page": page, "cause": result.cause}


def test_trials_are_listed_with_the_best_first(tmp_path: Path, capsys: Any) -> None:
    write_run(tmp_path)
    write_trial(tmp_path, "trial-1", 1.2)
    write_trial(tmp_path, "trial-2", 0.8)
    write_trial(tmp_path, "trial-3", 0.9, share=0.5)
    write(tmp_path / "results" / "promote.json", {"result": {"candidate": "trial-2"}})
    failed = Failure("trial(3:trial-4)", "Failed", "the loss is not finite")
    reader, rest = page_of(tmp_path, failures=(failed,))
    # Three concurrent trials of 90 seconds share the machine.
    assert reader.contains("trial-2 2e-4 8 0.8 40% promoted 100% 1 min 32 s 0.5")
    assert reader.contains("trial-1 1e-4 8 1.2 60% pass 100%")
    assert reader.contains("trial-3 3e-4 8 0.9 45% pruned 50% 46 s")
    assert reader.contains("trial-4 4e-4 8 \N{EN DASH} \N{EN DASH} no result")
    order = [rest["page"].index(f"<td>trial-{number}</td>") for number in (2, 1, 3, 4)]
    assert order == sorted(order)
    assert reader.contains("1 of 4 trials have no result")
    assert "Training loss of 3 trials: " in rest["page"]
    assert rest["cause"] == "", "the run succeeded, whatever trial failed"
    assert "search      4 trials, best: trial-2, learning-rate 2e-4, rank 8" in capsys.readouterr().out


def test_a_search_without_a_winner_says_so(tmp_path: Path) -> None:
    write_trial(tmp_path, "trial-1", 2.2, verdict="fail")
    reader, rest = page_of(tmp_path, "Failed", (Failure("promote", "Failed", "none passed"),))
    assert reader.contains("The search found no adapter: of 4 trials, 1 were evaluated, and none passed.")
    assert rest["cause"] == "promote: none passed"
    assert not reader.contains("promoted")


def test_a_run_without_a_search_has_no_section(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = Path(report(Settings(work=tmp_path, plan=PLAN)).report_path).read_text()
    assert "<h2>Search</h2>" not in page


def test_damaged_files_of_a_trial_are_no_failure(tmp_path: Path) -> None:
    write_run(tmp_path)
    for path in ("results/tune.json", "results/evaluate.json", "report/evaluation.json", "report/train.jsonl"):
        write(tmp_path / "candidates" / "trial-1" / path, '{"result": [')
    reader, _ = page_of(tmp_path)
    assert reader.contains("4 of 4 trials have no result")
