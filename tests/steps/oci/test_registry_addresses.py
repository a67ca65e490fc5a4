"""A registry, a redirect and a token server cannot make a step send requests to a metadata service."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from registry_fixture import Answer, Front

from steps.oci import reference, registry
from steps.oci.oci_layout import Image
from steps.runtime import addresses
from steps.runtime.errors import BadInput

pytestmark = pytest.mark.usefixtures("docker_config")
FORBIDDEN = ["169.254.169.254", "169.254.0.1:5000", "168.63.129.16", "100.100.100.200", "metadata.google.internal"]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_no_image_is_pulled_from_a_metadata_service(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadInput, match="metadata"):
        registry.pull_image(reference.parse(f"{host}/team/data:1"), tmp_path / "image")


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "metadata.google.internal"])
def test_a_redirect_to_a_metadata_service_is_rejected(tmp_path: Path, front: Front, host: str) -> None:
    front.before = lambda request: Answer(307, {"Location": f"http://{host}/latest"}, b"")
    with pytest.raises(BadInput, match="metadata"):
        registry.pull_image(reference.parse(f"{front.address}/app:1"), tmp_path / "image")


def test_a_token_server_that_is_a_metadata_service_is_rejected(tmp_path: Path, front: Front) -> None:
    challenge = 'Bearer realm="https://169.254.169.254/token",service="x"'
    front.before = lambda request: Answer(401, {"WWW-Authenticate": challenge}, b"")
    with pytest.raises(BadInput, match="metadata"):
        registry.pull_image(reference.parse(f"{front.address}/app:1"), tmp_path / "image")


def test_the_address_of_the_peer_is_checked_too(image: Image, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name has another address when the connection is made."""
    host, port = front.address.rsplit(":", 1)
    resolve = socket.getaddrinfo
    answers = iter(["8.8.8.8", host])

    def rebinding(name: str, *rest: Any, **named: Any) -> Any:
        return resolve(next(answers) if name == "rebind.example" else name, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(addresses, "METADATA_ADDRESSES", {host})
    monkeypatch.setenv("ARGOTUNE_INSECURE_REGISTRIES", f"rebind.example:{port}")
    with pytest.raises(BadInput, match=r"rebind\.example \(127\.0\.0\.1\) is a link-local or metadata address"):
        registry.pull_image(reference.parse(f"rebind.example:{port}/app:1"), image.layout.parent / "back")
    assert front.seen == []
