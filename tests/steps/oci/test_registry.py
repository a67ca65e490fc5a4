from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from registry_fixture import PASSWORD, USER, Answer, Front, Registry, ref, same_adapter

from steps.oci import oci_layout, registry
from steps.oci.oci_layout import Image
from steps.oci.registry_client import MANIFEST_TYPES, RegistryClient
from steps.runtime.errors import BadInput, StepError

pytestmark = pytest.mark.usefixtures("docker_config")
LogIn = Callable[..., None]
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def test_push_with_password_and_pull_back(
    image: Image, password_registry: Registry, log_in: LogIn, tmp_path: Path
) -> None:
    log_in(password_registry.address)
    target = ref(f"{password_registry.address}/team/adapter:1.0")
    assert registry.push_image(image.layout, target) == image.manifest.digest
    assert registry.pull_image(target, tmp_path / "back") == image.manifest.digest
    back = oci_layout.read_image(tmp_path / "back")
    assert (back.tag, back.annotations) == ("1.0", image.annotations)
    by_digest = ref(f"{target.name}@{image.manifest.digest}")
    assert registry.manifest_exists(by_digest)
    assert same_adapter(registry.pull_adapter(by_digest, tmp_path / "adapters" / "mine"), image)
    assert [p.name for p in (tmp_path / "adapters").iterdir()] == ["mine"]


def test_skopeo_sees_the_same_image(
    image: Image, password_registry: Registry, log_in: LogIn, needs_tool: Callable[[str], str], tmp_path: Path
) -> None:
    skopeo = needs_tool("skopeo")
    log_in(password_registry.address)
    registry.push_image(image.layout, ref(f"{password_registry.address}/skopeo:1.0"))
    auth = tmp_path / "docker-config" / "config.json"
    where = f"docker://{password_registry.address}/skopeo:1.0"
    shown = subprocess.run(
        [skopeo, "inspect", "--tls-verify=false", "--authfile", auth, where], capture_output=True, check=True
    )
    assert json.loads(shown.stdout)["Digest"] == image.manifest.digest
    copy = [skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "--src-authfile", auth, where]
    subprocess.run([*copy, f"dir:{tmp_path}/copied"], capture_output=True, check=True)
    manifest = (tmp_path / "copied" / "manifest.json").read_bytes()
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == image.manifest.digest


