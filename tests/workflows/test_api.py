from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hera.workflows import DAG, Container, Parameter
from kubernetes_server import KubernetesServer
from workspace_sample import GOOD, write

import workflows
from workflows import Templates, api, load, pipeline, runner, submit, to_dict, to_yaml
from workflows.compile.dag import compile_workflow
from workflows.errors import InvalidInput
from workflows.plan.model import Plan
from workflows.runner.control import Timing

SERVES_ONLY = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: served}
resource: {instanceType: Standard_NC24ads_A100_v4, labelSelector: {matchLabels: {app: served}}}
inference: {preset: {name: phi-3-mini-128k-instruct}}
"""
SCHEDULED = GOOD.replace("pipeline:\n", 'pipeline:\n  schedule: {schedules: ["0 3 * * 0"]}\n')


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return load(write(tmp_path, GOOD))


def templates_of(document: dict[str, Any]) -> dict[str, Any]:
    return {template["name"]: template for template in document["spec"]["templates"]}


def tasks_of(document: dict[str, Any], dag: str = "main") -> dict[str, Any]:
    return {task["name"]: task for task in templates_of(document)[dag]["dag"]["tasks"]}


def arguments_of(task: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in task["arguments"]["parameters"]}


def message(caught: pytest.ExceptionInfo[InvalidInput]) -> str:
    return "\n".join(str(problem) for problem in caught.value.problems)


def whole_pipeline(plan: Plan) -> dict[str, Any]:
    """Compose the Workflow that ``argotune compile`` creates from a Workspace."""
    steps = Templates(plan)
    with pipeline(plan) as workflow, DAG(name="main"):
        checked, ready, rows = steps.preflight(), steps.provision(), steps.download()
        tuned = steps.tune(arguments=rows)
        evaluated = steps.evaluate(arguments=[rows, tuned])
        passed = f"{evaluated.get_parameter('verdict').value} == pass"
        packaged = steps.package(arguments=[rows, tuned], when=passed)
        served = steps.rollout(arguments=[packaged])
        checked >> [ready, rows] >> tuned >> evaluated >> packaged
        packaged.on_success(served)
    return to_dict(workflow)


def test_the_composed_workflow_equals_the_compiled_one(plan: Plan) -> None:
    composed, compiled = whole_pipeline(plan), compile_workflow(plan)
    assert templates_of(composed) == templates_of(compiled)
    for document in (composed, compiled):
        document["spec"].pop("templates")
    assert composed == compiled


def test_the_example_in_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    example = [line[4:] for line in (api.__doc__ or "").splitlines() if line.startswith("    ")]
    exec(compile("\n".join(example), "documentation", "exec"), {})
    document = yaml.safe_load(capsys.readouterr().out)
    assert list(tasks_of(document)) == ["provision", "download", "tune", "package"]
    assert tasks_of(document)["tune"]["depends"] == "provision && download"
    values = {item["name"]: item["value"] for item in document["spec"]["arguments"]["parameters"]}
    assert values["epochs"] == "1"


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, workflows\n"
        "print([name for name in ('hera', 'pydantic', 'torch', 'yaml') if name in sys.modules])\n"
        "from workflows import load, Templates\n"
        "print('hera' in sys.modules, 'torch' in sys.modules)\n"
        "import workflows.plan, workflows.lint\n"
        "print(workflows.load is load, workflows.lint.__name__)\n"
        "workflows.absent\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "True False", "True workflows.lint"]
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'workflows' has no attribute 'absent'"


def test_no_name_of_the_api_is_that_of_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(workflows.__path__)}
    assert not modules & set(workflows.__all__)
    assert all(name in (api.__doc__ or "") for name in workflows.__all__)


def test_load_accepts_overrides_as_set_does(tmp_path: Path) -> None:
    values = {"tuning.epochs": 2, "data.urls": ["https://data.example.com/b.parquet"], "model.revision": "1234e56"}
    plan = load(write(tmp_path, GOOD), values, namespace="team")
    assert (plan.tuning and plan.tuning.epochs, plan.data and plan.data.urls) == (2, values["data.urls"])
    assert (plan.model.revision, plan.namespace) == ("1234e56", "team")
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path / "workspace.yaml", {"tuning.epoch": 1, "tuning.rank": "many"})
    assert 'unknown path "tuning.epoch"' in message(caught)
    assert "tuning.rank" in message(caught)


def test_load_requires_one_workspace(tmp_path: Path) -> None:
    file = write(tmp_path, f"{GOOD}---\n{SERVES_ONLY}")
    with pytest.raises(InvalidInput, match=r"several Workspaces \(tuned, served\)"):
        load(file)
    assert load(file, name="served").name == "served"
    with pytest.raises(InvalidInput, match="no Workspace other, only tuned, served"):
        load(file, name="other")
    with pytest.raises(InvalidInput, match=r"absent\.yaml"):
        load(tmp_path / "absent.yaml")


def test_a_document_does_not_depend_on_the_directory_of_its_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert load(file).origin("name") == load("workspace.yaml").origin("name") == "Workspace (workspace.yaml:4)"


def test_inputs_of_a_step_default_to_the_workflow_s_parameters(plan: Plan) -> None:
    steps = Templates(plan)
    with pipeline(plan) as workflow, DAG(name="main"):
        rows = steps.download()
        tuned = steps.tune(
            name="first", arguments={"rank": 4, "data-digest": rows.get_parameter("data-digest")}, depends="download"
        )
        steps.tune(name="second", arguments=[{"rank": "8"}, rows.get_parameter("data-digest")], depends="download")
        assert tuned.name == "first"
    first, second = (arguments_of(tasks_of(to_dict(workflow))[name]) for name in ("first", "second"))
    assert (first["rank"], second["rank"]) == ("4", "8")
    assert first["epochs"] == "{{workflow.parameters.epochs}}"
    assert first["data-digest"] == second["data-digest"] == "{{tasks.download.outputs.parameters.data-digest}}"
    assert list(first) == [parameter.name for parameter in steps.tune.inputs]


def test_a_task_passes_its_outputs_that_are_inputs_of_the_step(plan: Plan) -> None:
    steps = Templates(plan)
    with pipeline(plan) as workflow, DAG(name="main"):
        rows, ready = steps.download(), steps.provision()
        rows >> steps.tune(arguments=[rows, {"rank": 4}])
        with pytest.raises(InvalidInput, match="no declared output of task provision is an input"):
            steps.evaluate(arguments=[rows, ready])
    arguments = arguments_of(tasks_of(to_dict(workflow))["tune"])
    assert (arguments["data-digest"], arguments["rank"]) == ("{{tasks.download.outputs.parameters.data-digest}}", "4")
    assert not {"rows", "eval-rows", "data-format"} & set(arguments)


def test_parameters_and_fields_of_the_workflow(plan: Plan) -> None:
    more = Parameter(name="rates", value='["2e-4"]', description="to be tried")
    workflow = pipeline(plan, arguments=[more], without=["learning-rate"], generate_name="mine-", parallelism=2)
    with workflow, DAG(name="main"):
        Templates(plan).provision()
    document = to_dict(workflow)
    names = [parameter["name"] for parameter in document["spec"]["arguments"]["parameters"]]
    assert "learning-rate" not in names
    assert names[-1] == "rates"
    assert (document["metadata"]["generateName"], document["spec"]["parallelism"]) == ("mine-", 2)
    assert list(tasks_of(document, "exit")) == ["release", "report"]
    with pytest.raises(InvalidInput, match=r"no parameter lr[\s\S]*learning-rate"):
        pipeline(plan, without=["lr", "epochs"])


def test_a_step_that_the_workspace_does_not_configure_is_rejected(tmp_path: Path, plan: Plan) -> None:
    served = Templates(load(write(tmp_path, SERVES_ONLY)))
    assert served.rollout.name == "rollout"
    for name in ("download", "tune", "evaluate", "promote", "package", "check"):
        with pytest.raises(InvalidInput, match=f"served has no step {name}"):
            getattr(served, name)
    with pytest.raises(InvalidInput, match=r"no step check\s+fix: add pipeline\.schedule"):
        _ = Templates(plan).check
    scheduled = Templates(load(write(tmp_path, SCHEDULED)))
    assert {"changed", "previous"} <= {output.name for output in scheduled.check.outputs}


def test_to_dict_reports_what_argo_would_reject(plan: Plan) -> None:
    steps = Templates(plan)
    with pipeline(plan) as workflow, DAG(name="main"):
        steps.tune()
        steps.provision(depends="donwload")
    with pytest.raises(InvalidInput) as caught:
        to_dict(workflow)
    assert message(caught).startswith(
        "spec.templates[3].dag.tasks[0].arguments: template `tune` requires the input `data-"
    )
    assert "unknown task `donwload`" in message(caught)


def test_an_unknown_argument_of_a_step_is_rejected_at_the_call(plan: Plan) -> None:
    steps = Templates(plan)
    with pipeline(plan), DAG(name="main"):
        with pytest.raises(InvalidInput) as caught:
            steps.tune(arguments=[{"learning_rate": 1}, Parameter(name="push", value="true")])
        with pytest.raises(InvalidInput, match=r"provision has no input rank\s+fix: remove it"):
            steps.provision(arguments={"rank": 1})
    assert "tune has no input learning_rate\n    fix: did you mean learning-rate?" in message(caught)
    assert "tune has no input push" in message(caught)


def test_different_templates_of_one_name_are_rejected(tmp_path: Path, plan: Plan) -> None:
    """Hera would run the first one twice."""
    other = load(tmp_path / "workspace.yaml", {"tuning.dropout": 0.5})
    first, second = Templates(plan), Templates(other)
    digest = {"data-digest": "sha256:0"}
    with pipeline(plan) as workflow, DAG(name="main"):
        first.tune(arguments=digest)
        second.tune(name="other", arguments=digest)
    with pytest.raises(InvalidInput, match=r'duplicate template "tune"'):
        to_dict(workflow)
    renamed = Templates(other)
    renamed.tune.name = "tune-b"
    with pipeline(plan) as workflow, DAG(name="main"):
        first.tune(arguments=digest)
        Templates(plan).tune(name="again", arguments=digest)
        renamed.tune(name="other", arguments=digest)
    args = {name: templates_of(to_dict(workflow))[name]["container"]["args"] for name in ("tune", "tune-b")}
    assert "--dropout" not in args["tune"]
    assert args["tune-b"][args["tune-b"].index("--dropout") + 1] == "0.5"


def test_candidates_have_separate_directories_and_share_the_rows(plan: Plan) -> None:
    steps = Templates(plan, candidates=True)
    for template in (steps.tune, steps.evaluate):
        assert template.inputs[0].name == "candidate"
        assert flags(template).items() >= {
            ("--work", "/mnt/work/candidates/{{inputs.parameters.candidate}}"),
            ("--dataset", "/mnt/work/dataset"),
        }
    assert flags(steps.package)["--work"] == flags(Templates(plan).package)["--work"] == "/mnt/work"
    cleaned = flags(Templates(plan, dataset="cleaned").tune)
    assert (cleaned["--work"], cleaned["--dataset"]) == ("/mnt/work", "/mnt/work/cleaned")
    assert "--dataset" not in flags(Templates(plan).tune)


def flags(template: Any) -> dict[str, str]:
    return dict(zip(template.args[::2], template.args[1::2], strict=True))


def test_templates_can_be_created_within_a_workflow(plan: Plan) -> None:
    with pipeline(plan) as workflow:
        steps = Templates(plan)
        with DAG(name="main"):
            steps.provision()
    assert list(templates_of(to_dict(workflow))) == ["exit", "release", "report", "main", "provision"]


@pytest.mark.parametrize(("kind", "expected"), [("template", "WorkflowTemplate"), ("cron", "CronWorkflow")])
def test_other_kinds_have_the_plan_s_name(tmp_path: Path, kind: str, expected: str) -> None:
    plan = load(write(tmp_path, SCHEDULED))
    with pipeline(plan) as workflow, DAG(name="main"):
        Templates(plan).provision()
    document = yaml.safe_load(to_yaml(workflow, kind=kind, plan=plan))
    assert (document["kind"], document["metadata"]["name"]) == (expected, "tuned")
    with pytest.raises(InvalidInput, match="requires a plan"):
        to_yaml(workflow, kind=kind)
    with pytest.raises(InvalidInput, match="'crom'"):
        to_yaml(workflow, kind="crom", plan=plan)


def test_kind_cron_requires_a_schedule(plan: Plan) -> None:
    with pipeline(plan) as workflow, DAG(name="main"):
        Templates(plan).provision()
    with pytest.raises(InvalidInput, match="has no schedule"):
        to_dict(workflow, kind="cron", plan=plan)


def test_yaml_is_parsed_as_it_was_written(plan: Plan) -> None:
    words = ["2e-4", "1234e56", "0o17", "on", "{% if x %}{{ unbalanced", "two\nlines", "ünïcode"]
    with pipeline(plan) as workflow:
        Container(name="mine", image="registry.example.com/mine:1.0", command=["mine", *words])
        with DAG(name="main"):
            Templates(plan).provision()
    text = to_yaml(workflow)
    assert templates_of(yaml.safe_load(text))["mine"]["container"]["command"][1:] == words
    assert '"2e-4"' in text and '"1234e56"' in text


def test_a_custom_step_has_the_same_security_and_runs_locally(plan: Plan, tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "kept = pathlib.Path(sys.argv[1]); kept.mkdir(parents=True, exist_ok=True)\n"
        "(kept / 'said').write_text(sys.argv[2])\n"
        "outputs = pathlib.Path(os.environ['ARGOTUNE_OUTPUTS']); outputs.mkdir(parents=True, exist_ok=True)\n"
        "(outputs / 'length').write_text(str(len(sys.argv[2])))\n"
    )
    steps = Templates(plan)
    own = steps.custom_step(
        "say",
        plan.images.control,
        ["python", "-c", program, "/mnt/work/own", "{{inputs.parameters.word}}"],
        inputs=["word"],
        outputs=["length"],
    )
    with pipeline(plan) as workflow, DAG(name="main"):
        first = own(name="first", arguments={"word": "hello"})
        own(name="second", arguments={"word": first.get_parameter("length")}, depends="first")
    document = to_dict(workflow)
    release, custom = templates_of(document)["release"], templates_of(document)["say"]
    assert custom["container"]["securityContext"] == release["container"]["securityContext"]
    assert custom["retryStrategy"]["retryPolicy"] == "Always"
    outcome = runner.start(document, tmp_path / "run", name="own", timing=Timing(poll=0.02))
    assert outcome.phase == "Succeeded", outcome.message
    assert (outcome.outputs["first"], outcome.outputs["second"]) == ({"length": "5"}, {"length": "1"})
    assert (tmp_path / "run" / "volumes" / "work" / "own" / "said").read_text() == "5"


def test_a_composed_document_runs_from_a_file_and_from_a_pipe(plan: Plan, tmp_path: Path) -> None:
    with pipeline(plan) as workflow, DAG(name="main"):
        Templates(plan).provision()
    (tmp_path / "composed.yaml").write_text(to_yaml(workflow))
    for name in ("composed.yaml", "-"):
        command = [sys.executable, "-m", "workflows.cli", "run", name, "--runs-dir", str(tmp_path / "runs")]
        with (tmp_path / "composed.yaml").open() as text:
            done = subprocess.run(command, cwd=tmp_path, stdin=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len([run for run in (tmp_path / "runs").iterdir() if run.name.startswith("tuned-")]) == 2


def test_submit_creates_the_workflow_on_the_cluster_of_the_kubeconfig(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARGO_SERVER", raising=False)
    with pipeline(plan) as workflow, DAG(name="main"):
        Templates(plan).provision()
    with KubernetesServer() as cluster:
        file = str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace="argotune"))
        name = submit(workflow, {"epochs": "2"}, kubeconfig=file)
        [created] = cluster.all("workflows")
        with pytest.raises(InvalidInput, match='unknown parameter "epoch"'):
            submit(workflow, {"epoch": "2"}, kubeconfig=file)
    assert name.startswith("tuned-")
    assert (created["metadata"]["name"], created["metadata"]["namespace"]) == (name, "argotune")
    epochs = next(item for item in created["spec"]["arguments"]["parameters"] if item["name"] == "epochs")
    assert epochs["value"] == "2"


def test_the_cleaning_program_masks_and_keeps_each_row_once(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    def row(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}, {"role": "assistant", "content": "Ask jo.d@mail.example.com."}]

    (tmp_path / "in").mkdir()
    table = pa.table({"messages": [row("a@b.nl?"), row("c@d.nl?"), row("e")]})
    for name in ("train", "eval"):
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    program = Path(__file__).parents[2] / "examples" / "clean_rows.py"
    command = [sys.executable, str(program), str(tmp_path / "in"), str(tmp_path / "out")]
    digests = []
    for attempt in ("1", "2"):
        outputs = tmp_path / attempt
        subprocess.run(command, env={**os.environ, "ARGOTUNE_OUTPUTS": str(outputs)}, check=True)
        digests.append((outputs / "data-digest").read_text())
    assert digests[0] == digests[1] and digests[0].startswith("sha256:")
    rows = pq.read_table(tmp_path / "out" / "train.parquet").column("messages").to_pylist()
    assert [messages[0]["content"] for messages in rows] == ["[mail]?", "e"]
    assert rows[0][1]["content"] == "Ask [mail]."


def test_a_custom_workflow_can_check_the_settings_of_the_training_first(plan: Plan) -> None:
    steps = Templates(plan)
    with pipeline(plan, without=["learning-rate"]) as workflow, DAG(name="main"):
        checked = [steps.preflight(), steps.dryrun(arguments={"learning-rate": "1e-3"})]
        checked >> steps.provision()
    main = next(item for item in to_dict(workflow)["spec"]["templates"] if item["name"] == "main")
    arguments = {
        task["name"]: {item["name"]: item["value"] for item in task.get("arguments", {}).get("parameters", [])}
        for task in main["dag"]["tasks"]
    }
    assert arguments["dryrun"]["learning-rate"] == "1e-3"
    assert "learning-rate" not in arguments["preflight"], "the Workspace's value is the default"
    assert arguments["preflight"]["rank"] == "{{workflow.parameters.rank}}"
