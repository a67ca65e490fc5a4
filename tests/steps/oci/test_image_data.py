from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from steps.oci import oci_layout
from steps.oci.image_data import unpack_data
from steps.oci.oci_layout import Image
from steps.runtime.errors import BadInput

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"
Entry = tuple[str, bytes | tarfile.TarInfo | None]


def tar_of(*entries: Entry) -> bytes:
    """A tar of files (with content), folders (None) and whatever else a TarInfo says."""
    buffer = io.BytesIO()
    with tarfile.open(mode="w", fileobj=buffer) as tar:
        for name, content in entries:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if content is None:
                info.type = tarfile.DIRTYPE
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def image_of(tmp_path: Path, *layers: tuple[str, bytes]) -> Image:
    layout = tmp_path / "layout"
    blobs = tuple(oci_layout.write_blob(layout, media_type, content) for media_type, content in layers)
    config = oci_layout.write_blob(layout, oci_layout.CONFIG, b"{}")
    return Image(layout, "1", config, config, blobs, {})


def unpacked(tmp_path: Path, *layers: tuple[str, bytes]) -> dict[str, bytes]:
    folder = tmp_path / "out"
    folder.mkdir()
    unpack_data(image_of(tmp_path, *layers), folder)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_from_scratch_copy(tmp_path: Path) -> None:
    """``FROM scratch``, ``COPY adapter_config.json adapter_model.safetensors /data/``."""
    layer = tar_of(
        ("data/", None), ("data/adapter_config.json", b"{}"), ("data/adapter_model.safetensors", b"w" * 3000)
    )
    expected = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w" * 3000}
    assert unpacked(tmp_path, (DOCKER_LAYER, gzip.compress(layer))) == expected


def test_layers_lie_on_each_other(tmp_path: Path) -> None:
    system = tar_of(
        ("etc/mtab", special(tarfile.SYMTYPE, "/proc/mounts")),
        ("bin/sh", b"x"),
        ("dev/null", special(tarfile.CHRTYPE)),
    )
    first = tar_of(("./data/a", b"old"), ("/data/b", b"gone"), ("data/sub/c", b"gone"), ("data/f", b"file"))
    second = tar_of(
        ("data/a", b"new"),
        ("data/.wh.b", b""),
        ("data/sub/.wh..wh..opq", b""),
        ("data/sub/d", b"new"),
        ("data/f/now", b"a folder"),
        ("database/x", b"elsewhere"),
    )
    layers = ((DOCKER_LAYER, gzip.compress(system)), (PLAIN_LAYER, first), (DOCKER_LAYER, gzip.compress(second)))
    assert unpacked(tmp_path, *layers) == {"a": b"new", "sub/d": b"new", "f/now": b"a folder"}


@pytest.mark.parametrize("whiteout", [".wh.data", ".wh..wh..opq"])
def test_data_as_a_whole_is_replaced(tmp_path: Path, whiteout: str) -> None:
    layers = (tar_of(("data/a", b"1"), ("data/s/b", b"2")), tar_of((whiteout, b""), ("data/c", b"3")))
    assert unpacked(tmp_path, *((PLAIN_LAYER, layer) for layer in layers)) == {"c": b"3"}


@pytest.mark.parametrize(
    "entry",
    [
        ("data/../../evil", b"x"),
        ("../evil", b"x"),
        ("/../evil", b"x"),
        ("data/..", None),
        ("data/.wh.../../evil/..", b""),
        ("data/link", special(tarfile.SYMTYPE, "../evil")),
        ("data/link", special(tarfile.LNKTYPE, "etc/passwd")),
        ("data", special(tarfile.SYMTYPE, "/etc")),
        ("data", b"a file"),
        ("data/device", special(tarfile.CHRTYPE)),
        ("data/pipe", special(tarfile.FIFOTYPE)),
    ],
    ids=lambda entry: str(entry[0]),
)
def test_what_leads_out_is_refused(tmp_path: Path, entry: Entry) -> None:
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(inside)}
    with pytest.raises(BadInput, match="the image contains"):
        unpacked(inside, (DOCKER_LAYER, gzip.compress(tar_of(("data/ok", b"1"), entry))))
    assert {p for p in tmp_path.rglob("*") if not p.is_relative_to(inside)} == before
    assert not any(p.is_symlink() for p in inside.rglob("*"))


def test_no_tar(tmp_path: Path) -> None:
    whole = gzip.compress(tar_of(("data/a", os.urandom(50_000))))
    cases = [
        (DOCKER_LAYER, whole[:20_000], "is not a tar archive"),
        (DOCKER_LAYER, whole[:20_000] + bytes(30_000), "is not a tar archive"),
        ("application/vnd.oci.image.layer.v1.tar+zstd", b"\x28\xb5\x2f\xfd" + bytes(600), "compressed with zstd"),
        ("text/plain", b"hello", "is not a tar archive"),
    ]
    for number, (media_type, content, says) in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(BadInput, match=says):
            unpacked(place, (media_type, content))
