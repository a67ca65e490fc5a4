"""One spec, four kinds of Argo objects; their runs carry labels and title."""

import json

import pytest
import yaml
from plan_samples import BASE, EVALUATION, PLANS, ROLLOUT, SCHEDULE, TUNING
from runner_documents import PRINT, dag, leaf, task, workflow
from workspace_sample import GOOD, write

from workflows import runner
from workflows.compile.kinds import KINDS, compile_as
from workflows.errors import InvalidInput
from workflows.plan.layers import Layer, merge

SCHEDULED = BASE | TUNING | EVALUATION | ROLLOUT | SCHEDULE | {"namespace": "ml"}


def compiled(values: dict, kind: str) -> dict:
    return compile_as(merge([Layer("test", values)]), kind)


@pytest.mark.parametrize(
    ("kind", "written"),
    [("template", "WorkflowTemplate"), ("cluster-template", "ClusterWorkflowTemplate"), ("cron", "CronWorkflow")],
)
def test_templates_and_schedules_have_the_workspace_s_name_and_pass_on_its_title(kind, written):
    run, document = compiled(SCHEDULED, "workflow"), compiled(SCHEDULED, kind)
    assert document["kind"] == written
    assert document["metadata"]["name"] == "phi"
    assert "generateName" not in document["metadata"]
    assert document["metadata"].get("namespace") == (None if kind == "cluster-template" else "ml")
    spec = document["spec"]["workflowSpec"] if kind == "cron" else document["spec"]
    handed_on = spec.pop("workflowMetadata")
    assert handed_on == {key: run["metadata"][key] for key in ("annotations", "labels")}
    assert handed_on["annotations"]["workflows.argoproj.io/title"] == "phi: qlora of phi-4"
    assert spec == run["spec"]


def test_a_cron_has_only_fields_of_argo_3_6():
    values = {"schedule.timezone": "Etc/UTC", "schedule.stopStrategy.expression": "cronworkflow.failed >= 3"}
    spec = compiled(SCHEDULED | values, "cron")["spec"]
    assert spec.pop("workflowSpec")
    assert spec == {
        "schedules": ["0 3 * * 0"],
        "timezone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "stopStrategy": {"expression": "cronworkflow.failed >= 3"},
    }
    assert compiled(SCHEDULED | {"schedule.suspend": True}, "cron")["spec"]["suspend"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_locally(kind):
    runner.check(compiled(SCHEDULED, kind))


@pytest.mark.parametrize("values", PLANS.values(), ids=PLANS)
def test_every_parameter_of_a_template_has_a_description_and_an_enum_if_possible(values):
    parameters = compiled(values, "template")["spec"].get("arguments", {}).get("parameters", [])
    assert all(parameter["description"] for parameter in parameters)
    closed = {parameter["name"] for parameter in parameters if "enum" in parameter}
    assert closed == ({"push"} if parameters else set())


def test_without_a_schedule_there_is_no_cron():
    with pytest.raises(InvalidInput, match="has no schedule"):
        compiled(PLANS["everything"], "cron")


def test_the_command_line_names_the_kind(argotune, tmp_path):
    file = write(tmp_path, GOOD + '  schedule: {schedules: ["@daily"]}\n')
    as_yaml = argotune("compile", file, "--as", "cron")
    as_json = argotune("compile", file, "--as", "cluster-template", "-o", "json")
    assert yaml.safe_load(as_yaml.stdout)["kind"] == "CronWorkflow"
    assert json.loads(as_json.stdout)["kind"] == "ClusterWorkflowTemplate"
    assert yaml.safe_load(argotune("compile", file).stdout)["kind"] == "Workflow"


def test_a_cron_of_a_workspace_without_schedule_is_bad_input(argotune, tmp_path):
    done = argotune("compile", write(tmp_path, GOOD), "--as", "cron")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pipeline.schedule: Workspace tuned has no schedule" in done.stderr
    assert "fix: add pipeline: {schedule:" in done.stderr


def test_a_schedule_creates_a_new_run_each_time(argotune, tmp_path):
    inner = workflow(dag(task("say")), leaf("say", PRINT, "hello"))["spec"]
    cron = {"apiVersion": "argoproj.io/v1alpha1", "kind": "CronWorkflow", "metadata": {"name": "weekly"}}
    file = tmp_path / "cron.json"
    file.write_text(json.dumps(cron | {"spec": {"schedules": ["@weekly"], "workflowSpec": inner}}))
    for _ in range(2):
        assert argotune("run", file, "--runs-dir", tmp_path / "runs").returncode == 0
    names = [folder.name for folder in (tmp_path / "runs").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("weekly-") for name in names)
