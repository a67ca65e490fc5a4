"""Every call to a registry fails once in every way, and the process is killed after each: the check ends well."""

from __future__ import annotations

from pathlib import Path

import fault_table
import pytest
from faults import Faults, kill_proof
from registry_fixture import Front, Registry, ref

from steps import registry_client
from steps.preflight import Settings, preflight
from steps.registry_client import RegistryClient

pytestmark = pytest.mark.usefixtures("docker_config")


def test_every_call_fails_once_in_every_way(
    tmp_path: Path, open_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_client, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(registry_client, "TIMEOUT", (5.0, 0.2))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    def run(kind: str, call: int) -> tuple[Faults, str]:
        front = Front(open_registry.address)
        settings = Settings(work=tmp_path, image=f"{front.address}/flight/faults:1")
        if kind:
            front.faults.fail(kind, call)
        try:
            ended = kill_proof(front.faults, lambda: preflight(settings))
            if not ended:
                preflight(settings)
        finally:
            front.close()
        # Uploads that nobody goes on with are the registry's own to forget; nothing else was made.
        assert not RegistryClient(ref(f"{open_registry.address}/flight/faults:1")).manifest_digest("1")
        return front.faults, "asked" if ended else "asked by the second run"

    fault_table.check("preflight", fault_table.sweep("preflight", run))
