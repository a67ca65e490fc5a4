"""Damaged answers of a registry and its token server end in a pull or push, or in an error with a fix."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fuzz
import pytest
from mutations import mutate_bytes, mutate_document
from scripted_server import ScriptedServer, response

from steps.oci import oci_layout, reference, registry
from steps.oci.oci_layout import INDEX, MANIFEST
from steps.oci.registry_client import RegistryClient

pytestmark = pytest.mark.usefixtures("docker_config")
OUTCOME = "the image, or an error with a fix"
Change = Callable[[random.Random, bytes], bytes]


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(mode="w", fileobj=buffer) as tar:
        for name in ("data/adapter_config.json", "data/adapter_model.safetensors"):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"bytes"))
    return gzip.compress(buffer.getvalue(), mtime=0)


LAYER, CONFIG = layer(), b'{"architecture":"amd64","os":"linux"}'
IMAGE: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": MANIFEST,
    "config": {"mediaType": oci_layout.CONFIG, "digest": digest(CONFIG), "size": len(CONFIG)},
    "layers": [{"mediaType": oci_layout.LAYER, "digest": digest(LAYER), "size": len(LAYER)}],
    "annotations": {"dev.argotune.data.digest": "sha256:1", "n": "1"},
}
IMAGE_BYTES = json.dumps(IMAGE).encode()
PLATFORMS: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": INDEX,
    "manifests": [
        {"mediaType": MANIFEST, "digest": digest(IMAGE_BYTES), "size": 1, "platform": {"os": "linux"}},
        {"mediaType": MANIFEST, "digest": digest(b""), "size": 1, "platform": {"os": "unknown"}},
    ],
}
TOKEN = {"token": "abc", "expires_in": 300}
ERRORS = {"errors": [{"code": "DENIED", "message": "requested access is denied", "detail": [{"Type": "repository"}]}]}
LAYOUT = {"mediaType": MANIFEST, "digest": digest(IMAGE_BYTES), "size": len(IMAGE_BYTES)}


@dataclass
class Script:
    """Responses of a registry; ``change`` damages one kind of them."""

    base: str = ""
    kind: str = ""
    damaged: bytes = b""
    uploads: set[str] = field(default_factory=set)

    def respond(self, method: str, target: str, headers: Mapping[str, str]) -> bytes:
        path, head = target.partition("?")[0], method == "HEAD"
        if path == "/token":
            return self._body("token", json.dumps(TOKEN).encode())
        if self.kind in ("token", "challenge") and "authorization" not in headers:
            challenge = f'Bearer realm="{self.base}/token",service="registry",scope="repository:a:pull"'
            value = self.damaged.decode("latin-1") if self.kind == "challenge" else challenge
            return response(b"{}", "401 Unauthorized", {"WWW-Authenticate": value.replace("\n", " ")}, head=head)
        if self.kind == "error":
            status = ("400 Bad Request", "403 Forbidden", "404 Not Found", "409 Conflict", "413 Large")[
                len(self.damaged) % 5
            ]
            return response(self.damaged, status, head=head)
        if self.kind == "location":
            return response(b"", "307 Temporary Redirect", {"Location": self._header()}, head=head)
        if self.kind == "head" and (method, path[:13]) != ("GET", "/v2/app/blobs"):
            return self.damaged
        return self._content(method, path, head)

    def _content(self, method: str, path: str, head: bool) -> bytes:
        if method in ("POST", "PATCH", "PUT"):
            status = "201 Created" if method == "PUT" else "202 Accepted"
            location = self._header() if self.kind == "upload" else f"/v2/app/blobs/uploads/{len(self.uploads)}"
            return response(b"", status, {"Location": location, "Range": "0-0"})
        name = path.rpartition("/")[2]
        if "/manifests/" in path:
            content = PLATFORMS if self.kind == "index" and name != digest(IMAGE_BYTES) else IMAGE
            kind = "index" if content is PLATFORMS else "manifest"
            is_damaged = ":" not in name or name == digest(self.damaged)
            return self._body(kind if is_damaged else "", json.dumps(content).encode(), head)
        blob = {digest(LAYER): LAYER, digest(CONFIG): CONFIG}.get(name)
        if blob is None:
            return response(b"", "404 Not Found", head=head)
        return self._body("config" if blob == CONFIG else "layer", blob, head)

    def _body(self, kind: str, content: bytes, head: bool = False) -> bytes:
        return response(self.damaged if kind and kind == self.kind else content, head=head)

    def _header(self) -> str:
        return self.damaged.decode("latin-1").replace("\r", "").replace("\n", "")


def documents(value: Any) -> Callable[[random.Random], bytes]:
    return lambda chance: mutate_document(chance, value)


def bytes_of(*seeds: bytes) -> Callable[[random.Random], bytes]:
    return lambda chance: mutate_bytes(chance, chance.choice(seeds), seeds)


PULLS: dict[str, Callable[[random.Random], bytes]] = {
    "manifest": documents(IMAGE),
    "index": documents(PLATFORMS),
    "config": documents(json.loads(CONFIG)),
    "layer": bytes_of(LAYER),
    "token": documents(TOKEN),
    "challenge": bytes_of(
        b'Bearer realm="http://127.0.0.1:1/token",service="r"', b'Basic realm="a"', b'Bearer realm="https://[",x=1'
    ),
    "error": documents(ERRORS),
    "location": bytes_of(b"/v2/app/manifests/1", b"http://127.0.0.1:1/x?sig=1", b"//[::1/", b"https://a:99999/b"),
    "head": bytes_of(response(IMAGE_BYTES, headers={"Docker-Content-Digest": digest(IMAGE_BYTES)})),
}


def run(tmp_path: Path, kind: str, count: int) -> None:
    script = Script(kind=kind)
    with ScriptedServer(script.respond) as server:
        script.base = server.url
        target = reference.parse(f"{server.address}/app:1")

        def read(damaged: bytes) -> None:
            script.damaged = damaged
            try:
                registry.pull_adapter(target, tmp_path / "adapter", wait=lambda seconds: None)
            finally:
                registry.read_annotations(target, wait=lambda seconds: None)

        fuzz.check(f"registry {kind}", read, PULLS[kind], count)
    assert {path.name for path in tmp_path.iterdir()} <= {"adapter", "docker-config"}


@pytest.mark.parametrize(
    ("kind", "count"), fuzz.cases(PULLS, lambda kind: 10 if kind == "location" else 30, parts=len(PULLS))
)
def test_damaged_answers_are_refused(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)


def test_damaged_indexes_of_referrers_are_replaced(tmp_path: Path) -> None:
    """The index that ``push_referrers`` extends is the registry's."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes(b"bytes")
    image = oci_layout.build_image(folder, tmp_path / "image", "1", {})
    oci_layout.add_referrer(image, "application/vnd.in-toto+json", b"{}", {})
    script = Script(kind="index")
    with ScriptedServer(script.respond) as server:
        target = reference.parse(f"{server.address}/app:1")

        def read(damaged: bytes) -> None:
            script.damaged = damaged
            registry.push_referrers(tmp_path / "image", target, wait=lambda seconds: None)

        fuzz.check("registry referrers", read, PULLS["index"], 40)


def test_damaged_locations_of_uploads_are_refused(tmp_path: Path) -> None:
    script = Script(kind="upload")
    with ScriptedServer(script.respond) as server:
        client = RegistryClient(reference.parse(f"{server.address}/app:1"), push=True, wait=lambda seconds: None)

        def read(damaged: bytes) -> None:
            script.damaged = damaged
            client.try_upload()

        fuzz.check("registry upload", read, PULLS["location"], 30)
