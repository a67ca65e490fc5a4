"""Push and pull of images between a registry and layout directories on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steps.oci import oci_layout, registry_errors
from steps.oci.image_data import unpack_data
from steps.oci.oci_layout import Blob, Image, Referrer
from steps.oci.reference import Reference, is_digest, normalize_digest
from steps.oci.registry_client import MANIFEST_TYPES, RegistryClient
from steps.runtime import files, progress
from steps.runtime.adapter_files import ADAPTER_FILES
from steps.runtime.errors import BadInput, StepError
from steps.runtime.json_text import parse_json
from steps.runtime.retry import Sleep

MAX_CONFIG_BYTES = 8 * 1024 * 1024
"""Configurations of images have a few kB, those with a long history some 100 kB."""


def push_image(
    layout: Path,
    reference: Reference,
    *,
    mount_from: Reference | None = None,
    immutable: bool = False,
    wait: Sleep = time.sleep,
) -> str:
    """Push the one image of a layout directory under the tag of ``reference`` (default ``latest``); return its digest.

    Blobs are not sent if the repository has them, or if the registry can mount them from the repository
    ``mount_from``, where this image was pushed before. Interrupted uploads resume, also in another process. With
    ``immutable`` a tag of another image is never moved.

    Raises:
        BadInput: what the user must fix: credentials, permission, name, an immutable tag.
        StepError: the registry is unreachable, rejects the push, or has another digest under the tag afterwards.
    """
    image = oci_layout.read_image(layout, verify=False)  # The registry compares the digests.
    tag = reference.tag or "latest"
    source = mount_from.repository if mount_from and mount_from.host == reference.host else ""
    registry = RegistryClient(reference, push=True, mount_from=source, wait=wait)
    stored = registry.manifest_digest(tag)
    if stored == image.manifest.digest:
        print(f"{reference.name}:{tag}@{stored} already exists", flush=True)
        return stored
    if stored and immutable:
        raise registry_errors.TagImmutable(
            f"{reference.name}:{tag} is already {stored}, and must not be changed",
            "use a new tag, or set output.immutable to false",
        )
    if source != reference.repository:
        _send_blobs(registry, image, [*image.layers, image.config])
    registry.put_manifest(tag, image.manifest.media_type, image.path(image.manifest).read_bytes())
    stored = registry.manifest_digest(tag)
    if stored != image.manifest.digest:
        raise StepError(
            f"{reference.name}:{tag} is {stored or 'absent'} after pushing {image.manifest.digest}",
            "another client may push to this tag: use a separate tag, and run it again",
        )
    print(f"pushed {reference.name}:{tag}@{stored}", flush=True)
    return stored


def push_referrers(layout: Path, reference: Reference, *, wait: Sleep = time.sleep) -> list[str]:
    """Push the referrers in a layout directory, whose image the repository has; return their digests.

    Raises:
        BadInput, StepError: as ``push_image``.
    """
    image = oci_layout.read_image(layout, verify=False)
    registry = RegistryClient(reference, push=True, wait=wait)
    for referrer in image.referrers:
        _send_blobs(registry, image, referrer.blobs)
        manifest = referrer.manifest
        response = registry.put_manifest(manifest.digest, manifest.media_type, image.path(manifest).read_bytes())
        # Registries with a referrers API set this header (distribution-spec, "Pushing Manifests with Subject").
        if "OCI-Subject" not in response.headers:
            _add_to_tag_index(registry, image.manifest.digest, referrer, reference)
        print(f"pushed {reference.name}@{manifest.digest}, which refers to the image", flush=True)
    return [referrer.manifest.digest for referrer in image.referrers]


def pull_image(
    reference: Reference,
    layout: Path,
    *,
    resumable: bool = False,
    docker_config: Path | None = None,
    wait: Sleep = time.sleep,
) -> str:
    """Pull an image into the layout directory ``layout``, replacing it atomically; return its digest.

    Of a multi-platform image linux/amd64 is pulled, else the first: data files have no platform. The digest of each
    blob is verified. With ``resumable`` the directory keeps its blobs instead, and its index is written last.

    Raises:
        BadInput: the image does not exist, or these credentials are not allowed to pull it.
        StepError: the registry is unreachable, or returns content that does not match the digests.
    """
    registry = RegistryClient(reference, docker_config=docker_config, wait=wait)
    media_type, content, manifest = _fetch_image_manifest(registry, reference)
    try:
        blobs = [
            Blob.from_descriptor(manifest["config"]),
            *(Blob.from_descriptor(layer) for layer in manifest["layers"]),
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{reference} is not an image of a supported format", "push it in OCI or docker v2 format"
        ) from error
    if blobs[0].size > MAX_CONFIG_BYTES:
        message = f"the configuration of {reference} has {blobs[0].size} bytes, more than {MAX_CONFIG_BYTES}"
        raise BadInput(message, "build the image again; configurations have a few kB")
    with contextlib.nullcontext(layout) if resumable else files.replacing_folder(layout) as folder:
        for blob in dict.fromkeys(blobs):
            path = oci_layout.blob_path(folder, blob.digest)
            if not path.is_file() or oci_layout.digest_of(path, blob.digest) != blob.digest:
                registry.fetch_blob(blob, path)
        blob = oci_layout.write_blob(folder, media_type, content)
        oci_layout.write_index(folder, blob, reference.tag or "latest")
    return blob.digest


def resolve_digest(reference: Reference, *, docker_config: Path | None = None, wait: Sleep = time.sleep) -> str:
    """Return the digest of the image that ``pull_image`` pulls.

    Raises:
        BadInput, StepError: as ``pull_image``.
    """
    registry = RegistryClient(reference, docker_config=docker_config, wait=wait)
    return f"sha256:{hashlib.sha256(_fetch_image_manifest(registry, reference)[1]).hexdigest()}"


def _fetch_image_manifest(registry: RegistryClient, reference: Reference) -> tuple[str, bytes, dict[str, Any]]:
    """Return media type, bytes and content of the manifest of one image."""
    media_type, content = registry.fetch_manifest(reference.tag_or_digest)
    manifest = _parse_manifest(content, reference)
    if "manifests" in manifest:
        chosen = _choose_platform(manifest, reference)
        media_type, content = registry.fetch_manifest(chosen)
        manifest = _parse_manifest(content, reference)
    return str(manifest.get("mediaType") or media_type), content, manifest


def pull_data(reference: Reference, folder: Path, *, wait: Sleep = time.sleep) -> Path:
    """Pull the files under ``/data`` of an image into ``folder``, replacing it atomically.

    Raises:
        BadInput: as ``pull_image``, or the image contains files that must not be unpacked.
        StepError: as ``pull_image``.
    """
    # A fixed name, so that the next attempt removes the files of a killed one.
    layout = folder.with_name(f".{folder.name}.pull")
    try:
        pull_image(reference, layout, wait=wait)
        with files.replacing_folder(folder) as data:
            unpack_data(oci_layout.read_image(layout, verify=False), data)
    finally:
        shutil.rmtree(layout, ignore_errors=True)
    return folder


def pull_adapter(reference: Reference, folder: Path, *, wait: Sleep = time.sleep) -> Path:
    """Pull an adapter image (from KAITO, argotune or ``docker build``) with ``pull_data``.

    Raises:
        BadInput: as ``pull_data``, or one of the adapter's two files is missing.
        StepError: as ``pull_image``.
    """
    pull_data(reference, folder, wait=wait)
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        existing = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        raise BadInput(
            f"{reference} is not an adapter image: {' and '.join(missing)} not found in /data, only {existing}",
            "build it FROM scratch and COPY both files to /data/",
        )
    return folder


def manifest_exists(reference: Reference, *, wait: Sleep = time.sleep) -> bool:
    """Return True if the registry has the manifest of ``reference``.

    Raises:
        StepError: as ``pull_image``.
    """
    digest = RegistryClient(reference, wait=wait).manifest_digest(reference.tag_or_digest)
    return digest == reference.digest if reference.digest else bool(digest)


def read_annotations(reference: Reference, *, wait: Sleep = time.sleep) -> tuple[str, dict[str, str]] | None:
    """Return digest and annotations of the manifest of ``reference``; None if it does not exist.

    Raises:
        BadInput: these credentials are not allowed to read it, or it is not an image.
        StepError: as ``pull_image``.
    """
    registry = RegistryClient(reference, wait=wait)
    digest = registry.manifest_digest(reference.tag_or_digest)
    if not digest:
        return None
    annotations = _parse_manifest(registry.fetch_manifest(digest)[1], reference).get("annotations")
    return digest, annotations if isinstance(annotations, dict) else {}


def _add_to_tag_index(registry: RegistryClient, subject: str, referrer: Referrer, reference: Reference) -> None:
    """Add a referrer to the index under the tag ``sha256-HEX`` (distribution-spec, "Referrers Tag Schema")."""
    tag = subject.replace(":", "-", 1)
    entries: list[Any] = []
    if registry.manifest_digest(tag):
        listed = _parse_manifest(registry.fetch_manifest(tag)[1], reference).get("manifests")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    if any(entry.get("digest") == referrer.manifest.digest for entry in entries):
        return
    index = {
        "schemaVersion": 2,
        "mediaType": oci_layout.INDEX,
        "manifests": [*entries, referrer.descriptor()],
    }
    registry.put_manifest(tag, oci_layout.INDEX, json.dumps(index, sort_keys=True).encode())


def _send_blobs(registry: RegistryClient, image: Image, blobs: Sequence[Blob]) -> None:
    blobs = list(dict.fromkeys(blobs))
    total, before, reported = sum(blob.size for blob in blobs), 0, -1

    def report_progress(sent: int) -> None:
        nonlocal reported
        percent = 100 * (before + sent) // total
        if percent > reported:
            reported = percent
            progress.report(percent, 100)

    # Next to the layout, not in it: building the image again replaces the layout.
    session_file = image.layout.with_name(f".{image.layout.name}.upload.json")
    for number, blob in enumerate(blobs, 1):
        label = f"blob {number}/{len(blobs)} {blob.digest[:19]} ({blob.size / 1e6:.1f} MB)"
        if registry.has_blob(blob.digest):
            print(f"{label}: already exists", flush=True)
        else:
            sent = registry.send_blob(blob, image.path(blob), report_progress, session_file=session_file)
            print(f"{label}: {sent}", flush=True)
        before += blob.size
    session_file.unlink(missing_ok=True)


def _parse_manifest(content: bytes, reference: Reference) -> dict[str, Any]:
    try:
        manifest = parse_json(content)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise StepError(
            f"manifest of {reference} is not a JSON object", f"check that {reference.registry} is a registry"
        )
    if manifest.get("mediaType", MANIFEST_TYPES[0]) not in MANIFEST_TYPES or manifest.get("schemaVersion") != 2:
        media_type = manifest.get("mediaType", f"of schema {manifest.get('schemaVersion')}")
        raise BadInput(f"{reference} is a manifest {media_type!s}, not an image", "push it in OCI or docker v2 format")
    return manifest


def _choose_platform(index: dict[str, Any], reference: Reference) -> str:
    """Return the digest of one image of a multi-platform index; build attestations have the platform ``unknown``."""
    candidates = []
    for entry in index["manifests"] if isinstance(index["manifests"], list) else ():
        platform = (entry.get("platform") or {}) if isinstance(entry, dict) else None
        if not isinstance(platform, dict):
            continue
        if platform.get("os") != "unknown" and is_digest(normalize_digest(str(entry.get("digest")))):
            preferred = (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")
            candidates.append((not preferred, normalize_digest(str(entry["digest"]))))
    if not candidates:
        raise BadInput(f"{reference} is an index without an image", "push an image to this reference")
    return min(candidates, key=lambda candidate: candidate[0])[1]
