"""KAITO's own files: each compiles, or is refused for a stated reason."""

from pathlib import Path

import pytest
import yaml

from workflows.compile.kinds import compile_as
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.spec import load

DATA = Path(__file__).parents[2] / "data" / "kaito"
FILES = sorted(DATA.glob("*.yaml")) + sorted(DATA.glob("v1alpha1/*.yaml"))
SEED = DATA / "v1alpha1" / "v0.3.0_kaito_workspace_tuning_phi_3.yaml"

# File: path and words of every reason for which it is refused. All other files compile.
NODES = "and multi-node serving is not supported"
NO_IMAGE = "loading weights from an image is not supported"
LLAMA_2 = [
    ("inference.preset.name", "Unsupported inference preset name llama-2-7b"),
    ("inference.preset.presetOptions.image", NO_IMAGE),
]
WITH_ADAPTERS = [
    ("inference.adapters[0].source.image", "<YOUR_IMAGE> is a placeholder"),
    ("inference.adapters[0].strength", "vLLM does not support adapter strength"),
]
REFUSED = {
    "kaito_configmap_tuning_phi_3": [("", "contains no Workspace, only ConfigMap")],
    "kaito_multiroleinference_deepseek-v3": [("kind", "disaggregated prefill and decode is not supported")],
    "kaito_multiroleinference_phi4_4": [("kind", "disaggregated prefill and decode is not supported")],
    "kaito_workspace_custom_config": [("inference_config.vllm.tensor-parallel-size", "need 2 GPUs")],
    "kaito_workspace_deepseek_r1": [("resource.count", NODES)],
    "kaito_workspace_deepseek_v3": [("resource.count", NODES)],
    "kaito_workspace_llama-3.3_70b_instruct": [("resource.count", NODES)],
    "kaito_workspace_mistral_large_3_675b_instruct": [("resource.count", NODES)],
    "kaito_workspace_deepseek_r1_distill_llama_8b_with_customized_config": [
        ("resource.instanceType", "Unsupported instance type <your-vm-sku>"),
        ("resource.preferredNodes[0]", "'<your-arc-node-name>' is not the name of a node"),
    ],
    "kaito_workspace_tool_calling": [("inference_config.vllm.chat-template", "is a path in KAITO's image")],
    "kaito_workspace_tuning_falcon_7b_oai": [
        ("tuning.preset.presetOptions.image", NO_IMAGE),
        ("tuning.config", "ConfigMap 'my-qlora-params' specified in 'config' not found"),
    ],
    "v0.3.0_kaito_workspace_falcon_7b_with_adapters": WITH_ADAPTERS,
    "v0.4.4_kaito_workspace_falcon_7b_with_adapters": WITH_ADAPTERS,
    "v0.3.0_kaito_workspace_llama2_7b": LLAMA_2,
    "v0.4.4_kaito_workspace_llama2_7b": LLAMA_2,
}


@pytest.fixture
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def test_every_rejected_file_exists():
    assert set(REFUSED) < {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kaito_example_compiles_or_is_rejected_for_a_stated_reason(file, no_site_profile):
    if file.stem not in REFUSED:
        compiled = [compile_as(plan, "workflow") for plan in load_plans(str(file))]
        assert [document["kind"] for document in compiled] == ["Workflow"]
        return
    with pytest.raises(InvalidInput) as caught:
        load_plans(str(file))
    found = caught.value.problems
    assert [problem.path for problem in found] == [path for path, _ in REFUSED[file.stem]]
    for problem, (_, words) in zip(found, REFUSED[file.stem], strict=True):
        assert words in problem.message
        assert problem.fix


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
