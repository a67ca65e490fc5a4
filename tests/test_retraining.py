"""The retraining for real, with a tiny model: every turn is the CronWorkflow's inner workflow on this machine."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import trainable_model

from workflows import runner
from workflows.commands import run
from workflows.compile.kinds import compile_as
from workflows.load_plans import load_plans
from workflows.plan.model import Plan
from workflows.runner.control import Timing
from workflows.runner.outcome import Outcome

pytestmark = pytest.mark.slow

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: weekly}
tuning:
  preset: {name: smollm2-135m-instruct}
  method: lora
  config: training
  input: {volumeSource: {persistentVolumeClaim: {claimName: rows}}}
  output: {volumeSource: {persistentVolumeClaim: {claimName: adapter}}}
pipeline:
  schedule: {schedules: ["0 3 * * 0"]}
  evaluation: {samples: 0, maxLossRatio: 1000}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: training}
data:
  training_config.yaml: |
    training_config:
      TrainingArguments: {max_steps: 2, learning_rate: 2.0e-2, per_device_train_batch_size: 8}
"""
AFTER_CHECK = ("preflight", "provision", "tune", "evaluate", "package")


class Site:
    """One machine with its volumes, on which turn follows turn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows, self.adapter = folder / "rows", folder / "adapter"
        for volume in (self.rows, self.adapter):
            volume.mkdir()
        # Where a site keeps base models, which pods see as /mnt/models.
        trainable_model.make_model(folder / "home" / "volumes" / "argotune-models" / "tiny")
        (folder / "workspace.yaml").write_text(WORKSPACE)

    def plan(self) -> Plan:
        [plan] = load_plans(str(self.folder / "workspace.yaml"), ["model.repository=/mnt/models/tiny"])
        return plan

    def turn(self, name: str, **parameters: str) -> Outcome:
        document = compile_as(self.plan(), "cron")
        assert document["kind"] == "CronWorkflow"
        return runner.start(
            document,
            self.folder / "runs" / name,
            name=name,
            parameters=parameters,
            volumes={"rows": self.rows, "adapter": self.adapter},
            timing=Timing(poll=0.02),
        )

    def lineage(self) -> dict[str, str]:
        kept: dict[str, str] = json.loads((self.adapter / "lineage.json").read_text())
        return kept


def phases(outcome: Outcome) -> dict[str, str]:
    return {name: str(node.phase) for name, node in outcome.nodes.items() if name in AFTER_CHECK}


def loss(outcome: Outcome, name: str) -> float:
    return float(outcome.outputs["evaluate"][f"{name}-loss"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    environment = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("site")
    for name, value in {"HOME": str(folder), "ARGOTUNE_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}.items():
        environment.setenv(name, value)
    environment.delenv("ARGOTUNE_SITE", raising=False)
    made = Site(folder)
    trainable_model.write_rows(made.rows / "a.parquet", trainable_model.chat_rows(40))
    yield made
    environment.undo()


@pytest.fixture(scope="module")
def first(site: Site) -> Outcome:
    return site.turn("first")


def test_the_first_turn_tunes(site: Site, first: Outcome) -> None:
    assert first.phase == "Succeeded", first.message
    assert phases(first) == dict.fromkeys(AFTER_CHECK, "Succeeded")
    assert first.outputs["check"]["changed"] == "true"
    assert first.outputs["check"]["previous"] == ""
    assert first.outputs["evaluate"]["previous-loss"] == "null"
    assert site.lineage() == {
        "adapter_digest": first.outputs["tune"]["adapter-digest"],
        "data_digest": first.outputs["download"]["data-digest"],
        "settings_digest": first.outputs["check"]["settings-digest"],
    }


def test_a_turn_without_news_ends_before_anything_is_taken(site: Site, first: Outcome) -> None:
    begun = time.monotonic()
    second = site.turn("second")
    took = time.monotonic() - begun
    assert second.phase == "Succeeded"
    assert second.outputs["check"]["changed"] == "false"
    assert phases(second) == dict.fromkeys(AFTER_CHECK, "Omitted") | {"preflight": "Skipped"}
    assert took < 60, "of which most is starting Python four times"
    assert not (second.folder / "nodes" / "tune").exists()


def test_a_new_adapter_must_be_better_than_the_live_one(
    site: Site, first: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.lineage()
    trainable_model.write_rows(site.rows / "b.parquet", trainable_model.chat_rows(60)[40:])
    third = site.turn("third", **{"max-steps": "8"})
    assert phases(third) == dict.fromkeys(AFTER_CHECK, "Succeeded"), third.message
    assert third.outputs["check"]["previous"] == str(site.adapter)
    assert third.outputs["evaluate"]["verdict"] == "pass"
    assert loss(third, "adapter") < loss(third, "previous") < loss(third, "base")
    evaluation = json.loads((third.folder / "volumes" / "work" / "report" / "evaluation.json").read_text())
    assert evaluation["previous_loss"] == loss(third, "previous")
    now = site.lineage()
    assert all(now[key] != before[key] for key in before)
    # The learning rate is so small that nothing is learned: worse than what is in service.
    fourth = site.turn("fourth", **{"max-steps": "1", "learning-rate": "1e-9"})
    assert fourth.outputs["evaluate"]["verdict"] == "fail"
    assert loss(fourth, "previous") < loss(fourth, "adapter")
    assert phases(fourth)["package"] == "Skipped"
    assert set(fourth.outputs) & {"package", "rollout"} == set()
    assert run.print_result(fourth, "workspace.yaml") == 3
    assert re.search(r"the gate failed: .*betterThanPrevious is ", capsys.readouterr().err)
    assert site.lineage() == now