def test_pull_of_an_image_pushed_by_skopeo(
    image: Image, open_registry: Registry, needs_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """As docker v2 media types, which is how many images lie in registries."""
    where = f"{open_registry.address}/by-skopeo:1.0"
    copy = [needs_tool("skopeo"), "--insecure-policy", "copy", "--dest-tls-verify=false", "--format", "v2s2"]
    subprocess.run([*copy, f"oci:{image.layout}:1.0", f"docker://{where}"], capture_output=True, check=True)
    assert same_adapter(registry.pull_adapter(ref(where), tmp_path / "mine"), image)


@pytest.mark.parametrize("logged_in", [True, False])
def test_rejected_push_has_a_fix_and_no_secret(
    image: Image, password_registry: Registry, log_in: LogIn, docker_config: Path, logged_in: bool
) -> None:
    wrong = "not-the-password"
    if logged_in:
        log_in(password_registry.address, password=wrong)
    with pytest.raises(BadInput) as caught:
        registry.push_image(image.layout, ref(f"{password_registry.address}/team/adapter:1.0"))
    text = str(caught.value)
    assert f"{password_registry.address} does not allow" in text
    assert f"docker login {password_registry.address}" in text
    assert str(docker_config / "config.json") in text
    assert ("none found for" in text) is not logged_in
    assert wrong not in text
    assert base64.b64encode(f"{USER}:{wrong}".encode()).decode() not in text


def test_second_push_sends_no_blob(image: Image, open_registry: Registry) -> None:
    target = ref(f"{open_registry.address}/twice:1.0")
    registry.push_image(image.layout, target)
    sent = open_registry.requests("POST", "/twice/blobs/uploads/")
    assert sent == 2
    registry.push_image(image.layout, target)
    assert open_registry.requests("POST", "/twice/blobs/uploads/") == sent
    assert open_registry.requests("PUT", "/twice/manifests/1.0") == 1


def test_push_without_a_tag_is_latest(image: Image, open_registry: Registry) -> None:
    registry.push_image(image.layout, ref(f"{open_registry.address}/untagged"))
    assert registry.manifest_exists(ref(f"{open_registry.address}/untagged:latest"))
    assert not registry.manifest_exists(ref(f"{open_registry.address}/untagged:1.0"))


def test_multi_platform_image(image: Image, open_registry: Registry, tmp_path: Path) -> None:
    """As buildx pushes it: an attestation, another platform, and ours."""
    target = ref(f"{open_registry.address}/multi:1.0")
    registry.push_image(image.layout, target)
    content = image.path(image.manifest).read_bytes() + b"\n"
    client = RegistryClient(target, push=True)
    client.put_manifest("other", image.manifest.media_type, content)
    other = f"sha256:{hashlib.sha256(content).hexdigest()}"

    def entry(digest: str, size: int, os_name: str, architecture: str) -> dict[str, object]:
        platform = {"os": os_name, "architecture": architecture}
        return {"mediaType": MANIFEST_TYPES[0], "digest": digest, "size": size, "platform": platform}

    entries = [
        entry(other, len(content), "unknown", "unknown"),
        entry(other, len(content), "linux", "arm64"),
        entry(image.manifest.digest, image.manifest.size, "linux", "amd64"),
    ]
    for count, expected in ((3, image.manifest.digest), (2, other)):
        index = {"schemaVersion": 2, "mediaType": oci_layout.INDEX, "manifests": entries[:count]}
        client.put_manifest("multi", oci_layout.INDEX, json.dumps(index).encode())
        assert registry.pull_image(ref(f"{target.name}:multi"), tmp_path / "back") == expected


def test_image_without_an_adapter(image: Image, open_registry: Registry, tmp_path: Path) -> None:
    manifest = json.loads(image.path(image.manifest).read_bytes())
    manifest["layers"] = []
    empty = oci_layout.write_blob(image.layout, oci_layout.MANIFEST, json.dumps(manifest).encode())
    oci_layout.write_index(image.layout, empty, "1.0")
    target = ref(f"{open_registry.address}/empty:1.0")
    registry.push_image(image.layout, target)
    with pytest.raises(BadInput, match=r"adapter_config.json and adapter_model.safetensors not found in /data"):
        registry.pull_adapter(target, tmp_path / "mine")


def test_no_image_at_all(front: Front, tmp_path: Path) -> None:
    for body, says in (
        (b"<html>", "not a JSON object"),
        (b'{"schemaVersion": 1}', "of schema 1"),
        (b'{"schemaVersion": 2, "mediaType": "text/x"}', "text/x"),
        (b'{"schemaVersion": 2}', "not an image of a supported format"),
        (b'{"schemaVersion": 2, "manifests": []}', "index without an image"),
        (
            b'{"schemaVersion": 2, "config": {"mediaType": "x", "digest": "sha256:../..", "size": 1}, "layers": []}',
            "not a",
        ),
    ):
        front.before = lambda request, body=body: Answer(200, {}, body)
        with pytest.raises(StepError, match=says):
            registry.pull_image(ref(f"{front.address}/app:1"), tmp_path / "back")
        assert not (tmp_path / "back").exists()


def changed(image: Image) -> Image:
    """Another image of the same adapter: other annotations."""
    adapter = image.layout.parent / "adapter"
    return oci_layout.build_image(adapter, image.layout.parent / "other", "1.0", {"com.example.turn": "2"})


def test_immutable_tag_is_not_changed(image: Image, open_registry: Registry) -> None:
    target = ref(f"{open_registry.address}/kept:1.0")
    digest = registry.push_image(image.layout, target, immutable=True)
    assert registry.push_image(image.layout, target, immutable=True) == digest, "the same image is no change"
    with pytest.raises(BadInput, match=rf"kept:1\.0 is already {digest}, and must not be changed") as caught:
        registry.push_image(changed(image).layout, target, immutable=True)
    assert "use a new tag" in caught.value.fix
    assert registry.manifest_exists(ref(f"{target.name}@{digest}"))
    assert registry.push_image(changed(image).layout, target) != digest


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        # Azure/azure-sdk-for-net#22827, with an image locked by az acr repository update --write-enabled false
        (405, "REGISTRY_DISALLOWED_OPERATION", "The operation is disallowed on this registry, repository or image."),
        (412, "PRECONDITION", "Failed to process request due to 'kept:1.0' configured as immutable."),
        (400, "TAG_INVALID", "The image tag '1.0' already exists, and cannot be overwritten as it is immutable."),
    ],
)
def test_tag_locked_by_the_registry_is_reported(
    image: Image, front: Front, status: int, code: str, message: str
) -> None:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    is_manifest = "/manifests/"
    front.before = lambda r: Answer(status, {}, body) if r.method == "PUT" and is_manifest in r.path else None
    with pytest.raises(BadInput, match=f"does not allow writing .*kept:1.0: HTTP {status} {code}") as caught:
        registry.push_image(image.layout, ref(f"{front.address}/kept:1.0"))
    assert "locked or immutable: use a new tag" in caught.value.fix
    assert len([r for r in front.seen if r.method == "PUT" and is_manifest in r.path]) == 1, "a retry cannot help"


def test_missing_push_permission_is_reported_before_the_upload(password_registry: Registry, log_in: LogIn) -> None:
    """The real registry answers; nothing of it stays."""
    target = ref(f"{password_registry.address}/tried:1.0")
    with pytest.raises(BadInput, match="does not allow a client without credentials to push"):
        RegistryClient(target, push=True).try_upload()
    log_in(password_registry.address)
    RegistryClient(target, push=True).try_upload()
    assert password_registry.requests("DELETE", "/tried/blobs/uploads/") == 1
    repository = password_registry.log.parent / "data/docker/registry/v2/repositories/tried"
    assert not list(repository.rglob("startedat")), "no state of an unfinished upload remains"
