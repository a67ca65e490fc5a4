"""Checks of Azure's instance types and quotas before a pool is created."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arm_fixture import CLUSTER_REF, Pod, serve_pod
from arm_server import A10, A100

from steps.preflight.settings import Settings
from steps.preflight.step import preflight
from steps.runtime.errors import InsufficientCapacity


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with serve_pod(tmp_path, monkeypatch) as pod:
        yield pod


def look(pod: Pod, **given: Any) -> list[str]:
    settings = {"work": pod.work, "instance_type": A100, "run": "r", **CLUSTER_REF, **given}
    return preflight(Settings(**settings)).checked


def test_instance_type_within_the_quota(pod: Pod) -> None:
    assert f"{A100} (on demand) is available in eastus, according to Azure" in look(pod)
    assert pod.server.azure.made == []


def test_exhausted_quota_is_reported(pod: Pod) -> None:
    with pytest.raises(
        InsufficientCapacity, match=r"none of the requested instance types is available: .* vCPUs are required"
    ) as caught:
        look(pod, count=50)
    assert "aka.ms/azquotaincrease" in caught.value.fix
    assert caught.value.exit_code == 4
    with pytest.raises(InsufficientCapacity, match="not offered in"):
        look(pod, instance_type="Standard_Nothing")


def test_one_available_instance_type_is_enough(pod: Pod) -> None:
    checks = look(pod, instance_type="Standard_Nothing", fallback_instance_types=[A10])
    [sentence] = [check for check in checks if A10 in check]
    assert sentence.startswith(f"{A10} (on demand) is available in eastus, according to Azure; ")
    assert "Standard_Nothing (on demand) is unavailable: not offered in eastus" in sentence
