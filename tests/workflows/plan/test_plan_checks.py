"""Values from flags and environment variables are checked by the same rules as those of files."""

import importlib.util
import json
from pathlib import Path

import pytest
from workspace_sample import GOOD, write

from workflows import cli
from workflows.compile import pod
from workflows.compile.kinds import compile_as
from workflows.errors import InvalidInput
from workflows.estimate.plan_estimate import estimate
from workflows.load_plans import load_plans
from workflows.plan import checks

ROOT = Path(__file__).parents[3]
TUNED = str(ROOT / "examples" / "phi_3_mini_128k_qlora_parquet.yaml")

# Setting, path of the only problem, and words of its message.
REJECTED = {
    "contradiction": (
        'tuning.trainingArguments={"packing": true, "padding_free": false}',
        "tuning.trainingArguments.padding_free",
        "packed rows have no padding",
    ),
    "unknown key": ('tuning.loraConfig={"rnk": 1}', "tuning.loraConfig.rnk", "unknown key"),
    "wrong type": ('tuning.trainingArguments={"bf16": 3}', "tuning.trainingArguments.bf16", "true or false"),
    "other setting": (
        'tuning.trainingArguments={"seed": 1}',
        "tuning.trainingArguments.seed",
        "is set by tuning.seed",
    ),
    "rank": ("tuning.rank=1024", "tuning.rank", "vLLM supports no rank above 512"),
    "rank and limit": ('rollout.serverArguments={"max-lora-rank": 8}', "tuning.rank", "exceeds max-lora-rank 8"),
    "not servable": ('tuning.loraConfig={"use_dora": true}', "tuning.loraConfig.use_dora", "vLLM does not support"),
    "not for pairs": (
        'tuning.trainingArguments={"packing": true}',
        "tuning.trainingArguments.packing",
        "has no effect with objective dpo: pairs are not packed",
    ),
    "method": (
        'tuning.quantizationConfig={"load_in_4bit": false}',
        "tuning.quantizationConfig",
        "For method 'qlora', either 'load_in_4bit' or 'load_in_8bit' must be true",
    ),
    "inside": ('data.urls=["http://127.1/x.parquet"]', "data.urls[0]", "must not target a loopback"),
    "image": ("output.image=A B", "output.image", "Unable to parse output image reference"),
    "no such file": ('data.weights={"b.parquet": 2}', "data.weights.b.parquet", "no such file in the data"),
    "no weight": ('data.weights={"b.parquet": NaN}', "data.weights.b.parquet", "must be a finite number, not nan"),
    "no task": ('evaluation.tasks=["a b"]', "evaluation.tasks[0]", "'a b' is not a task name"),
    "task of a relative path": ('evaluation.tasks=["mine/t.yaml"]', "evaluation.tasks[0]", "is not a task name"),
    "task twice": ('evaluation.tasks=["mmlu", "mmlu"]', "evaluation.tasks[1]", "is a duplicate"),
    "no task to hold": ('evaluation.minTaskScores={"mmlu": 0.5}', "evaluation.minTaskScores", "no task is set"),
    "no task to limit": ("evaluation.taskLimit=10", "evaluation.taskLimit", "no task is set"),
    "task that no pod sees": (
        'evaluation.tasks=["mmlu", "/home/me/mine.yaml"]',
        "pipeline.evaluation.tasks[1]",
        "pods have no file /home/me/mine.yaml",
    ),
    "braces": ("rollout.question=what is {{x}}?", "rollout.question", "which Argo would replace"),
    "no answers": ("evaluation.samples=0", "evaluation.minExactMatch", "samples is 0"),
    "one GPU of each node": (
        "tuning.processes=1",
        "pipeline.tune.processes",
        "uses one of the 2 GPUs of each of 2 nodes",
    ),
    "size": ("resource.instanceType=Standard_NC24_A100", "resource.instanceType", "Unsupported instance type"),
    "no bfloat16": (
        'tuning.trainingArguments={"bf16": true}',
        "tuning.trainingArguments.bf16",
        "the NVIDIA V100 of Standard_NC6s_v3 has no bfloat16",
    ),
}
NUMBERS = ("epochs=0", "maxSteps=-2", "learningRate=0", "batchSize=0", "rank=0", "alpha=0", "dropout=1", "maxLength=0")
WITH = {
    "one GPU of each node": ["resource.count=2", "resource.gpus=2"],
    "no bfloat16": ["resource.instanceType=Standard_NC6s_v3"],
    "no answers": ["evaluation.minExactMatch=0.2"],
    "not for pairs": ["tuning.objective=dpo"],
}


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


