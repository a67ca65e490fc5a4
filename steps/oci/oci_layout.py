"""OCI image layouts on disk: build the reproducible image of an adapter, and read any layout with verified digests.

Formats: OCI image-spec 1.1 (image-layout.md, manifest.md, config.md). The image has one layer, as KAITO's pusher
builds it and its inference reads it: ``data/adapter_config.json`` and ``data/adapter_model.safetensors``. The layout
also contains referrers: manifests whose ``subject`` is the image.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from steps.oci.reference import is_digest, normalize_digest
from steps.runtime import files
from steps.runtime.adapter_files import ADAPTER_FILES
from steps.runtime.errors import BadInput, StepError
from steps.runtime.json_text import parse_json

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REF_NAME = "org.opencontainers.image.ref.name"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
CREATED = "org.opencontainers.image.created"
TITLE = "org.opencontainers.image.title"
UNPACK = "io.deis.oras.content.unpack"
"""Annotation of ``oras`` for a layer that is the archive of a directory."""

# Weights hardly compress: level 9 takes three times as long as level 1 and saves 0.3 to 0.8 %.
GZIP_LEVEL = 1


@dataclass(frozen=True)
class Blob:
    """A content descriptor: media type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    title: str = ""
    """Path of the file whose content this is, in artifacts of ``oras``; empty in images, whose layers are archives."""

    @classmethod
    def from_descriptor(cls, descriptor: Mapping[str, Any]) -> Blob:
        """Parse the required properties of a descriptor, and its title (image-spec descriptor.md, annotations.md)."""
        size = descriptor["size"]
        if type(size) is not int or size < 0:
            raise ValueError(f"{size!r:.100} is not a size")
        annotations = descriptor.get("annotations") or {}
        title = "" if annotations.get(UNPACK) == "true" else str(annotations.get(TITLE) or "")
        return cls(str(descriptor["mediaType"]), normalize_digest(str(descriptor["digest"])), size, title)

    def descriptor(self) -> dict[str, Any]:
        """Return the descriptor as the JSON object of the specification."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Referrer:
    """A manifest that describes an image."""

    manifest: Blob
    artifact_type: str
    blobs: tuple[Blob, ...]

    def descriptor(self) -> dict[str, Any]:
        """Return its entry in an index, as the referrers API returns it."""
        return {**self.manifest.descriptor(), "artifactType": self.artifact_type}


@dataclass(frozen=True)
class Image:
    """One image of a layout directory."""

    layout: Path
    tag: str
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]
    annotations: Mapping[str, str]
    referrers: tuple[Referrer, ...] = ()

    @property
    def size(self) -> int:
        """Total bytes of manifest, config and layers."""
        return sum(blob.size for blob in (self.manifest, self.config, *self.layers))

    def path(self, blob: Blob) -> Path:
        """Return the file of ``blob``."""
        return blob_path(self.layout, blob.digest)


def build_image(adapter: Path, layout: Path, tag: str, annotations: Mapping[str, str]) -> Image:
    """Build the image of the adapter in directory ``adapter`` and write it to ``layout`` atomically.

    Equal inputs produce equal bytes with the same version of zlib. Files are streamed.

    Raises:
        BadInput: ``SOURCE_DATE_EPOCH`` is set and is not a number.
    """
    annotations = with_created(annotations)
    with files.replacing_folder(layout) as folder:
        layer, diff_id = _write_layer(adapter, folder)
        config: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        if CREATED in annotations:
            config["created"] = annotations[CREATED]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": write_blob(folder, CONFIG, _json(config)).descriptor(),
            "layers": [layer.descriptor()],
            "annotations": dict(annotations),
        }
        write_index(folder, write_blob(folder, MANIFEST, _json(manifest)), tag)
    return read_image(layout, verify=False)


def add_referrer(image: Image, artifact_type: str, content: bytes, annotations: Mapping[str, str]) -> Image:
    """Add ``content`` to the layout as a referrer of its image, replacing one of the same type.

    ``annotations`` are those of the content. Return the image with its referrers.
    """
    config = write_blob(image.layout, EMPTY_CONFIG, b"{}")
    blob = write_blob(image.layout, artifact_type, content)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": config.descriptor(),
        "layers": [{**blob.descriptor(), "annotations": dict(annotations)}],
        "subject": image.manifest.descriptor(),
    }
    added = Referrer(write_blob(image.layout, MANIFEST, _json(manifest)), artifact_type, (config, blob))
    others = [referrer for referrer in image.referrers if referrer.artifact_type != artifact_type]
    write_index(image.layout, image.manifest, image.tag, [*others, added])
    return replace(image, referrers=(*others, added))


def with_created(annotations: Mapping[str, str]) -> dict[str, str]:
    """Add the creation time, set only by ``SOURCE_DATE_EPOCH`` (reproducible-builds.org).

    Raises:
        BadInput: it is set and is not a number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch or CREATED in annotations:
        return dict(annotations)
    try:
        created = datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError) as error:
        raise BadInput(f"SOURCE_DATE_EPOCH is {epoch!r}", "set it to seconds since 1970, or unset it") from error
    return {**annotations, CREATED: created}


