from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.oci import oci_layout
from steps.oci.image_data import unpack_data
from steps.oci.oci_layout import Image
from steps.runtime import unpacked_size
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


def test_layers_are_applied_in_order(tmp_path: Path) -> None:
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
def test_data_folder_is_replaced(tmp_path: Path, whiteout: str) -> None:
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
def test_paths_outside_of_the_folder_are_rejected(tmp_path: Path, entry: Entry) -> None:
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(inside)}
    with pytest.raises(BadInput, match="the image contains"):
        unpacked(inside, (DOCKER_LAYER, gzip.compress(tar_of(("data/ok", b"1"), entry))))
    assert {p for p in tmp_path.rglob("*") if not p.is_relative_to(inside)} == before
    assert not any(p.is_symlink() for p in inside.rglob("*"))


def test_layer_that_is_no_tar(tmp_path: Path) -> None:
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


def test_a_whiteout_applies_to_lower_layers_only(tmp_path: Path) -> None:
    lower = tar_of(("data/a", b"lower"), ("data/s/b", b"lower"), ("data/s/t/c", b"lower"))
    upper = tar_of(
        ("data/a", b"upper"),
        ("data/s/t/d", b"upper"),
        ("data/.wh.a", b""),
        ("data/.wh.s", b""),
        ("data/.wh..wh.plnk", b""),
        ("data/.wh..wh..opq", b""),
    )
    assert unpacked(tmp_path, (PLAIN_LAYER, lower), (PLAIN_LAYER, upper)) == {"a": b"upper", "s/t/d": b"upper"}


@pytest.mark.parametrize("name", ["data/.wh...", "data/s/.wh...", "data/.wh..", "data/.wh.", "data/.wh.x/y"])
def test_invalid_whiteouts_delete_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(BadInput, match="not a valid whiteout"):
        unpacked(tmp_path, (PLAIN_LAYER, tar_of(("data/s/a", b"1"))), (PLAIN_LAYER, tar_of((name, b""))))
    assert (tmp_path / "kept").exists()
    assert (tmp_path / "out" / "s" / "a").exists()


PARTS = st.one_of(
    st.sampled_from(
        ["data", "a", "b", ".", "..", "", ".wh.", ".wh..", ".wh...", ".wh.a", ".wh..wh..opq", ".wh..wh.x"]
    ),
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=300),
)
NAMES = st.lists(PARTS, min_size=1, max_size=6).map("/".join).map(lambda name: f"data/{name}")


@settings(max_examples=100)
@given(st.lists(st.tuples(NAMES, st.sampled_from([b"", b"x", None])), min_size=1, max_size=6), st.integers(0, 6))
def test_no_name_writes_or_deletes_outside(entries: list[Entry], split: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "neighbor").mkdir()
        (root / "neighbor" / "file").write_text("x")
        layers = [tar_of(("data/a/b", b"1")), tar_of(*entries[:split]), tar_of(*entries[split:])]
        with contextlib.suppress(BadInput):
            unpacked(root, *((PLAIN_LAYER, layer) for layer in layers))
        assert (root / "neighbor" / "file").read_text() == "x"
        assert (root / "out").is_dir()
        assert {path.name for path in root.iterdir()} == {"neighbor", "out", "layout"}


def test_a_layer_that_unpacks_to_too_much_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked_size, "MIN_UNPACKED_BYTES", 1_000_000)
    bomb = gzip.compress(tar_of(("data/a", bytes(20_000_000))))
    with pytest.raises(BadInput, match="unpacks to more than"):
        unpacked(tmp_path, (DOCKER_LAYER, bomb))
    assert not any(path.stat().st_size > 4_000_000 for path in (tmp_path / "out").iterdir())
