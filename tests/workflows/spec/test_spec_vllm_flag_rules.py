"""vLLM's flags are checked against the list of its pinned version."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import presets
from workflows.spec.findings import Findings
from workflows.spec.source import Source
from workflows.spec.vllm_flag_rules import REMOVED, check_gpus, find_error

ROOT = Path(__file__).parents[3]


def test_the_list_is_of_the_version_of_the_image():
    image = re.search(r"^FROM vllm/vllm-openai:v(\S+)", (ROOT / "containers" / "serve.Dockerfile").read_text(), re.M)
    assert image
    assert presets.vllm_flags().version == image[1]


@pytest.mark.parametrize("model", presets.models(), ids=lambda model: model.name)
def test_flags_of_presets_are_valid(model):
    assert {flag: error for flag, value in model.vllm.items() if (error := find_error(flag, value))} == {}


@pytest.mark.parametrize(
    ("flag", "value", "message", "fix"),
    [
        ("nonsense-flag", 1, "vLLM 0.32.0 has no such flag", "remove it; vllm serve --help lists the flags"),
        ("max-model-length", 1, "vLLM 0.32.0 has no such flag", "did you mean max-model-len"),
        ("tensor-parallel-size", "two", "must be a whole number", "whole number"),
        ("tensor-parallel-size", 1.5, "must be a whole number", "whole number"),
        ("tensor-parallel-size", True, "must be a whole number", "whole number"),
        ("gpu-memory-utilization", "most", "must be a number", "number"),
        ("enable-prefix-caching", "maybe", "must be true or false", "write true or false"),
        ("kv-cache-dtype", "fp9", "'fp9' is not a value of this flag", "did you mean fp8?"),
        ("dtype", "int", "'int' is not a value of this flag", "write one of auto, bfloat16"),
        ("tool-call-parser", "hermess", "is not a value of this flag", "did you mean hermes?"),
        ("quantization", ["awq"], "must be a text", "text"),
    ],
)
def test_invalid_flags_and_values(flag: str, value: Any, message: str, fix: str) -> None:
    error = find_error(flag, value)
    assert error is not None
    assert message in error[0]
    assert fix in error[1]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("tensor-parallel-size", 2),
        ("tensor-parallel-size", "2"),
        ("gpu-memory-utilization", 0.9),
        ("gpu-memory-utilization", 1),
        ("enable-prefix-caching", False),
        ("no-enable-prefix-caching", True),
        ("kv-cache-dtype", "fp8"),
        ("max-model-len", "auto"),
        ("max-model-len", 4096),
        ("compilation-config.mode", 3),
        ("speculative-config", {"method": "ngram"}),
        ("performance-mode", "throughput"),
    ],
)
def test_valid_flags(flag: str, value: Any) -> None:
    assert find_error(flag, value) is None


def test_removed_flags_are_not_in_the_list() -> None:
    assert not set(REMOVED) & set(presets.vllm_flags().flags)


def test_a_plugin_defines_names_of_parsers() -> None:
    assert find_error("tool-call-parser", "mine", ["tool-call-parser"])
    assert find_error("tool-call-parser", "mine", ["tool-call-parser", "tool-parser-plugin"]) is None


@given(st.text(), st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_any_flag_and_value_is_accepted_or_explained(flag: str, value: Any) -> None:
    error = find_error(flag, value)
    assert error is None or all(error)


@given(
    st.sampled_from(sorted(presets.vllm_flags().flags)),
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.lists(st.text()),
)
def test_any_value_of_a_known_flag_is_accepted_or_explained(flag: str, value: Any) -> None:
    error = find_error(flag, value)
    assert error is None or all(error)


@pytest.mark.parametrize(
    ("flags", "instance_type", "message"),
    [
        ({"tensor-parallel-size": 8}, "Standard_NC24ads_A100_v4", "tensor-parallel-size 8 need 8 GPUs"),
        ({"tensor-parallel-size": "2", "pipeline-parallel-size": 2}, "Standard_NC48ads_A100_v4", "need 4 GPUs"),
        ({"tensor-parallel-size": 2}, "Standard_NC48ads_A100_v4", ""),
        ({"tensor-parallel-size": 8}, None, ""),
        ({}, "Standard_NC24ads_A100_v4", ""),
    ],
)
def test_parallel_sizes_fit_the_node(flags: dict[str, Any], instance_type: str | None, message: str) -> None:
    findings = Findings(Source("file"))
    check_gpus(flags, presets.sku(instance_type) if instance_type else None, findings)
    found = [problem.message for problem in findings.errors]
    assert len(found) == bool(message)
    assert all(message in text for text in found)


def test_each_flag_has_a_type() -> None:
    content = json.loads((ROOT / "presets" / "vllm_flags.json").read_text())
    assert len(content["flags"]) > 200
    assert not [name for name in content["flags"] if name.startswith("-") or "_" in name]
