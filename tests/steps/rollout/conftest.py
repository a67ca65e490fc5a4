from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes_server import KubernetesServer
from registry_fixture import Registry
from rollout_sample import hurry, push_adapters, run_in_pod, settings_of
from serving_cluster import Servers

from steps.rollout import rollout_cluster
from steps.rollout.settings import Settings


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
def in_pod(cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the rollout as in a pod of the fake cluster."""
    run_in_pod(cluster, tmp_path, monkeypatch)


@pytest.fixture
def settings(tmp_path: Path, images: dict[str, str]) -> Callable[..., Settings]:
    return functools.partial(settings_of, tmp_path / "work", images)
