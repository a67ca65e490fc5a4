"""``inference_config.yaml``: flags of vLLM are passed on, and what the rollout sets is rejected."""

import json

import pytest

from workflows.errors import InvalidInput
from workflows.spec import load

HEADER = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: served}
"""
TUNING = """\
tuning:
  preset: {name: phi-3-mini-4k-instruct}
  method: qlora
  config: flags
  input: {urls: ["https://data.example.com/train.parquet"]}
  output: {image: registry.example.com/team/adapter:1.0}
"""
INFERENCE = """\
inference:
  preset: {name: phi-3-mini-4k-instruct}
  config: flags
---
apiVersion: v1
kind: ConfigMap
metadata: {name: flags}
data:
  inference_config.yaml: |
"""
TRAINING_CONFIG = """\
    vllm: {max-lora-rank: 16}
  training_config.yaml: |
    training_config:
      LoraConfig:
"""
WORKSPACE = HEADER + INFERENCE
BOTH = HEADER + TUNING + INFERENCE + TRAINING_CONFIG


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        file = tmp_path / "workspace.yaml"
        file.write_text(text)
        [manifest] = load(file)
        return manifest

    return read_text


def test_flags_are_passed_with_dashes(read):
    manifest = read(WORKSPACE + "    vllm:\n      max_model_len: 2048\n      enable-chunked-prefill: true\n")
    assert manifest.inference_config == {"vllm": {"max-model-len": 2048, "enable-chunked-prefill": True}}
    assert manifest.source.line("inference_config.vllm.enable-chunked-prefill") == 15


def test_the_streaming_loader_of_vllm_is_accepted(read):
    flags = {"load-format": "runai_streamer", "model-loader-extra-config": {"concurrency": 16}}
    assert read(WORKSPACE + f"    vllm: {json.dumps(flags)}\n").inference_config == {"vllm": flags}


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ("vllm: {port: 80}", "inference_config.vllm.port", "is set by argotune"),
        ("vllm: {api_key: x}", "inference_config.vllm.api_key", "is set by argotune"),
        ("vllm: {api-server-count: 2}", "inference_config.vllm.api-server-count", "one API server only"),
        ("vllm: {data_parallel_size: 2}", "inference_config.vllm.data_parallel_size", "one API server only"),
        ("vllm: {data-parallel-backend: ray}", "inference_config.vllm.data-parallel-backend", "one API server only"),
        ("vllm: {api-server-c: 2}", "inference_config.vllm.api-server-c", "one API server only"),
        ("vllm: {middlew: x.Y}", "inference_config.vllm.middlew", "is set by argotune, as middleware"),
        ("vllm: {port.x: 80}", "inference_config.vllm.port.x", "is set by argotune"),
        ("vllm: {trust_remote_code: true}", "inference_config.vllm.trust_remote_code", "is not executed"),
        ("vllm: {dtype: --middleware=x}", "inference_config.vllm.dtype", "begins with a dash"),
        ("vllm: {stop: [a, --port, '80']}", "inference_config.vllm.stop", "begins with a dash"),
        ("vllm: {--port: 80}", "inference_config.vllm.--port", "is not a vLLM flag"),
        ("vllm: {nonsense-flag: 1}", "inference_config.vllm.nonsense-flag", "vLLM 0.32.0 has no such flag"),
        ("vllm: [a]", "inference_config.vllm", "must be a mapping of flags"),
        ("vlm: {a: 1}", "inference_config.vlm", "unknown key"),
        ("[a]", "inference_config", "must be a mapping"),
        ("vllm: {max-model-len: long}", "inference_config.vllm.max-model-len", "must be an integer"),
        (
            "vllm: {max-model-len: 8192}",
            "inference_config.vllm.max-model-len",
            "max-model-len 8192 exceeds model's maximum supported context window 4096 (ModelTokenLimit)",
        ),
        ("vllm: {max-num-seqs: 1, max_num_seqs: 2}", "inference_config.vllm.max_num_seqs", "duplicate"),
        ("vllm: {chat-template: /workspace/x}", "inference_config.vllm.chat-template", "KAITO's image"),
        ("vllm: {revision: '{{x}}'}", "inference_config.vllm.revision", "contains '{{'"),
    ],
)
def test_invalid_key_is_rejected_by_name(read, config, path, words):
    with pytest.raises(InvalidInput) as caught:
        read(f"{WORKSPACE}    {config}\n")
    [problem] = caught.value.problems
    assert (problem.path, problem.line) == (path, 13)
    assert words in problem.message


def test_adapter_larger_than_the_server_accepts_is_rejected(read):
    with pytest.raises(InvalidInput) as caught:
        read(f"{BOTH}        r: 32\n")
    [problem] = caught.value.problems
    assert (problem.path, problem.line) == ("training_config.LoraConfig.r", 23)
    assert "rank 32 exceeds max-lora-rank 16" in problem.message
    assert read(f"{BOTH}        r: 16\n").training.lora == {"r": 16}


def test_adapter_that_doubles_its_rank_is_checked_with_the_doubled_rank(read):
    with pytest.raises(InvalidInput) as caught:
        read(f"{BOTH}        r: 16\n        init_lora_weights: pissa\n")
    [problem] = caught.value.problems
    assert problem.path == "training_config.LoraConfig.r"
    assert "rank 32, which init_lora_weights pissa makes of 16, exceeds max-lora-rank 16" in problem.message
    assert problem.fix == "write 8, or max-lora-rank: 32"
    read(f"{BOTH}        r: 8\n        init_lora_weights: pissa\n")


@pytest.mark.parametrize(
    "key", ["use_dora: true", "bias: all", "modules_to_save: [lm_head]", "rank_pattern: {q_proj: 2}"]
)
def test_adapter_that_vllm_cannot_serve_is_rejected(read, key):
    with pytest.raises(InvalidInput, match="vLLM does not support such an adapter"):
        read(f"{BOTH}        {key}\n")
