"""KAITO's own files: each compiles, or is refused for a stated reason."""

import os
from pathlib import Path

import pytest
import yaml

from workflows.compile.kinds import compile_as
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.spec import load

DATA = Path(__file__).parents[2] / "data" / "kaito"
OUTCOMES = DATA.parent / "kaito_outcomes.yaml"
FILES = sorted(DATA.rglob("*.yaml"))
HOW = "ARGOTUNE_REGENERATE=1 pytest tests/workflows/spec/test_spec_kaito_examples.py rewrites these outcomes."
SEED = DATA / "v1alpha1" / "v0.3.0_kaito_workspace_tuning_phi_3.yaml"


@pytest.fixture
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def outcome(file):
    """``compiles``, or each error with its fix."""
    try:
        documents = [compile_as(plan, "workflow") for plan in load_plans(str(file))]
    except InvalidInput as error:
        assert all(problem.fix for problem in error.problems), error.problems
        return [f"{problem.path}: {problem.message}; fix: {problem.fix}" for problem in error.problems]
    assert {document["kind"] for document in documents} == {"Workflow"}
    return "compiles"


def expected():
    return yaml.safe_load(OUTCOMES.read_text())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DATA)))
def test_kaito_document_compiles_or_is_rejected_for_a_stated_reason(file, no_site_profile, capsys):
    name, found = str(file.relative_to(DATA)), outcome(file)
    if os.environ.get("ARGOTUNE_REGENERATE"):
        known = expected() | {name: found}
        table = yaml.safe_dump(dict(sorted(known.items())), width=1000, allow_unicode=True)
        OUTCOMES.write_text(f"# {HOW}\n{table}")
    assert found == expected()[name]


def test_every_outcome_is_that_of_a_file():
    assert set(expected()) == {str(file.relative_to(DATA)) for file in FILES}


def test_the_oldest_tuning_example_loads_with_a_warning_that_names_a_successor():
    [manifest] = load(SEED)
    assert manifest.workspace.api_version == "kaito.sh/v1alpha1"
    retired, *placeholders = manifest.warnings
    assert (retired.path, retired.line) == ("resource.instanceType", 6)
    assert "Standard_NC6s_v3 is retired" in retired.message
    assert "Standard_NC24ads_A100_v4" in retired.fix
    assert all("placeholder" in warning.message for warning in placeholders)


def with_config(tmp_path, config, method, preset="phi-3-mini-128k-instruct"):
    """A Workspace that names the ConfigMap of a file of KAITO, in front of that file."""
    name = yaml.safe_load(config)["metadata"]["name"]
    workspace = SEED.read_text().replace("  method: qlora\n", f"  method: {method}\n  config: {name}\n")
    file = tmp_path / "workspace.yaml"
    file.write_text(workspace.replace("phi-3-mini-128k-instruct", preset) + "\n---\n" + config)
    [manifest] = load(file)
    return manifest


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_kaito_default_training_config_is_accepted_unchanged(tmp_path, method):
    lines = (DATA / "templates" / f"{method}-params.yaml").read_text().splitlines()
    config = "\n".join(line for line in lines if "{{" not in line)
    manifest = with_config(tmp_path, config, method)
    assert manifest.training.lora == {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}
    assert manifest.training.arguments == {"per_device_train_batch_size": 1, "ddp_find_unused_parameters": False}
    assert manifest.training.quantization["load_in_4bit"] is (method == "qlora")
    assert manifest.eval_split == 0
    output = " ".join(warning.message for warning in manifest.warnings)
    assert "checkpoints are written anyway" in output and "read as false" in output and "without evaluation" in output


def test_kaito_example_training_config_is_accepted_unchanged(tmp_path):
    manifest = with_config(tmp_path, (DATA / "kaito_configmap_tuning_phi_3.yaml").read_text(), "qlora")
    assert manifest.training.arguments == {
        "save_strategy": "epoch",
        "per_device_train_batch_size": 2,
        "ddp_find_unused_parameters": False,
    }
    assert any(
        "Phi3ForCausalLM has no layer q_proj, k_proj, v_proj" in warning.message for warning in manifest.warnings
    )


def test_kaito_default_inference_config_is_accepted_unchanged(tmp_path):
    lines = (DATA / "templates" / "inference-params.yaml").read_text().splitlines()
    config = "\n".join(line for line in lines if "{{" not in line)
    workspace = (DATA / "kaito_workspace_phi_4.yaml").read_text().rstrip() + "\n  config: inference-params-template\n"
    file = tmp_path / "workspace.yaml"
    file.write_text(f"{workspace}---\n{config}\n")
    [manifest] = load(file)
    assert manifest.inference_config == {"vllm": {"cpu-offload-gb": 0}}
    assert [warning.path for warning in manifest.warnings] == ["inference_config.kv_cache_cpu_memory_utilization"]
