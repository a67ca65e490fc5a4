"""The DAG of a search, run locally: trials that fail, fail the gate, or are pruned. Training is a small program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from plan_samples import BASE, EVALUATION, TUNING, compiled

from workflows import runner
from workflows.runner.control import Timing
from workflows.runner.outcome import Outcome

TUNE = """
import json, os, pathlib, sys
from steps.models.adapter import adapter_digest
work, rank, stop_after = sys.argv[1:]
if rank == "13":
    sys.exit("error: the loss is not finite")
folder = pathlib.Path(work, "adapter")
folder.mkdir(parents=True, exist_ok=True)
(folder / "adapter_config.json").write_text(json.dumps({"rank": rank, "share": stop_after}))
(folder / "adapter_model.safetensors").write_text(rank)
with open(pathlib.Path(work, "shares"), "a") as shares:
    shares.write(stop_after + " ")
pathlib.Path(os.environ["ARGOTUNE_OUTPUTS"], "adapter-digest").write_text(adapter_digest(folder))
"""
EVALUATE = """
import os, pathlib, sys
work, gate = sys.argv[1:]
rank = float(pathlib.Path(work, "adapter", "adapter_model.safetensors").read_text())
for name, value in {"base-loss": 2, "adapter-loss": rank / 10, "verdict": gate}.items():
    pathlib.Path(os.environ["ARGOTUNE_OUTPUTS"], name).write_text(str(value))
"""
WORK = "/mnt/work/candidates/{{inputs.parameters.candidate}}"


def document(search: dict[str, Any], *, verdict: str = "pass") -> dict[str, Any]:
    """Return the compiled search alone, with small programs as tune and evaluate."""
    compiled_run = compiled(BASE | TUNING | EVALUATION | {f"search.{key}": value for key, value in search.items()})
    spec = compiled_run["spec"]
    by_name = {template["name"]: template for template in spec["templates"]}
    stop_after = "{{inputs.parameters.stop-after}}" if search.get("method") == "halving" else "1"
    programs = {
        "tune": [TUNE, WORK, "{{inputs.parameters.rank}}", stop_after],
        "evaluate": [EVALUATE, WORK, verdict],
    }
    for name, (program, *args) in programs.items():
        by_name[name]["container"] |= {"command": [sys.executable, "-c", program], "args": args}
        del by_name[name]["retryStrategy"]
    used = [by_name[name] for name in ("search", "trial", "tune", "evaluate", "promote", "prune") if name in by_name]
    spec |= {"entrypoint": "search", "templates": used}
    spec["arguments"]["parameters"].append({"name": "data-digest", "value": "sha256:0"})
    del spec["onExit"]
    return compiled_run


def run(folder: Path, content: dict[str, Any]) -> Outcome:
    return runner.start(
        content,
        folder / "run",
        name="run",
        parameters={},
        volumes={"argotune-models": folder},
        timing=Timing(poll=0.02),
    )


def phases(outcome: Outcome) -> dict[str, str]:
    return {name: str(node.phase) for name, node in outcome.nodes.items()}


def shares(folder: Path, name: str) -> list[str]:
    return (folder / "run" / "volumes" / "work" / "candidates" / name / "shares").read_text().split()


def test_a_failed_trial_does_not_fail_the_search(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        document(
            {
                "parameters": {"rank": [8, 13, 4]},
                "parallel": 2,
            }
        ),
    )
    assert outcome.phase == "Succeeded", outcome.message
    assert phases(outcome)["trial.1.tune"] == "Failed"
    promoted = outcome.nodes["promote"].outputs
    assert (promoted["candidate"], promoted["compared"]) == ("trial-3", "2")
    assert (tmp_path / "run" / "volumes" / "work" / "adapter" / "adapter_model.safetensors").read_text() == "4"


@pytest.mark.parametrize(
    ("ranks", "verdict", "words"), [([13], "pass", "not finite"), ([4, 8], "fail", "none of the 2 candidates passed")]
)
def test_the_search_fails_without_a_passing_trial(tmp_path: Path, ranks: list[int], verdict: str, words: str) -> None:
    outcome = run(tmp_path, document({"parameters": {"rank": ranks}}, verdict=verdict))
    assert outcome.phase == "Failed"
    assert words in outcome.message


def test_halving_trains_the_best_trials_further(tmp_path: Path) -> None:
    search = {"method": "halving", "trials": 4, "parameters": {"rank": [4, 8, 13, 16]}}
    content = document(search)
    outcome = run(tmp_path, content)
    assert outcome.phase == "Succeeded", outcome.message
    [rung] = [task for task in by_name(content, "search")["dag"]["tasks"] if task["name"] == "rung-1"]
    names = {item["rank"]: item["candidate"] for item in rung["withItems"]}
    trained = {rank: shares(tmp_path, names[rank]) for rank in ("4", "8", "16")}
    assert trained == {"4": ["0.25", "0.5", "1"], "8": ["0.25", "0.5"], "16": ["0.25"]}
    assert [survivor["rank"] for survivor in json.loads(outcome.nodes["prune-1"].outputs["survivors"])] == ["4", "8"]
    assert outcome.nodes["promote"].outputs["candidate"] == names["4"]


def by_name(content: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [template for template in content["spec"]["templates"] if template["name"] == name]
    return dict(found)
