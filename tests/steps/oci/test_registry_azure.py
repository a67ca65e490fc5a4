"""Push to ACR without a password: the real azure-identity and a real registry, with fake Entra and ACR endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from acr_fixture import ASSERTION, ENTRA_TOKEN, TENANT, Acr, Entra, error_response, workload_identity
from registry_fixture import Front, Registry, Request, ref

from steps.oci import registry, registry_azure
from steps.oci.oci_layout import Image
from steps.runtime.errors import BadInput, StepError, TransientError

pytestmark = pytest.mark.usefixtures("docker_config")


@pytest.fixture
def acr(front: Front) -> Acr:
    return Acr(front)


@pytest.fixture
def entra(acr: Acr, tmp_path: Path) -> Iterator[Entra]:
    with workload_identity(tmp_path / "identity", acr) as server:
        yield server


def test_push_and_pull_by_workload_identity(
    image: Image, acr: Acr, entra: Entra, open_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = ref(f"{acr.address}/azure/adapter:1")
    assert registry.push_image(image.layout, target) == image.manifest.digest
    assert registry.pull_image(target, tmp_path / "back") == image.manifest.digest
    assert registry.manifest_exists(ref(f"{open_registry.address}/azure/adapter:1"))
    assert acr.exchanges == 2, "once for each session"
    [first, *_] = entra.requests
    assert first["grant_type"] == "client_credentials"
    assert first["scope"] == "https://containerregistry.azure.net/.default"
    assert first["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    captured = capfd.readouterr()
    assert not [text for text in ("canary", ASSERTION, ENTRA_TOKEN) if text in captured.out + captured.err]


def test_expired_refresh_token_is_renewed(image: Image, acr: Acr, entra: Entra) -> None:
    """An upload may take longer than the three hours that one lives."""

    def after(request: Request, answer):  # type: ignore[no-untyped-def]
        if request.method == "PUT" and acr.exchanges == 1:
            acr.access.clear()
            acr.refresh.clear()
        return answer

    acr.front.after = after
    assert registry.push_image(image.layout, ref(f"{acr.address}/azure/long:1")) == image.manifest.digest
    assert acr.exchanges == 2


def test_docker_credentials_come_first(image: Image, acr: Acr, entra: Entra, log_in: Callable[..., None]) -> None:
    log_in(acr.address, password="of-the-secret")
    with pytest.raises(BadInput, match="does not allow these credentials to push"):
        registry.push_image(image.layout, ref(f"{acr.address}/azure/secret:1"))
    assert entra.requests == []


def test_identity_without_a_role(image: Image, acr: Acr, entra: Entra) -> None:
    acr.roles = "pull"
    with pytest.raises(BadInput, match="does not allow the Azure identity of this step to push to") as caught:
        registry.push_image(image.layout, ref(f"{acr.address}/azure/reader:1"))
    assert "AcrPush" in caught.value.fix
    acr.exchange = lambda given: error_response(401, "UNAUTHORIZED", f"for {given}")  # type: ignore[method-assign]
    with pytest.raises(BadInput, match="rejects the Azure identity of this step") as caught:
        registry.push_image(image.layout, ref(f"{acr.address}/azure/reader:2"))
    assert "AcrPush" in caught.value.fix and "canary" not in str(caught.value)


def test_identity_unknown_to_entra(image: Image, acr: Acr, entra: Entra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", "another-client")
    with pytest.raises(BadInput, match="AADSTS70021: No matching federated identity") as caught:
        registry.push_image(image.layout, ref(f"{acr.address}/azure/unknown:1"))
    assert "federated credential" in caught.value.fix
    assert ASSERTION not in str(caught.value)


@pytest.mark.parametrize("kind", ["reset", "429", "500", "truncated"])
def test_temporary_failure_of_entra(image: Image, acr: Acr, entra: Entra, waits: list[float], kind: str) -> None:
    entra.front.faults.fail(kind, 1)
    target = ref(f"{acr.address}/azure/faults-{kind}:1")
    assert registry.push_image(image.layout, target, wait=waits.append) == image.manifest.digest
    assert entra.front.faults.happened
    assert len(waits) == 1


def test_unreachable_entra(image: Image, acr: Acr, entra: Entra, waits: list[float]) -> None:
    entra.front.close()
    with pytest.raises(TransientError, match="Microsoft Entra cannot be reached"):
        registry.push_image(image.layout, ref(f"{acr.address}/azure/away:1"), wait=waits.append)
    assert waits


def test_echoed_token_is_hidden(image: Image, acr: Acr, entra: Entra) -> None:
    acr.exchange = lambda given: error_response(400, "BAD", f"cannot read {given['access_token']}")  # type: ignore[method-assign]
    with pytest.raises(StepError, match=r"BAD: cannot read \*\*\*"):
        registry.push_image(image.layout, ref(f"{acr.address}/azure/echo:1"))


def test_token_is_not_sent_to_other_registries(
    image: Image, acr: Acr, entra: Entra, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its challenge says; only Azure's own names, and those that are listed."""
    monkeypatch.setenv("ARGOTUNE_AZURE_REGISTRIES", "other.example.com")
    with pytest.raises(BadInput, match="does not allow a client without credentials to push"):
        registry.push_image(image.layout, ref(f"{acr.address}/azure/foreign:1"))
    assert entra.requests == [] and acr.exchanges == 0


@pytest.mark.parametrize(
    ("host", "azure"),
    [
        ("mine.azurecr.io", True),
        ("mine.azurecr.cn", True),
        ("mine.azurecr.us", True),
        ("mine-hash.azurecr.io", True),
        ("azurecr.io", False),
        ("azurecr.io.example.com", False),
        ("evilazurecr.io", False),
        ("ghcr.io", False),
    ],
)
def test_azure_registries(host: str, azure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARGOTUNE_AZURE_REGISTRIES", raising=False)
    assert registry_azure.is_azure(host) is azure


def test_anonymous_without_an_identity(
    image: Image, acr: Acr, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulate a machine without Azure credentials; a registry can allow anonymous pulls."""
    monkeypatch.setenv("ARGOTUNE_AZURE_REGISTRIES", acr.address)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadInput, match="does not allow a client without credentials to pull"):
        registry.pull_image(ref(f"{acr.address}/azure/public:1"), image.layout.parent / "back")
    assert "anonymously: " in capsys.readouterr().out
    assert TENANT not in capsys.readouterr().out
