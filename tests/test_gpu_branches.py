"""Each module of the steps with a branch for CUDA has a test with the mark ``gpu``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TUNE, MODELS = "tests/steps/tune/test_tune_on_gpu.py", "tests/steps/models/test_models_on_gpu.py"
PROCESSES, EVALUATE = "tests/steps/tune/test_tune_processes.py", "tests/steps/evaluate/test_evaluate_on_gpu.py"
TESTS = {
    "steps/dryrun/step.py": f"{EVALUATE}::test_the_run_is_planned_for_the_gpu",
    "steps/evaluate/evaluated_models.py": f"{MODELS}::test_free_memory_of_all_gpus_counts",
    "steps/models/compute_dtype.py": f"{MODELS}::test_the_compute_capability_determines_the_dtype",
    "steps/models/model.py": f"{MODELS}::test_weights_are_loaded_onto_the_gpu",
    "steps/provision/step.py": f"{EVALUATE}::test_the_run_is_planned_for_the_gpu",
    "steps/serving/serve_transformers.py": (
        "tests/steps/serving/test_serve_on_gpu.py::test_one_gpu_is_used_directly_and_several_by_layers"
    ),
    "steps/tune/liger.py": "tests/steps/tune/test_liger.py::test_the_loss_is_the_same_with_liger",
    "steps/tune/oom_backoff.py": f"{TUNE}::test_out_of_memory_turns_on_checkpointing",
    "steps/tune/process_group.py": f"{PROCESSES}::test_two_gpus_train_as_one_does",
    "steps/tune/training_callbacks.py": (
        "tests/steps/tune/test_training_callbacks.py::test_a_gpu_records_the_peak_since_the_last_step"
    ),
    "steps/tune/training_config.py": f"{TUNE}::test_defaults_of_the_trainer_are_those_of_a_gpu",
    "steps/tune/unsupported_arguments.py": f"{TUNE}::test_settings_of_gpus_are_rehearsed_on_it",
}
"""Tests by module."""
ON_CLUSTERS = {"steps/provision/aks.py", "steps/provision/karpenter.py", "steps/provision/existing_nodes.py"}
"""Modules that report ``cuda`` for nodes of a cluster; they run without a GPU."""


def has_cuda_branch(tree: ast.AST) -> bool:
    """Return True if the code has the text ``cuda`` as a value, or calls ``torch.cuda``."""
    return any(
        (isinstance(node, ast.Constant) and node.value == "cuda")
        or (isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.cuda")
        for node in ast.walk(tree)
    )


def gpu_tests(file: Path) -> Iterator[str]:
    """Yield the names of a file's tests with the mark, alone or for the whole file."""
    tree = ast.parse(file.read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = [*node.decorator_list, *(n.value for n in tree.body if isinstance(n, ast.Assign) and _is_mark(n))]
            if any("pytest.mark.gpu" in ast.unparse(mark) for mark in marks):
                yield node.name


def _is_mark(node: ast.Assign) -> bool:
    return ast.unparse(node.targets[0]) == "pytestmark"


def test_each_module_with_a_cuda_branch_has_a_gpu_test() -> None:
    branches = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "steps").rglob("*.py")
        if has_cuda_branch(ast.parse(file.read_text()))
    }
    assert branches - ON_CLUSTERS == TESTS.keys(), "add the gpu test of the new branch to TESTS"


def test_the_gpu_tests_exist() -> None:
    missing = []
    for test in TESTS.values():
        file, _, name = test.partition("::")
        if name not in gpu_tests(ROOT / file):
            missing.append(test)
    assert missing == []
