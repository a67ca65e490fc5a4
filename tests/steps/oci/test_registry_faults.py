"""Faults between client and registry, and their messages."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from registry_fixture import PASSWORD, USER, Answer, BreakingWire, Front, Registry, Request, ref

from steps.oci import oci_layout, registry
from steps.oci.oci_layout import Image
from steps.oci.registry_auth import uses_plain_http
from steps.oci.registry_client import RETRY, RegistryClient
from steps.runtime.errors import BadInput, StepError, TransientError

pytestmark = pytest.mark.usefixtures("docker_config")
LogIn = Callable[..., None]
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize("limit", [600, 1_000_000])
def test_interrupted_upload_recovers(
    image: Image, open_registry: Registry, waits: list[float], limit: int, capsys: pytest.CaptureFixture[str]
) -> None:
    wire = BreakingWire(open_registry.address, limit, cuts=3)
    try:
        target = ref(f"{wire.address}/interrupted-{limit}:1.0")
        assert registry.push_image(image.layout, target, wait=waits.append) == image.manifest.digest
    finally:
        wire.close()
    assert wire.cut == 3
    assert len(waits) == 3
    assert "cannot be reached" in capsys.readouterr().out


def test_interrupted_download_recovers(image: Image, front: Front, waits: list[float], tmp_path: Path) -> None:
    target = ref(f"{front.address}/cut-short:1.0")
    registry.push_image(image.layout, target)
    cuts = iter([100, 2_000_000])

    def after(request: Request, answer: Answer) -> Answer:
        if request.method == "GET" and image.layers[0].digest in request.path and (cut := next(cuts, 0)):
            return Answer(answer.status, {**answer.headers, "Connection": "close"}, answer.body[:cut])
        return answer

    front.after = after
    assert registry.pull_image(target, tmp_path / "back", wait=waits.append) == image.manifest.digest
    oci_layout.read_image(tmp_path / "back")
    assert len(waits) == 2


def test_unreachable_registry(image: Image, waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TransientError) as caught:
        registry.push_image(image.layout, ref(f"localhost:{port}/app:1"), wait=waits.append)
    assert caught.value.exit_code == 1
    assert f"localhost:{port} cannot be reached" in str(caught.value) and "refused" in str(caught.value)
    assert len(waits) == RETRY.max_attempts - 1
    assert waits == sorted(waits)


def test_busy_registry_is_retried(image: Image, front: Front, waits: list[float]) -> None:
    answers = iter([Answer(429, {"Retry-After": "7"}), Answer(503, {"Retry-After": "9999"}), Answer(500)])
    front.before = lambda request: next(answers, None) if request.method == "PUT" else None
    registry.push_image(image.layout, ref(f"{front.address}/busy:1"), wait=waits.append)
    assert waits[:2] == [7, 120]
    assert 0 < waits[2] <= 4


def test_digest_mismatch_is_rejected(image: Image, front: Front, tmp_path: Path) -> None:
    target = ref(f"{front.address}/tampered:1.0")
    registry.push_image(image.layout, target)

    def flip(request: Request, answer: Answer) -> Answer:
        return Answer(answer.status, answer.headers, answer.body[:-1] + bytes([answer.body[-1] ^ 1]))

    for part, asked in (("/blobs/", target), ("/manifests/", ref(f"{target.name}@{image.manifest.digest}"))):
        front.after = lambda r, a, part=part: flip(r, a) if r.method == "GET" and part in r.path else a
        with pytest.raises(StepError, match="that does not match sha256:"):
            registry.pull_adapter(asked, tmp_path / "mine")
        assert not (tmp_path / "mine").exists()
    front.after = lambda r, a: Answer(a.status, {**a.headers, "Docker-Content-Digest": "sha256:" + "0" * 64}, a.body)
    with pytest.raises(StepError, match="is sha256:0000"):
        registry.push_image(image.layout, target)


def test_unknown_names(image: Image, open_registry: Registry, front: Front, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no .*/nowhere:1: HTTP 404 MANIFEST_UNKNOWN") as caught:
        registry.pull_adapter(ref(f"{open_registry.address}/nowhere:1"), tmp_path / "mine")
    assert "check the name" in str(caught.value)
    body = json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "no such repository"}]}).encode()
    front.before = lambda request: Answer(404, {}, body)
    with pytest.raises(BadInput, match="NAME_UNKNOWN: no such repository") as caught:
        registry.push_image(image.layout, ref(f"{front.address}/nowhere:1"))
    assert "create the repository" in str(caught.value)


def test_rejected_manifest(open_registry: Registry) -> None:
    client = RegistryClient(ref(f"{open_registry.address}/broken:1"), push=True)
    with pytest.raises(StepError, match=r"rejected PUT /v2/broken/manifests/1: HTTP 400 MANIFEST_INVALID"):
        client.put_manifest("1", oci_layout.MANIFEST, b"no manifest")


def test_proxy_with_a_body_limit(image: Image, front: Front) -> None:
    front.before = lambda request: Answer(413) if request.method == "PUT" else None
    with pytest.raises(StepError, match="no blob of this size") as caught:
        registry.push_image(image.layout, ref(f"{front.address}/big:1"))
    assert "client_max_body_size" in str(caught.value)


def test_no_plain_http_to_other_hosts(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.0.0.0 leads to this machine too, but is no loopback address by name."""
    target = ref(front.address.replace("127.0.0.1", "0.0.0.0") + "/app:1")
    with pytest.raises(StepError, match="no TLS connection") as caught:
        registry.manifest_exists(target)
    assert "ARGOTUNE_INSECURE_REGISTRIES" in str(caught.value)
    assert front.seen == []
    monkeypatch.setenv("ARGOTUNE_INSECURE_REGISTRIES", f"other.example.com, {target.registry}")
    assert not registry.manifest_exists(target)


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("10.0.0.1:5000", False),
        ("localhost.example.com", False),
        ("registry.example.com", False),
    ],
)
def test_hosts_with_plain_http(host: str, plain: bool) -> None:
    assert uses_plain_http(host) is plain
