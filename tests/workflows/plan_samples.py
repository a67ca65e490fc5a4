"""Sample plans, as values by path, and the function that compiles them."""

from __future__ import annotations

from pathlib import Path

from workspace_sample import GOOD, write

from workflows.compile.dag import compile_workflow
from workflows.load_plans import load_plans
from workflows.plan.layers import Layer, merge
from workflows.plan.model import Plan

BASE = {"name": "phi", "model.preset": "phi-4", "model.repository": "microsoft/phi-4"}
TUNING = {"tuning.method": "qlora", "data.urls": ["https://example.com/a.parquet"], "output.image": "reg.io/a:1"}
EVALUATION = {"evaluation.samples": 3}
ROLLOUT = {"rollout.question": "Who?", "rollout.adapters": [{"name": "other", "image": "reg.io/b:1"}]}
SCHEDULE = {"schedule.schedules": ["0 3 * * 0"]}
GATE = {
    "evaluation.confident": True,
    "evaluation.minExactMatch": 0.25,
    "evaluation.minRougeL": 0.5,
    "evaluation.maxRegressions": 0.1,
    "evaluation.betterThanPrevious": False,
}
SEARCH = {"search.parameters": {"learningRate": [1e-4, 2e-4], "dropout": [0, 0.1]}}
HALVING = {
    "search.method": "halving",
    "search.trials": 4,
    "search.parameters": {"rank": [4, 8, 16], "learningRate": {"min": 1e-5, "max": 1e-3, "scale": "log"}},
}
VOLUMES = {"tuning.rank": 4, "data.volume": {"hostPath": {"path": "/d"}}, "output.volume": {"emptyDir": {}}}
PLANS = {
    "everything": BASE | TUNING | EVALUATION | ROLLOUT,
    "tuning only": BASE | TUNING | EVALUATION,
    "no evaluation": BASE | TUNING | ROLLOUT,
    "inference only": BASE | ROLLOUT,
    "volumes": BASE | VOLUMES,
    "retraining": BASE | TUNING | EVALUATION | ROLLOUT | SCHEDULE | {"output.pushSecret": "push"},
    "retraining into a volume": BASE | VOLUMES | EVALUATION | SCHEDULE,
    "retraining without evaluation": BASE | TUNING | SCHEDULE,
    "approval": BASE | TUNING | EVALUATION | ROLLOUT | {"approval": True},
    "approval without evaluation": BASE | TUNING | {"approval": True},
    "gate": BASE | TUNING | SCHEDULE | GATE,
    "tracking": BASE | TUNING | {"tracking.reportTo": "wandb", "tracking.project": "p", "tracking.secret": "keys"},
    "pairs": BASE | TUNING | SCHEDULE | {"tuning.objective": "dpo", "tuning.beta": 0.2},
    "tasks": BASE | TUNING | {"evaluation.tasks": ["arc_easy"], "evaluation.minTaskScores": {"arc_easy": 0.4}},
    "weights": BASE | TUNING | {"data.weights": {"a.parquet": 0.5}},
    "search": BASE | TUNING | EVALUATION | ROLLOUT | SEARCH,
    "retraining with a search": BASE | TUNING | EVALUATION | SCHEDULE | HALVING,
    "secrets": BASE | TUNING | {"output.pushSecret": "push", "model.accessSecret": "hub"},
}
OF_A_TRIAL = {
    "learning-rate": "2e-4", "rank": "8", "dropout": "0.1", "stop-after": "0.5", "keep": "1",
    "candidates": "[]", "trials": '[{"candidate": "trial-1", "rank": "8"}]',
}  # fmt: skip
"""Values of inputs that a search sets."""


def compiled(values: dict) -> dict:
    return compile_workflow(merge([Layer("test", values)]))


def planned(folder: Path, profile: str) -> Plan:
    site = folder / "site.yaml"
    site.write_text(profile)
    [plan] = load_plans(str(write(folder, GOOD)), site_file=str(site))
    return plan