@pytest.mark.parametrize("name", REJECTED)
def test_flags_are_checked_by_the_rules(name):
    setting, path, words = REJECTED[name]
    with pytest.raises(InvalidInput) as caught:
        load_plans(TUNED, [setting, *WITH.get(name, [])])
    [problem] = caught.value.problems
    assert problem.path == path
    assert words in problem.message


@pytest.mark.parametrize("setting", NUMBERS)
def test_out_of_range_numbers_are_rejected(setting):
    with pytest.raises(InvalidInput) as caught:
        load_plans(TUNED, [f"tuning.{setting}"])
    [problem] = caught.value.problems
    assert (problem.file, problem.path) == ("--set", f"tuning.{setting.partition('=')[0]}")
    assert problem.message.startswith("must be ")


def test_environment_variables_are_checked_by_the_rules(monkeypatch):
    monkeypatch.setenv("ARGOTUNE_TUNING__RANK", "600")
    with pytest.raises(InvalidInput, match=r"tuning\.rank: vLLM supports no rank above 512"):
        load_plans(TUNED)


def test_instance_type_from_a_flag_sets_the_number_of_gpus():
    [plan] = load_plans(TUNED, ["resource.instanceType=Standard_NC48ads_A100_v4"])
    assert (plan.resource.gpus, plan.origin("resource.gpus")) == (2, "SKU Standard_NC48ads_A100_v4")
    [plan] = load_plans(TUNED, ["resource.instanceType=Standard_NC48ads_A100_v4", "resource.gpus=1"])
    assert (plan.resource.gpus, plan.origin("resource.gpus")) == (1, "flag")


CUSTOM_POD = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: own}
resource: {labelSelector: {matchLabels: {apps: own}}}
inference:
  template:
    spec:
      containers: [{name: own, image: "registry.example.com/own:1.0"}]
