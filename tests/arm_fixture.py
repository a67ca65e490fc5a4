"""Steps that create AKS nodes, in a pod with a fake Azure and without real waits."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from arm_server import A100, ASSERTION, CLIENT_ID, CLUSTER, GROUP, SUBSCRIPTION, TENANT, ArmServer
from certificates import write_certificate

from steps.provision import aks, aks_client
from steps.provision.settings import ClusterRef, ReleaseSettings, Settings

RUN = "11111111-2222-3333-4444-555555555555"
CLUSTER_REF = {"provider": "aks", "subscription": SUBSCRIPTION, "resource_group": GROUP, "cluster": CLUSTER}
NAMESPACE = "argotune"
NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


@dataclass
class Pod:
    """The steps of a run, against the fake server."""

    server: ArmServer
    work: Path
    waits: list[float] = field(default_factory=list)
    now: datetime.datetime = NOW
    read_timeout: float = 30

    def settings(self, **changes: Any) -> Settings:
        values = {"run": RUN, "workflow": "tuned-x7k2m", "workspace": "tuned", "namespace": NAMESPACE}
        values |= {"labels": {"apps": "tuned"}, "work": self.work, "instance_type": A100}
        return Settings(**{**values, **CLUSTER_REF, **changes})

    def provision(self, **changes: Any) -> Any:
        return aks.provision(self.settings(**changes), self.connect())

    def release(self, run: str = RUN, **changes: Any) -> str:
        return aks.release(ReleaseSettings(work=self.work, run=run, **{**CLUSTER_REF, **changes}), self.connect())

    def connect(self) -> aks_client.Cluster:
        pause = aks_client.Deadline(self.waits.append, lambda: sum(self.waits))
        return aks_client.connect(
            ClusterRef(**CLUSTER_REF), pause=pause, read_timeout=self.read_timeout, now=lambda: self.now
        )


@contextmanager
def serve_pod(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    """Start the fake server, and set the environment of a pod with a workload identity."""
    pytest.importorskip("azure.mgmt.containerservice")
    pair = write_certificate(folder)
    server = ArmServer(pair)
    (folder / "token").write_text(ASSERTION)
    environment = {
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "REQUESTS_CA_BUNDLE": str(pair.certificate),
        "ARGOTUNE_ARM_ENDPOINT": server.url,
        "AZURE_AUTHORITY_HOST": server.url,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT_ID,
        "AZURE_FEDERATED_TOKEN_FILE": str(folder / "token"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield Pod(server, folder)
    server.close()
