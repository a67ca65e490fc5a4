"""Servers get keys and limits by reference, and the rollout sends requests with a key."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from kubernetes_server import KubernetesServer
from rollout_sample import NAME, hurry, nap, run, run_in_pod, settings_of, version
from serving_cluster import NAMESPACE, Servers
from tiny_model import save_model

from steps.kubernetes import client as kubernetes_client
from steps.rollout import rollout_local, service_change
from steps.rollout.server_access import keys_folder
from steps.rollout.service_pod import build_pod
from steps.rollout.settings import Settings
from steps.rollout.step import rollout
from steps.runtime.errors import BadInput
from steps.serving import api_keys, server, serving_client

ALICE, OWN = "alice-0123456789", "own-0123456789abc"
CANARY = "0123456789"
"""Part of all keys."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "alice").write_text(ALICE)
    (keys / "argotune").write_text(OWN)
    monkeypatch.setenv(api_keys.FOLDER_VARIABLE, str(keys))
    return keys


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def values(**changes: Any) -> Settings:
    return Settings(work=Path("/mnt/work"), name=NAME, model="tests/base", **changes)


def test_a_pod_mounts_the_secret_and_has_the_limits() -> None:
    access = {"api_keys_secret": "clients", "requests_per_minute": 60, "tokens_per_minute": 9000}
    pod = build_pod(values(**access), {})["spec"]
    [container] = pod["containers"]
    assert {"name": "api-keys", "secret": {"secretName": "clients"}} in pod["volumes"]
    assert {"name": "api-keys", "mountPath": "/mnt/api-keys", "readOnly": True} in container["volumeMounts"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["ARGOTUNE_API_KEYS"] == "/mnt/api-keys"
    assert (environment["ARGOTUNE_REQUESTS_PER_MINUTE"], environment["ARGOTUNE_TOKENS_PER_MINUTE"]) == ("60", "9000")
    plain = build_pod(values(), {})["spec"]
    assert "api-keys" not in str(plain) and "PER_MINUTE" not in str(plain)


@pytest.mark.parametrize("variable", ["", "/nowhere"])
def test_a_secret_without_keys_is_reported_before_the_deployment(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(api_keys.FOLDER_VARIABLE, variable)
    assert keys_folder(values()) == ""
    with pytest.raises(BadInput, match="api-keys-secret: no API key of Secret clients found") as error:
        keys_folder(values(api_keys_secret="clients"))
    assert "--volume clients=DIRECTORY" in error.value.fix


@pytest.fixture
def cluster(cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesServer:
    hurry(monkeypatch)
    run_in_pod(cluster, tmp_path, monkeypatch)
    return cluster


@pytest.fixture
def settings(tmp_path: Path, images: dict[str, str]) -> Callable[..., Settings]:
    return functools.partial(settings_of, tmp_path / "work", images, api_keys_secret="clients")


def test_hot_load_canary_and_promotion_send_a_key(
    cluster: KubernetesServer,
    folder: Path,
    servers: Servers,
    settings: Callable[..., Settings],
    images: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = run(settings())
    assert first.answer == f"I am {version(images, 'one')}."
    url = f"{servers.service(NAME)}/v1/models"
    assert requests.get(url, timeout=120).status_code == 401
    assert requests.get(url, headers=bearer(ALICE), timeout=120).status_code == 200
    started = set(servers.pods)
    assert run(settings(image="two")).answer == f"I am {version(images, 'two')}."
    assert set(servers.pods) == started, "hot-loaded"
    run(settings(canary=50))
    promoted = service_change.promote(kubernetes_client.connect(nap), NAME, 30, nap)
    assert f"{NAME} serves {version(images, 'one')}" in promoted
    deployment = cluster.read("deployments", NAME, NAMESPACE)
    stored = [deployment, *cluster.all("configmaps"), *cluster.all("pods")]
    assert CANARY not in str(stored) + capfd.readouterr().out


def test_without_a_key_a_change_is_a_rolling_update(
    cluster: KubernetesServer,
    folder: Path,
    servers: Servers,
    settings: Callable[..., Settings],
    images: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As `argotune rollback` in a pod whose user has no key."""
    run(settings())
    run(settings(image="two"))
    monkeypatch.setattr(api_keys, "read_client_key", lambda folder: "")
    assert version(images, "one") in service_change.rollback(kubernetes_client.connect(nap), NAME, 30, nap)
    assert "hot load failed" in (log := capfd.readouterr().out) and "HTTP 401: the API key is missing" in log


def test_a_rejected_key_is_reported_with_its_fix(cluster: KubernetesServer, folder: Path, servers: Servers,
                                                 settings: Callable[..., Settings]) -> None:  # fmt: skip
    run(settings())
    address = servers.service(NAME)
    for key in ("", "another-0123456789"):
        with pytest.raises(serving_client.Unauthorized, match="HTTP 401: the API key is") as error:
            serving_client.complete(address, "base", "x", 1, 20, nap, api_key=key or "x")
        assert "set ARGOTUNE_API_KEY" in error.value.fix and CANARY not in str(error.value)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Settings]]:
    monkeypatch.setenv("ARGOTUNE_VLLM", "off")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(rollout_local, "MAX_TOKENS", 4)
    base = save_model(tmp_path / "base")
    work = tmp_path / "work"
    yield lambda **changes: Settings(
        work=work, preset="tiny", model=str(base), adapters=[], deadline_seconds=600, **changes
    )
    for name in (server.STARTING, server.RECORD):
        server.stop(work / "serve" / name, grace=0)


def test_a_local_server_requires_the_keys_of_its_folder(local: Callable[..., Settings], folder: Path) -> None:
    limits = {"requests_per_minute": 100}
    endpoint = rollout(local(api_keys_secret="clients", **limits)).endpoint
    assert requests.get(f"{endpoint}/v1/models", timeout=120).status_code == 401
    record = server.read(folder.parent / "work" / "serve" / server.RECORD)
    assert record is not None and record.api_keys == str(folder)
    (folder / "bob").write_text("bob-0123456789abc")
    assert requests.get(f"{endpoint}/v1/models", headers=bearer("bob-0123456789abc"), timeout=120).status_code == 200
    written = [path for path in (folder.parent / "work").rglob("*") if path.is_file()]
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]
    environment = Path(f"/proc/{record.pid}/environ").read_bytes()
    assert b"ARGOTUNE_REQUESTS_PER_MINUTE=100" in environment and CANARY.encode() not in environment
    os.environ.pop(api_keys.FOLDER_VARIABLE)
    open_again = rollout(local())
    assert requests.get(f"{open_again.endpoint}/v1/models", timeout=120).status_code == 200
