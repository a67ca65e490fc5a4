from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_server import KubernetesServer
from registry_fixture import Registry
from rollout_sample import push_adapters
from serving_cluster import Servers

from steps.rollout import rollout_cluster


@pytest.fixture(scope="module")
def images(open_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """References of the adapters that the rollout tests deploy."""
    return push_adapters(open_registry.address, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def servers(cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """The servers of the cluster, reachable at the addresses of its services."""
    running = Servers(cluster, tmp_path / "pods")
    monkeypatch.setattr(rollout_cluster, "service_address", lambda _, name: running.service(name))
    yield running
    running.close()
