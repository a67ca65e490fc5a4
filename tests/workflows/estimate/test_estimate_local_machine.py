"""``argotune run`` checks the memory of the local machine, not that of the instance type of the Workspace."""

import pytest
from test_estimate_plan import LARGE, SMALL_GPU, on, without_serving
from workspace_sample import GOOD, write

from steps.runtime import machine
from steps.runtime.machine import Gpu, Machine
from workflows import cli, estimate
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans

LAPTOP = Machine(cores=8, memory_gib=16, disk_gib=100, gpus=())
WORKSTATION = Machine(cores=8, memory_gib=16, disk_gib=100, gpus=(Gpu("NVIDIA RTX 4090", 24.0),))


@pytest.fixture(autouse=True)
def _no_site(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def memory_warnings(folder, on_machine, text, *sets, cuda=True):
    [plan] = load_plans([str(write(folder, text))], sets, local=True)
    return estimate.memory_warnings(plan, on_machine, cuda=cuda)


def test_model_too_large_for_the_instance_type_is_rejected_only_on_a_cluster(tmp_path):
    file = str(write(tmp_path, on(SMALL_GPU, LARGE)))
    with pytest.raises(InvalidInput, match="Insufficient total GPU memory"):
        load_plans(file)
    assert [plan.name for plan in load_plans([file], local=True)] == ["tuned"]


def test_local_run_ignores_the_instance_type_and_warns_about_local_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "read", lambda _: LAPTOP)
    monkeypatch.chdir(tmp_path)
    # Without a run to resume nothing starts; the Workspace is compiled before that error.
    assert cli.main(["run", str(write(tmp_path, on(SMALL_GPU, LARGE))), "--resume"]) == 2
    messages = capsys.readouterr().err
    assert "no unfinished run" in messages
    assert "A10" not in messages
    assert "warning: " in messages and "but the local machine has 15.2 GiB" in messages


def test_cpu_needs_more_memory_and_settings_that_fit_are_proposed(tmp_path):
    text = without_serving(GOOD)
    assert memory_warnings(tmp_path, WORKSTATION, text) == []
    [problem] = memory_warnings(tmp_path, LAPTOP, text)
    assert problem.message.startswith("tuning needs about ")
    settings = [part.split(" (")[0] for part in problem.fix.removeprefix("any one of: ").split("; ")]
    assert settings[0] == "TrainingArguments.gradient_checkpointing: true"
    sets = [setting for setting in settings if setting.startswith("tuning.")]
    assert sets
    for setting in sets:
        assert memory_warnings(tmp_path, LAPTOP, text, setting) == []


def test_gpus_unusable_by_torch_are_not_counted(tmp_path):
    [problem] = memory_warnings(tmp_path, WORKSTATION, without_serving(GOOD), cuda=False)
    assert "the local machine has 15.2 GiB" in problem.message


def test_each_gpu_that_is_too_small_is_named(tmp_path):
    small = Machine(cores=8, memory_gib=64, disk_gib=100, gpus=(Gpu("NVIDIA T4", 15.0),))
    found = memory_warnings(tmp_path, small, LARGE)
    assert [problem.path for problem in found] == ["tuning", "inference"]
    assert all("a local GPU (NVIDIA T4) has 14.8" in problem.message for problem in found)


def test_kaito_bypass_annotation_suppresses_the_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "read", lambda _: LAPTOP)
    bypassed = LARGE.replace(
        "  name: tuned\n", '  name: tuned\n  annotations: {kaito.sh/bypass-resource-checks: "true"}\n', 1
    )
    for text, warned in ((LARGE, True), (bypassed, False)):
        load_plans([str(write(tmp_path, text))], local=True)
        assert ("GiB" in capsys.readouterr().err) is warned