def read_image(layout: Path, *, verify: bool = True) -> Image:
    """Read the one image of a layout directory, and verify digest and size of each blob.

    Raises:
        StepError: the directory is not such a layout, or a blob is missing or damaged.
    """
    try:
        entries = parse_json((layout / "index.json").read_bytes())["manifests"]
        (entry,) = [entry for entry in entries if "artifactType" not in entry]
        manifest = Blob.from_descriptor(entry)
        content = parse_json(blob_path(layout, manifest.digest).read_bytes())
        config = Blob.from_descriptor(content["config"])
        layers = tuple(Blob.from_descriptor(layer) for layer in content["layers"])
        annotations = content.get("annotations") or {}
        tag = (entry.get("annotations") or {}).get(REF_NAME, "")
        referrers = tuple(_read_referrer(layout, entry) for entry in entries if "artifactType" in entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(
            f"{layout} is not an OCI layout of one image ({error!s:.300})", "package the adapter again"
        ) from error
    image = Image(layout, tag, manifest, config, layers, annotations, referrers)
    for blob in (manifest, config, *layers) if verify else ():
        path = image.path(blob)
        if not path.is_file() or path.stat().st_size != blob.size or digest_of(path, blob.digest) != blob.digest:
            raise StepError(f"blob {blob.digest} of {layout} is missing or damaged", "package the adapter again")
    return image


def write_blob(layout: Path, media_type: str, content: bytes) -> Blob:
    """Write a small blob to a layout."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with files.replacing(blob_path(layout, digest)) as file:
        file.write(content)
    return Blob(media_type, digest, len(content))


def write_index(layout: Path, manifest: Blob, tag: str, referrers: Sequence[Referrer] = ()) -> None:
    """Write the index of a layout whose one image is ``manifest``, tagged ``tag``."""
    entry = {**manifest.descriptor(), "annotations": {REF_NAME: tag}}
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [entry, *(referrer.descriptor() for referrer in referrers)],
    }
    files.write_text(layout / "oci-layout", '{"imageLayoutVersion":"1.0.0"}')
    files.write_text(layout / "index.json", _json(index).decode())


def blob_path(layout: Path, digest: str) -> Path:
    """Return the file of a blob; reject invalid digests, which could be paths outside the layout."""
    if not is_digest(digest):
        raise StepError(f"{digest[:100]!r} is not a digest", "the image's manifest is invalid: build the image again")
    algorithm, _, digits = digest.partition(":")
    return layout / "blobs" / algorithm / digits


def digest_of(path: Path, like: str) -> str:
    """Return the digest of a file by the algorithm of the digest ``like``."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _read_referrer(layout: Path, entry: Mapping[str, Any]) -> Referrer:
    manifest = Blob.from_descriptor(entry)
    content = parse_json(blob_path(layout, manifest.digest).read_bytes())
    blobs = tuple(Blob.from_descriptor(blob) for blob in (content["config"], *content["layers"]))
    return Referrer(manifest, str(entry["artifactType"]), blobs)


class _HashingWriter(io.RawIOBase):
    """Binary file that computes digest and length of the bytes written."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.length += len(data)
        self._file.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _write_layer(adapter: Path, layout: Path) -> tuple[Blob, str]:
    """Write the layer blob; return it and its diff_id, the digest of the uncompressed tar."""
    partial = layout / "blobs" / "layer.partial"
    with files.replacing(partial) as file:
        packed = _HashingWriter(file)
        with gzip.GzipFile("", "wb", GZIP_LEVEL, packed, mtime=0) as compressor:
            plain = _HashingWriter(compressor)
            with tarfile.open(mode="w|", fileobj=plain, format=tarfile.PAX_FORMAT) as tar:
                tar.addfile(_tar_entry("data", tarfile.DIRTYPE, 0o755, 0))
                for name in sorted(ADAPTER_FILES):
                    with (adapter / name).open("rb") as content:
                        size = os.fstat(content.fileno()).st_size
                        tar.addfile(_tar_entry(f"data/{name}", tarfile.REGTYPE, 0o644, size), content)
    blob = Blob(LAYER, packed.digest, packed.length)
    target = blob_path(layout, blob.digest)
    target.parent.mkdir(exist_ok=True)
    os.rename(partial, target)
    return blob, plain.digest


def _tar_entry(name: str, kind: bytes, mode: int, size: int) -> tarfile.TarInfo:
    """Return a tar entry without timestamp and owner, for reproducible bytes."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size = kind, mode, size
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