"""


def test_a_custom_pod_has_no_keys_and_limits(tmp_path):
    file = tmp_path / "own.yaml"
    access = "pipeline: {rollout: {apiKeysSecret: clients, requestsPerMinute: 60, tokensPerMinute: 9}}\n"
    file.write_text(CUSTOM_POD + access)
    with pytest.raises(InvalidInput) as caught:
        load_plans(str(file))
    paths = ["rollout.apiKeysSecret", "rollout.requestsPerMinute", "rollout.tokensPerMinute"]
    assert [problem.path for problem in caught.value.problems] == paths
    assert "cannot be combined with inference.template" in caught.value.problems[0].message


def test_custom_pod_is_rejected_locally_before_the_run_starts(tmp_path, capsys):
    file = tmp_path / "own.yaml"
    file.write_text(CUSTOM_POD)
    assert cli.main(["run", str(file), "--runs-dir", str(tmp_path / "runs")]) == 2
    stderr = capsys.readouterr().err
    assert f"error: {file}:6: inference.template: a custom pod cannot run locally" in stderr
    assert not (tmp_path / "runs").exists()
    assert cli.main(["plan", str(file)]) == 0
    assert "no estimate for a custom pod" in capsys.readouterr().out
    assert cli.main(["compile", str(file), "-o", "json"]) == 0
    compiled = tmp_path / "own.json"
    compiled.write_text(capsys.readouterr().out)
    assert cli.main(["run", str(compiled), "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "a custom pod cannot run locally" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_chat_template_can_be_set():
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    [plan] = load_plans(TUNED, [f'tuning.modelConfig={{"chat_template": "{template}"}}'])
    assert plan.tuning.model_config_ == {"chat_template": template}


@pytest.mark.parametrize(
    ("annotation", "sets", "warning"),
    [
        ("", [], ""),
        ("karpenter-gpu", [], "Karpenter does not create the nodes"),
        ("karpenter-gpu", ["nodes.provider=karpenter"], ""),
    ],
)
def test_settings_without_effect_on_the_nodes_are_reported(tmp_path, capsys, annotation, sets, warning):
    annotations = f"  annotations: {{kaito.sh/node-class-name: {annotation}}}\n" if annotation else ""
    file = tmp_path / "workspace.yaml"
    file.write_text(Path(TUNED).read_text().replace("metadata:\n", f"metadata:\n{annotations}", 1))
    [plan] = load_plans(str(file), sets)
    assert plan.nodes.node_class == (annotation or "default")
    assert (warning in capsys.readouterr().err) is True
    assert not warning or plan.origin("nodes.nodeClass").startswith("Workspace (")


@pytest.mark.parametrize("written", ["Ubuntu", "ubuntu", "AzureLinux"])
def test_the_image_family_is_for_node_pools_of_aks(tmp_path, capsys, written):
    annotations = f"metadata:\n  annotations: {{kaito.sh/node-image-family: {written}}}\n"
    file = tmp_path / "workspace.yaml"
    file.write_text(Path(TUNED).read_text().replace("metadata:\n", annotations, 1))
    [plan] = load_plans(str(file))
    assert plan.nodes.image_family == written.lower()
    assert "the run does not create an AKS node pool" in capsys.readouterr().err
    aks = [f"nodes.{key}" for key in ("provider=aks", "subscription=s", "resourceGroup=g", "cluster=c")]
    [plan] = load_plans(str(file), aks)
    assert "AKS node pool" not in capsys.readouterr().err
    assert "--image-family" in json.dumps(compile_as(plan, "workflow"))


def test_dpo_has_separate_defaults_that_can_be_overridden(tmp_path):
    text = GOOD + "  tune: {objective: dpo}\n"
    [plan] = load_plans(str(write(tmp_path, text)))
    assert (plan.tuning.learning_rate, plan.tuning.epochs, plan.tuning.beta) == (5e-6, 1, 0.1)
    assert plan.origin("tuning.learningRate") == "objective dpo"
    [plan] = load_plans(str(write(tmp_path, text)), ["tuning.learningRate=1e-5"])
    assert (plan.tuning.learning_rate, plan.tuning.epochs) == (1e-5, 1)
    [plan] = load_plans(str(write(tmp_path, text)), ["tuning.objective=sft"])
    assert (plan.tuning.learning_rate, plan.tuning.epochs) == (2e-4, 3)


def test_local_tasks_require_the_package_and_their_files(tmp_path, monkeypatch):
    assert checks.MODELS == pod.MODELS
    existing, missing = tmp_path / "existing.yaml", tmp_path / "missing.yaml"
    existing.write_text("task: mine")
    tasks = ["mmlu", str(existing), str(missing), f"{pod.MODELS}/mine.yaml"]
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "lm_eval" else find(name, *rest)
    )
    with pytest.raises(InvalidInput) as caught:
        load_plans([TUNED], [f"evaluation.tasks={json.dumps(tasks)}"], local=True)
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [
        ("pipeline.evaluation.tasks", "evaluation.tasks: the package lm_eval is not installed"),
        ("pipeline.evaluation.tasks[2]", f"file {missing} not found"),
    ]


def test_dpo_settings_without_dpo_are_reported(tmp_path, capsys):
    load_plans(str(write(tmp_path, GOOD + "  tune: {beta: 0.3}\n")))
    assert "has no effect with objective sft" in capsys.readouterr().err


@pytest.mark.parametrize(
    "size",
    ["Standard_ND128isr_GB300_v6", "standard_nc80adis_h200_v9", "Standard_D16s_v5", "Standard_NC64-32ads_X_v9"],
)
def test_sizes_of_azure_that_are_not_listed_are_accepted_with_a_warning(tmp_path, capsys, size):
    """As in KAITO, for every size of the N and D series."""
    sets = [f"resource.instanceType={size}", f'nodes.fallbackInstanceTypes=["{size}"]', "resource.gpus=4"]
    text = Path(TUNED).read_text().replace("Standard_NC24ads_A100_v4", size).replace("Standard_NC6s_v3", size)
    file = tmp_path / "workspace.yaml"
    file.write_text(text)
    for plans in (load_plans(str(file), ["resource.gpus=4"]), load_plans(TUNED, sets)):
        [plan] = plans
        assert (plan.resource.instance_type, plan.resource.gpus) == (size, 4)
        assert estimate(plan).sku is None
        assert size in json.dumps(compile_as(plan, "workflow"))
    assert f"{size} is not a known size" in capsys.readouterr().err
