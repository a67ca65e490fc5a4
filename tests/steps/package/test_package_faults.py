"""Every call of a push fails once in every way, and the process is killed after each: the rerun ends well."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import fault_table
import pytest
import requests
from acr_fixture import Acr, workload_identity
from faults import KINDS, Faults, kill_proof, read_timeout
from registry_fixture import Front, Registry, ref

from steps.models.adapter import adapter_digest
from steps.oci import oci_layout, registry, registry_client, registry_upload
from steps.package.settings import Settings
from steps.package.step import package
from steps.runtime.retry import RetryPolicy

pytestmark = pytest.mark.usefixtures("docker_config")
NUMBER = itertools.count()
CHUNK = 4096


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, and no waiting."""
    monkeypatch.setattr(registry_upload, "CHUNK", CHUNK)
    monkeypatch.setattr("os.fsync", lambda _: None)  # Processes are killed here, machines are not.
    monkeypatch.setattr(registry_client, "RETRY", RetryPolicy(initial_seconds=0.0, max_retry_after_seconds=0.0))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(CHUNK + 100))
    return folder


class Push:
    """A package step against a new repository, and what is there in the end."""

    def __init__(self, tmp_path: Path, adapter: Path, behind: Registry) -> None:
        number = next(NUMBER)
        self.work = tmp_path / f"work-{number}"
        self.work.mkdir()
        (self.work / "adapter").symlink_to(adapter)
        self.behind = behind.address
        self.front = Front(behind.address)
        self.repository = f"faults/{os.getpid()}-{number}"
        self.settings = Settings(
            work=self.work,
            image=f"{self.front.address}/{self.repository}:1-abc",
            moving_image=f"{self.front.address}/{self.repository}:1",
        )

    def run(self, kind: str, call: int, name: str = "") -> tuple[Faults, str]:
        faults = self.front.faults
        if kind:
            faults.fail(kind, call, name)
        try:
            with pytest.MonkeyPatch.context() as patch:
                for module in ("registry_client", "registry_auth", "registry_azure"):
                    patch.setattr(f"steps.oci.{module}.TIMEOUT", (30.0, read_timeout(kind)))
                first = kill_proof(faults, self.package) if kind == "killed" else bool(self.package())
                if not first:
                    package(self.settings)
            self.check()
        finally:
            self.front.close()
        return faults, "pushed" if first else "pushed after a restart"

    def package(self) -> object:
        return package(self.settings)

    def check(self) -> None:
        """Both tags are the image, which comes back whole; one statement; no upload is left that will be resumed."""
        image = oci_layout.read_image(self.work / "image")
        back = registry.pull_adapter(ref(f"{self.behind}/{self.repository}:1"), self.work / "back")
        assert adapter_digest(back) == adapter_digest(self.work / "adapter")
        assert registry.manifest_exists(ref(f"{self.behind}/{self.repository}:1-abc@{image.manifest.digest}"))
        tag = image.manifest.digest.replace(":", "-")
        url = f"http://{self.behind}/v2/{self.repository}/manifests/{tag}"
        index = requests.get(url, headers={"Accept": oci_layout.INDEX}, timeout=30).json()
        assert [entry["digest"] for entry in index["manifests"]] == [r.manifest.digest for r in image.referrers]
        tags = requests.get(f"http://{self.behind}/v2/{self.repository}/tags/list", timeout=30).json()["tags"]
        assert sorted(tags) == ["1", "1-abc", tag]
        assert not list(self.work.glob(".*")), "nothing is left behind"


@pytest.mark.slow
def test_faults_of_every_call(tmp_path: Path, adapter: Path, open_registry: Registry) -> None:
    run = fault_table.by_name(lambda *call: Push(tmp_path, adapter, open_registry).run(*call))
    rows = fault_table.sweep("package", run, sample=2)
    fault_table.check("package", rows, sample=True)


def test_faults_of_every_call_with_an_azure_token(tmp_path: Path, adapter: Path, open_registry: Registry) -> None:
    """Only the token requests; the others are the same in every registry."""

    def run(kind: str, call: int) -> tuple[Faults, str]:
        push = Push(tmp_path, adapter, open_registry)
        with workload_identity(tmp_path / "identity", Acr(push.front)):
            return push.run(kind, call)

    calls = list(run("", 0)[0].calls)
    tokens = [number for number, call in enumerate(calls, 1) if "/oauth2/" in call][:2]
    assert [calls[number - 1] for number in tokens] == ["POST /oauth2/exchange", "POST /oauth2/token"]
    rows = [
        fault_table.Row("package", calls[number - 1], kind, run(kind, number)[1])
        for turn, number in enumerate(tokens)
        for kind in fault_table.select_faults(KINDS, 3, turn)
    ]
    fault_table.check("package: workload identity", rows, sample=True)


def test_upload_state_has_no_secret(tmp_path: Path, adapter: Path, open_registry: Registry) -> None:
    push = Push(tmp_path, adapter, open_registry)
    push.front.faults.fail("killed", 5)
    assert not kill_proof(push.front.faults, push.package)
    [memory] = push.work.glob(".*.json")
    assert set(json.loads(memory.read_text())) == {"repository", "blob", "location", "offset"}
    push.front.close()
