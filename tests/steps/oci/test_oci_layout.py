from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.oci import oci_layout
from steps.runtime.errors import BadInput, StepError

ANNOTATIONS = {"sh.kaito.model.name": "phi-4", "com.example.ü": "ä\n"}


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(1_000_003))
    (folder / "tokenizer.json").write_text("not part of the image")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_adapter_same_bytes(adapter: Path, tmp_path: Path) -> None:
    one = oci_layout.build_image(adapter, tmp_path / "one", "1.0", ANNOTATIONS)
    moved = adapter.rename(tmp_path / "elsewhere")
    for path in moved.iterdir():
        path.chmod(0o600)
        os.utime(path, (1, 1))
    two = oci_layout.build_image(moved, tmp_path / "two", "1.0", dict(reversed(ANNOTATIONS.items())))
    assert one.manifest.digest == two.manifest.digest
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    (moved / "adapter_config.json").write_text('{"r": 9}')
    assert oci_layout.build_image(moved, tmp_path / "two", "1.0", ANNOTATIONS).manifest.digest != one.manifest.digest


def test_layer_has_the_paths_of_kaito(adapter: Path, tmp_path: Path) -> None:
    image = oci_layout.build_image(adapter, tmp_path / "image", "1.0", ANNOTATIONS)
    (layer,) = image.layers
    assert layer.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert image.annotations == ANNOTATIONS
    packed = image.path(layer).read_bytes()
    assert packed[3:8] == b"\0\0\0\0\0", "gzip header holds a name or a time"
    config = json.loads(image.path(image.config).read_bytes())
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"]
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert "created" not in config
    with tarfile.open(image.path(layer)) as tar:
        members = tar.getmembers()
        assert [(m.name, m.isdir(), m.mode) for m in members] == [
            ("data", True, 0o755),
            ("data/adapter_config.json", False, 0o644),
            ("data/adapter_model.safetensors", False, 0o644),
        ]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_other_tools_read_the_layout(adapter: Path, tmp_path: Path, needs_tool: Callable[[str], str]) -> None:
    skopeo, umoci = needs_tool("skopeo"), needs_tool("umoci")
    image = oci_layout.build_image(adapter, tmp_path / "image", "1.0", ANNOTATIONS)
    shown = subprocess.run([skopeo, "inspect", f"oci:{image.layout}:1.0"], capture_output=True, check=True)
    assert json.loads(shown.stdout)["Digest"] == image.manifest.digest
    bundle = tmp_path / "bundle"
    command = [umoci, "unpack", "--rootless", "--image", f"{image.layout}:1.0", bundle]
    subprocess.run(command, capture_output=True, check=True)
    unpacked = files_of(bundle / "rootfs")
    assert unpacked == {
        f"data/{name}": (adapter / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")
    }


def test_source_date_epoch(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    image = oci_layout.build_image(adapter, tmp_path / "image", "1.0", {})
    assert json.loads(image.path(image.config).read_bytes())["created"] == "2023-11-14T22:13:20Z"
    assert image.annotations == {"org.opencontainers.image.created": "2023-11-14T22:13:20Z"}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(BadInput, match="yesterday"):
        oci_layout.build_image(adapter, tmp_path / "image", "1.0", {})


def test_failed_build_keeps_the_old_image(adapter: Path, tmp_path: Path) -> None:
    old = oci_layout.build_image(adapter, tmp_path / "image", "1.0", {})
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        oci_layout.build_image(adapter, tmp_path / "image", "1.0", {})
    assert oci_layout.read_image(tmp_path / "image") == old
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name or "old" in p.name] == []


@pytest.mark.parametrize("blob", ["manifest", "config", "layer"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_detected(adapter: Path, tmp_path: Path, blob: str, damage: str) -> None:
    image = oci_layout.build_image(adapter, tmp_path / "image", "1.0", {})
    path = image.path({"manifest": image.manifest, "config": image.config, "layer": image.layers[0]}[blob])
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if damage == "flip" else b""))
    with pytest.raises(StepError):
        oci_layout.read_image(tmp_path / "image")


def test_digest_is_not_used_as_a_path(tmp_path: Path) -> None:
    for digest in ("sha256:../../../etc/passwd", "../x:y", "", "sha256:" + "0" * 63):
        with pytest.raises(StepError, match="not a digest"):
            oci_layout.blob_path(tmp_path, digest)
