"""Scheduled retraining of a tiny model: each run executes the CronWorkflow's workflow locally."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

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
    """A machine with volumes, on which scheduled runs follow each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows, self.adapter = folder / "rows", folder / "adapter"

    def plan(self) -> Plan:
        [plan] = load_plans(str(self.folder / "workspace.yaml"), ["model.repository=/mnt/models/tiny"])
        return plan

    def run(self, name: str, **parameters: str) -> Outcome:
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
        content: dict[str, str] = json.loads((self.adapter / "lineage.json").read_text())
        return content


def phases(outcome: Outcome) -> dict[str, str]:
    return {name: str(node.phase) for name, node in outcome.nodes.items() if name in AFTER_CHECK}


def loss(outcome: Outcome, name: str) -> float:
    return float(outcome.outputs["evaluate"][f"{name}-loss"])


@pytest.fixture(scope="module")
def first_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site on which the first run takes place; tests work on copies."""
    environment = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("site")
    for name, value in {"HOME": str(folder), "ARGOTUNE_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}.items():
        environment.setenv(name, value)
    environment.delenv("ARGOTUNE_SITE", raising=False)
    site = Site(folder)
    site.adapter.mkdir()
    # The site's directory of base models, mounted in pods as /mnt/models.
    trainable_model.make_model(folder / "home" / "volumes" / "argotune-models" / "tiny")
    (folder / "workspace.yaml").write_text(WORKSPACE)
    trainable_model.write_rows(site.rows / "a.parquet", trainable_model.chat_rows(40))
    yield site
    environment.undo()


@pytest.fixture(scope="module")
def first(first_site: Site) -> Outcome:
    return first_site.run("first")


@pytest.fixture
def site(first_site: Site, first: Outcome, tmp_path: Path) -> Site:
    """A copy of the site after the first run."""
    ignore = shutil.ignore_patterns("home", "runs")
    return Site(Path(shutil.copytree(first_site.folder, tmp_path / "site", ignore=ignore)))


def test_the_first_run_tunes(site: Site, first: Outcome) -> None:
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


def test_a_run_without_changes_is_skipped(site: Site, first: Outcome) -> None:
    second = site.run("second")
    assert second.phase == "Succeeded"
    assert second.outputs["check"]["changed"] == "false"
    assert phases(second) == dict.fromkeys(AFTER_CHECK, "Omitted") | {"preflight": "Skipped"}
    assert not (second.folder / "nodes" / "tune").exists()


def test_a_new_adapter_must_be_better_than_the_live_one(
    site: Site, first: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.lineage()
    trainable_model.write_rows(site.rows / "b.parquet", trainable_model.chat_rows(60)[40:])
    third = site.run("third", **{"max-steps": "8"})
    assert phases(third) == dict.fromkeys(AFTER_CHECK, "Succeeded"), third.message
    assert third.outputs["check"]["previous"] == str(site.adapter)
    assert third.outputs["evaluate"]["verdict"] == "pass"
    assert loss(third, "adapter") < loss(third, "previous") < loss(third, "base")
    evaluation = json.loads((third.folder / "volumes" / "work" / "report" / "evaluation.json").read_text())
    assert evaluation["previous_loss"] == loss(third, "previous")
    now = site.lineage()
    assert all(now[key] != before[key] for key in before)
    # With such a learning rate nothing is learned, so the adapter is worse than the deployed one.
    fourth = site.run("fourth", **{"max-steps": "1", "learning-rate": "1e-9"})
    assert fourth.outputs["evaluate"]["verdict"] == "fail"
    assert loss(fourth, "previous") < loss(fourth, "adapter")
    assert phases(fourth)["package"] == "Skipped"
    assert set(fourth.outputs) & {"package", "rollout"} == set()
    assert run.print_result(fourth, "workspace.yaml") == 3
    assert re.search(r"the gate failed: .*betterThanPrevious is ", capsys.readouterr().err)
    assert site.lineage() == now
