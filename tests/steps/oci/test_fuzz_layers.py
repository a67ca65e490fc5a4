"""Damaged layers, layouts, and files of credentials are unpacked or read, or refused; nothing is written outside."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import pytest
from mutations import TEXTS, mutate_bytes, mutate_document

from steps.oci import credentials, oci_layout, reference
from steps.oci.image_data import unpack_data
from steps.oci.oci_layout import Image
from steps.oci.registry_auth import parse_challenges

NAMES = ("data", "data/", "data/a", "data/s/b", "./data/c", "data/.wh.a", "data/.wh..wh..opq", "data/s/.wh.b", "etc/x")
KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
DOCKER = {
    "auths": {
        "r.example.com": {"auth": "dXNlcjpwYXNz"},
        "https://r.example.com/team": {"username": "u", "password": "p"},
        "other": {"identitytoken": "t", "registrytoken": "r"},
    },
    "credHelpers": {"x.example.com": "none"},
    "credsStore": "",
}
CHALLENGES = (
    b'Bearer realm="https://r/token",service="r",scope="repository:a:pull,push"',
    b'Basic realm="a\\"b", Bearer realm=x',
    b"Negotiate, " * 200,
)


def tar_of(chance: random.Random) -> bytes:
    """A tar whose members are usual ones, odd ones, or what only a header can say."""
    buffer = io.BytesIO()
    form = chance.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    with tarfile.open(mode="w", fileobj=buffer, format=form) as tar:
        for _ in range(chance.randrange(1, 6)):
            name = chance.choice(NAMES)
            if chance.random() < 0.3:
                name = f"{name}/{chance.choice(TEXTS)}".replace("\ud800", "?")
            info = tarfile.TarInfo(name)
            info.type = chance.choice(KINDS) if chance.random() < 0.2 else tarfile.REGTYPE
            info.linkname = "../../evil"
            content = bytes(chance.choice([0, 1, 600])) if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def layer(chance: random.Random) -> bytes:
    import pyarrow

    content = tar_of(chance)
    if chance.random() < 0.5:
        content = mutate_bytes(chance, content, [tar_of(chance)])
    packed = chance.choice([bytes, lambda c: gzip.compress(c, 1), lambda c: pyarrow.compress(c, "zstd", asbytes=True)])
    content = packed(content)
    return mutate_bytes(chance, content) if chance.random() < 0.5 else content


def read_layers(tmp_path: Path) -> Callable[[list[bytes]], Any]:
    (tmp_path / "neighbor").write_text("x")

    def read(layers: list[bytes]) -> None:
        for name in ("layout", "out"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        (tmp_path / "out").mkdir()
        blobs = [oci_layout.write_blob(tmp_path / "layout", oci_layout.LAYER, content) for content in layers]
        image = Image(tmp_path / "layout", "1", blobs[0], blobs[0], tuple(blobs), {})
        try:
            unpack_data(image, tmp_path / "out")
        finally:
            assert {path.name for path in tmp_path.iterdir()} == {"neighbor", "out", "layout"}
            assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))

    return read


def read_layout(tmp_path: Path) -> Callable[[tuple[bytes, bytes]], Any]:
    layout = tmp_path / "image"

    def read(files: tuple[bytes, bytes]) -> None:
        manifest = oci_layout.write_blob(layout, oci_layout.MANIFEST, files[1])
        index = files[0].replace(b"MANIFEST", manifest.digest.encode()).replace(b'"SIZE"', str(manifest.size).encode())
        (layout / "index.json").write_bytes(index)
        oci_layout.read_image(layout)

    return read


def create_layout(chance: random.Random) -> tuple[bytes, bytes]:
    entry = {"mediaType": oci_layout.MANIFEST, "digest": "MANIFEST", "size": "SIZE", "annotations": {"a": "b"}}
    blob = {"mediaType": oci_layout.LAYER, "digest": "sha256:" + "0" * 64, "size": 1}
    index = {"schemaVersion": 2, "manifests": [entry, {**entry, "artifactType": "x"}]}
    manifest = {"schemaVersion": 2, "config": blob, "layers": [blob], "annotations": {}}
    which = chance.randrange(3)
    return (
        mutate_document(chance, index) if which != 1 else json.dumps(index).encode(),
        mutate_document(chance, manifest) if which else json.dumps(manifest).encode(),
    )


def read_credentials(tmp_path: Path) -> Callable[[bytes], Any]:
    def read(content: bytes) -> None:
        (tmp_path / "config.json").write_bytes(content)
        for name in ("r.example.com/team/app", "x.example.com/app", "app"):
            credentials.find(reference.parse(name), tmp_path)

    return read


def run(tmp_path: Path, kind: str, count: int) -> None:
    if kind == "layers":
        fuzz.check(kind, read_layers(tmp_path), lambda c: [layer(c) for _ in range(c.choice([1, 1, 2]))], count)
    elif kind == "layout":
        fuzz.check(kind, read_layout(tmp_path), create_layout, count)
    elif kind == "credentials":
        fuzz.check(kind, read_credentials(tmp_path), lambda c: mutate_document(c, DOCKER), count)
    elif kind == "challenge":
        texts = (mutate_bytes(random.Random(n), CHALLENGES[n % 3]).decode("latin-1") for n in range(count))
        fuzz.check(kind, parse_challenges, lambda _: next(texts), count, min_refused=0)
    else:
        names = (b"r.example.com:5000/team/app:1.0@sha256:" + b"A" * 64, b"docker.io/library/app", b"[::1]:80/a")
        fuzz.check(
            kind,
            lambda content: reference.parse(content.decode("utf-8", "replace")),
            lambda c: mutate_bytes(c, c.choice(names), names),
            count,
        )


@pytest.mark.parametrize(("kind", "count"), fuzz.cases(("layers", "layout", "credentials", "challenge", "reference")))
def test_damaged_files_are_refused(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)


def test_hex_digits_in_upper_case_are_accepted() -> None:
    assert reference.parse(f"r.example.com/a@sha256:{'AB' * 32}").digest == f"sha256:{'ab' * 32}"
    blob = oci_layout.Blob.from_descriptor({"mediaType": "x", "digest": f"sha256:{'AB' * 32}", "size": 1})
    assert blob.digest == f"sha256:{'ab' * 32}"
