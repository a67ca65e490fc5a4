"""Destination of metrics: set by the Workspace or its training configuration, passed to pods without credentials."""

from pathlib import Path

import pytest
from plan_samples import BASE, TUNING, compiled

from workflows.errors import InvalidInput, Problem
from workflows.load_plans import load_plans
from workflows.plan.model import Plan

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: tracked}
tuning:
  preset: {name: smollm2-135m-instruct}
  method: lora
  config: training
  input: {urls: ["https://data.example.com/train.parquet"]}
  output: {image: registry.example.com/team/adapter:1.0}
TRACKING
---
apiVersion: v1
kind: ConfigMap
metadata: {name: training}
data:
  training_config.yaml: |
    training_config:
      TrainingArguments: {ARGUMENTS}
"""
MLFLOW = "https://mlflow.example.com"


@pytest.fixture(autouse=True)
def no_tracking_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ARGOTUNE_SITE", "MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def planned(folder: Path, tracking: str = "", arguments: str = "", *, local: bool = False) -> Plan:
    block = f"pipeline: {{tracking: {tracking}}}" if tracking else ""
    file = folder / "workspace.yaml"
    file.write_text(WORKSPACE.replace("TRACKING", block).replace("ARGUMENTS", arguments))
    [plan] = load_plans([str(file)], local=local)
    return plan


def refused(folder: Path, tracking: str = "", arguments: str = "", *, local: bool = False) -> Problem:
    with pytest.raises(InvalidInput) as caught:
        planned(folder, tracking, arguments, local=local)
    [problem] = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("tracking", "arguments", "origin"),
    [
        (f"{{reportTo: mlflow, uri: {MLFLOW}}}", "", "Workspace ("),
        (f"{{uri: {MLFLOW}}}", "report_to: mlflow", "ConfigMap ("),
        (f"{{uri: {MLFLOW}}}", "report_to: [mlflow]", "ConfigMap ("),
        (f"{{reportTo: mlflow, uri: {MLFLOW}}}", "report_to: wandb", "Workspace ("),
    ],
)
def test_workspace_or_training_config_sets_the_tracking(
    tmp_path: Path, tracking: str, arguments: str, origin: str
) -> None:
    plan = planned(tmp_path, tracking, arguments)
    assert plan.tracking and (plan.tracking.report_to, plan.tracking.uri) == ("mlflow", MLFLOW)
    assert plan.origin("tracking.reportTo").startswith(origin)
    assert plan.tuning and plan.tuning.training_arguments == {}


@pytest.mark.parametrize("off", ["report_to: none", "report_to: [none]", "report_to: []", ""])
def test_by_default_nothing_is_tracked(tmp_path: Path, off: str) -> None:
    plan = planned(tmp_path, arguments=off)
    assert plan.tracking is None
    assert pods(compiled(BASE | TUNING))["tune"]["env"] == [
        {"name": "ARGOTUNE_OUTPUTS", "value": "/mnt/scratch/outputs"},
        {"name": "HF_HOME", "value": "/mnt/models/huggingface"},
    ]


@pytest.mark.parametrize(
    ("tracking", "arguments", "path", "words"),
    [
        ("{reportTo: mlflow}", "", "pipeline.tracking", "pods need a URL"),
        ("{reportTo: wandb, project: p}", "", "pipeline.tracking", "pods need an API key"),
        ("", "report_to: mlflow", "pipeline.tracking", "pods need a URL"),
        ("", "report_to: [mlflow, wandb]", "training_config.TrainingArguments.report_to", "must be 'none', 'mlflow'"),
        ("", "report_to: all", "training_config.TrainingArguments.report_to", "must be 'none', 'mlflow'"),
        ("", "report_to: tensorboard", "training_config.TrainingArguments.report_to", "must be 'none', 'mlflow'"),
        (f"{{uri: {MLFLOW}}}", "", "pipeline.tracking.uri", "has no effect without pipeline.tracking.reportTo"),
        ("{reportTo: mlflow, uri: mlflow}", "", "pipeline.tracking.uri", "'mlflow' is not a URL"),
        ("{reportTo: mlflow, secret: A_b}", "", "pipeline.tracking.secret", "A_b"),
        (
            "{reportTo: mlflow, uri: 'https://me:canary@mlflow.example.com'}",
            "",
            "pipeline.tracking.uri",
            "a URL must hold no credentials",
        ),
    ],
)
def test_invalid_tracking_settings_are_rejected(
    tmp_path: Path, tracking: str, arguments: str, path: str, words: str
) -> None:
    problem = refused(tmp_path, tracking, arguments)
    assert problem.path == path
    assert words in problem.message and "canary" not in str(problem)
    assert problem.line or not tracking


def test_local_run_checks_the_local_tracking_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    assert "MLFLOW_TRACKING_URI is not set" in refused(tmp_path, "{reportTo: mlflow}", local=True).message
    assert planned(tmp_path, f"{{reportTo: mlflow, uri: {MLFLOW}}}", local=True).tracking
    monkeypatch.setenv("MLFLOW_TRACKING_URI", MLFLOW)
    assert planned(tmp_path, "", "report_to: mlflow", local=True).tracking


def test_pods_get_the_tracking_address_and_the_secret_reference() -> None:
    sets = {"tracking.reportTo": "mlflow", "tracking.uri": MLFLOW, "tracking.secret": "my-mlflow"}
    containers = pods(compiled(BASE | TUNING | sets))
    reference = {"name": "my-mlflow", "optional": True}
    expected = [{"name": "MLFLOW_TRACKING_URI", "value": MLFLOW}] + [
        {"name": name, "valueFrom": {"secretKeyRef": {"key": name, **reference}}}
        for name in (
            "MLFLOW_EXPERIMENT_NAME",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
        )
    ]
    for step in ("tune", "preflight"):
        assert [variable for variable in containers[step]["env"] if "MLFLOW" in variable["name"]] == expected, step
    others = [
        name
        for name, pod in containers.items()
        if "MLFLOW" in str(pod) and name not in ("tune", "preflight", "report")
    ]
    assert others == []
    args = containers["tune"]["args"]
    assert args[args.index("--report-to") + 1] == "mlflow"
    assert args[args.index("--run-name") + 1] == "{{workflow.name}}"


def test_settings_missing_in_the_workspace_can_come_from_the_secret() -> None:
    sets = {"tracking.reportTo": "wandb", "tracking.secret": "keys"}
    env = pods(compiled(BASE | TUNING | sets))["tune"]["env"]
    assert [variable["name"] for variable in env if "WANDB" in variable["name"]] == [
        *("WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_API_KEY", "WANDB_ENTITY"),
    ]


def pods(document: dict) -> dict[str, dict]:
    return {
        template["name"]: template["container"]
        for template in document["spec"]["templates"]
        if "container" in template
    }
