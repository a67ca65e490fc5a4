"""The provision step on the local machine, with and without a fake nvidia-smi."""

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from steps.provision.settings import Settings
from steps.provision.step import provision, shortfall
from steps.release.settings import Settings as ReleaseSettings
from steps.release.step import release
from steps.runtime import machine

A100 = "Standard_NC24ads_A100_v4"


@pytest.fixture(autouse=True)
def local_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a fake nvidia-smi on ``PATH``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return program


def write_program(program: Path, *lines: str, code: int = 0) -> None:
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + f"exit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_resources_of_the_local_machine(tmp_path: Path) -> None:
    local = machine.read(tmp_path / "not" / "there" / "yet")
    assert 1 <= local.cores <= (os.cpu_count() or 1)
    assert 0 < local.memory_gib <= psutil.virtual_memory().total / machine.GIB
    assert local.disk_gib > 0


def test_limits_of_the_container_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{machine.GIB}\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    local = machine.read(tmp_path)
    assert (local.cores, local.memory_gib) == (1, 1.0)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.read(tmp_path).memory_gib > 1


def test_missing_gpus_are_reported(nvidia_smi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_program(nvidia_smi, "NVIDIA-SMI has failed because it could not talk to the driver.", code=9)
    result = provision(Settings(work=tmp_path, instance_type=A100, count=2))
    output = capsys.readouterr().out
    assert result.device == "cpu"
    assert result.nodes == [socket.gethostname()]
    assert "tuning runs on the CPU, which suits small models" in result.summary
    assert f"nodes on a cluster: 2 x {A100} (24 vCPUs, 1 x NVIDIA A100 80 GiB)" in output
    assert re.search(r"^less than on a cluster: 1 of 2 machines; no GPU(; \d+ of 24 vCPUs)?$", output, re.MULTILINE)


def test_gpus_are_listed_and_used(nvidia_smi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(
        nvidia_smi,
        "0, GPU-1a, NVIDIA A100-SXM4-80GB, 81920",
        "1, GPU-1b, NVIDIA A100-SXM4-80GB, 81920",
        "a line of noise",
    )
    monkeypatch.setattr(machine, "is_torch_built_with_cuda", lambda: True)
    result = provision(Settings(work=tmp_path, instance_type=A100))
    assert result.device == "cuda"
    assert result.summary.endswith("tuning runs on 2 x NVIDIA A100-SXM4-80GB 80 GiB")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert len(machine.read(tmp_path).gpus) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.read(tmp_path).gpus == ()


def test_torch_without_cuda_uses_the_cpu(nvidia_smi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(nvidia_smi, "0, GPU-1a, Tesla T4, 15360")
    folder = tmp_path / "packages" / "torch"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('provision must not import torch')\n")
    (folder / "version.py").write_text("cuda: Optional[str] = None\nhip: Optional[str] = None\n")
    environment = {**os.environ, "PYTHONPATH": str(folder.parent)}
    command = [sys.executable, "-m", "steps.provision", "--work", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "device: cpu" in done.stdout
    assert "built without CUDA and cannot use Tesla T4" in done.stdout
    (folder / "version.py").write_text("cuda: Optional[str] = '12.8'\n")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "device: cuda" in done.stdout


def test_smaller_gpus_are_reported_except_for_memory_of_the_driver(tmp_path: Path) -> None:
    import presets

    requested = presets.sku(A100)
    settings = Settings(work=tmp_path, instance_type=A100)

    def local(memory: float) -> machine.Machine:
        return machine.Machine(24, 220, 100, (machine.Gpu("NVIDIA A100", memory),))

    assert shortfall(settings, requested, local(79.2)) == []
    assert shortfall(settings, requested, local(40)) == ["1 x NVIDIA A100 40 GiB"]


def test_unknown_instance_type_is_reported_and_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = provision(Settings(work=tmp_path, instance_type="Standard_NC24ads_A100_v5"))
    output = capsys.readouterr().out
    assert "Standard_NC24ads_A100_v4" in output, "a similar name is suggested"
    assert "tuning runs on" in result.summary


def test_in_a_cluster_the_autoscaler_adds_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("NODE_NAME", "aks-system-1")
    result = provision(Settings(work=tmp_path, instance_type=A100))
    assert result.device == "cuda", "the device of the GPU pods"
    assert result.nodes == ["aks-system-1"]
    assert "autoscaler" in result.summary
    assert "autoscaler" in release(ReleaseSettings(work=tmp_path)).summary


def test_local_run_releases_nothing(tmp_path: Path) -> None:
    assert release(ReleaseSettings(work=tmp_path)).summary.startswith("nothing to release")
