"""Images to and from a registry: a layout folder is pushed; an image is pulled into one, or its files taken out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from steps.models.adapter import ADAPTER_FILES
from steps.oci import oci_layout, registry_errors
from steps.oci.image_data import unpack_data
from steps.oci.oci_layout import Blob, Image, Referrer
from steps.oci.reference import Reference, is_digest
from steps.oci.registry_client import MANIFEST_TYPES, RegistryClient
from steps.runtime import files, progress
from steps.runtime.errors import BadInput, StepError

Wait = Callable[[float], None]


def push_image(
    layout: Path,
    reference: Reference,
    *,
    mount_from: Reference | None = None,
    immutable: bool = False,
    wait: Wait = time.sleep,
) -> str:
    """Push the one image of a layout folder under the tag of ``reference`` (``latest`` if none); give its digest.

    Blobs that the repository has, or that the registry can take over from the repository ``mount_from``, where this
    image was pushed before, are not sent; one that broke off, in this process or in one before, goes on where the
    registry says. With ``immutable`` a tag that names another image stays as it is.

    Raises:
        BadInput: what the user must mend: credentials, permission, name, a tag that may not move.
        StepError: the registry can't be reached, refuses, or has another digest under the tag afterwards.
    """
    image = oci_layout.read_image(layout, verify=False)  # The registry compares the digests.
    tag = reference.tag or "latest"
    source = mount_from.repository if mount_from and mount_from.registry == reference.registry else ""
    registry = RegistryClient(reference, push=True, mount_from=source, wait=wait)
    stored = registry.manifest_digest(tag)
    if stored == image.manifest.digest:
        print(f"{reference.name}:{tag}@{stored} is there already", flush=True)
        return stored
    if stored and immutable:
        raise registry_errors.TagImmutable(
            f"{reference.name}:{tag} is {stored} already, and is not to be changed",
            "give a new tag, or set output.immutable to false",
        )
    if source != reference.repository:
        _send_blobs(registry, image, [*image.layers, image.config])
    registry.put_manifest(tag, image.manifest.media_type, image.path(image.manifest).read_bytes())
    stored = registry.manifest_digest(tag)
    if stored != image.manifest.digest:
        raise StepError(
            f"{reference.name}:{tag} is {stored or 'absent'} after pushing {image.manifest.digest}",
            "somebody else may push to this tag: use a tag of your own, and run it again",
        )
    print(f"pushed {reference.name}:{tag}@{stored}", flush=True)
    return stored


def push_referrers(layout: Path, reference: Reference, *, wait: Wait = time.sleep) -> list[str]:
    """Push what stands in a layout folder beside its image, which the repository has; give the digests.

    Raises:
        BadInput, StepError: as ``push_image``.
    """
    image = oci_layout.read_image(layout, verify=False)
    registry = RegistryClient(reference, push=True, wait=wait)
    for referrer in image.referrers:
        _send_blobs(registry, image, referrer.blobs)
        manifest = referrer.manifest
        kept = registry.put_manifest(manifest.digest, manifest.media_type, image.path(manifest).read_bytes())
        # A registry that keeps the list itself says so (distribution-spec, "Pushing Manifests with Subject").
        if "OCI-Subject" not in kept.headers:
            _list_by_tag(registry, image.manifest.digest, referrer, reference)
        print(f"pushed {reference.name}@{manifest.digest}, which refers to the image", flush=True)
    return [referrer.manifest.digest for referrer in image.referrers]


def pull_image(reference: Reference, layout: Path, *, wait: Wait = time.sleep) -> str:
    """Pull an image into a layout folder, which takes the place of ``layout`` as a whole; give its digest.

    Of a multi-platform image the linux/amd64 one is taken, else its first: files under /data have no platform. Each
    blob is checked against its digest while it comes.

    Raises:
        BadInput: the image is not there, or these credentials may not pull it.
        StepError: the registry can't be reached, or gives something other than what the digests say.
    """
    registry = RegistryClient(reference, wait=wait)
    media_type, content = registry.fetch_manifest(reference.pulled)
    manifest = _object(content, reference)
    if "manifests" in manifest:
        chosen = _choose_platform(manifest, reference)
        media_type, content = registry.fetch_manifest(chosen)
        manifest = _object(content, reference)
    try:
        blobs = [Blob.read(manifest["config"]), *(Blob.read(layer) for layer in manifest["layers"])]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{reference} is no image of a kind that is known", "push it in OCI or docker v2 form"
        ) from error
    with files.replacing_folder(layout) as folder:
        for blob in dict.fromkeys(blobs):
            registry.fetch_blob(blob, oci_layout.blob_path(folder, blob.digest))
        media_type = str(manifest.get("mediaType") or media_type)
        kept = oci_layout.write_blob(folder, media_type, content)
        oci_layout.write_index(folder, kept, reference.tag or "latest")
    return kept.digest


def pull_data(reference: Reference, folder: Path, *, wait: Wait = time.sleep) -> Path:
    """Put the files under ``/data`` of an image into ``folder``, which is replaced as a whole.

    Raises:
        BadInput: as ``pull_image``, or when the image holds what may not be unpacked.
        StepError: as ``pull_image``.
    """
    # A name that is the same each time, so that what a killed step left here goes with the next.
    layout = folder.with_name(f".{folder.name}.pull")
    try:
        pull_image(reference, layout, wait=wait)
        with files.replacing_folder(folder) as data:
            unpack_data(oci_layout.read_image(layout, verify=False), data)
    finally:
        shutil.rmtree(layout, ignore_errors=True)
    return folder


def pull_adapter(reference: Reference, folder: Path, *, wait: Wait = time.sleep) -> Path:
    """``pull_data`` of an adapter image, as KAITO, argotune or ``docker build`` makes them.

    Raises:
        BadInput: as ``pull_data``, or when the adapter's two files are not there.
        StepError: as ``pull_image``.
    """
    pull_data(reference, folder, wait=wait)
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        raise BadInput(
            f"{reference} is no adapter image: /data lacks {' and '.join(missing)} and holds {held}",
            "build it from scratch with both files copied to /data/",
        )
    return folder


def holds(reference: Reference, *, wait: Wait = time.sleep) -> bool:
    """Whether the registry has the manifest that ``reference`` names by digest or tag.

    Raises:
        StepError: as ``pull_image``.
    """
    digest = RegistryClient(reference, wait=wait).manifest_digest(reference.pulled)
    return digest == reference.digest if reference.digest else bool(digest)


def read_annotations(reference: Reference, *, wait: Wait = time.sleep) -> tuple[str, dict[str, str]] | None:
    """Digest and annotations of the manifest that ``reference`` names; None when the repository has no such one.

    Raises:
        BadInput: these credentials may not read it, or it is no manifest of an image.
        StepError: as ``pull_image``.
    """
    registry = RegistryClient(reference, wait=wait)
    digest = registry.manifest_digest(reference.pulled)
    if not digest:
        return None
    annotations = _object(registry.fetch_manifest(digest)[1], reference).get("annotations")
    return digest, annotations if isinstance(annotations, dict) else {}


def _list_by_tag(registry: RegistryClient, subject: str, referrer: Referrer, reference: Reference) -> None:
    """Add a referrer to the index under the tag ``sha256-HEX`` (distribution-spec, "Referrers Tag Schema")."""
    tag = subject.replace(":", "-", 1)
    listed: list[Any] = []
    if registry.manifest_digest(tag):
        listed = _object(registry.fetch_manifest(tag)[1], reference).get("manifests") or []
    if any(entry.get("digest") == referrer.manifest.digest for entry in listed):
        return
    index = {
        "schemaVersion": 2,
        "mediaType": oci_layout.INDEX,
        "manifests": [*listed, referrer.descriptor()],
    }
    registry.put_manifest(tag, oci_layout.INDEX, json.dumps(index, sort_keys=True).encode())


def _send_blobs(registry: RegistryClient, image: Image, blobs: Sequence[Blob]) -> None:
    blobs = list(dict.fromkeys(blobs))
    total, before, shown = sum(blob.size for blob in blobs), 0, -1

    def told(sent: int) -> None:
        nonlocal shown
        percent = 100 * (before + sent) // total
        if percent > shown:
            shown = percent
            progress.report(percent, 100)

    # Beside the layout, not in it: that is replaced when the image is made again.
    memory = image.layout.with_name(f".{image.layout.name}.upload.json")
    for number, blob in enumerate(blobs, 1):
        what = f"blob {number}/{len(blobs)} {blob.digest[:19]} ({blob.size / 1e6:.1f} MB)"
        if registry.has_blob(blob.digest):
            print(f"{what}: already there", flush=True)
        else:
            print(f"{what}: {registry.send_blob(blob, image.path(blob), told, memory=memory)}", flush=True)
        before += blob.size
    memory.unlink(missing_ok=True)


def _object(content: bytes, reference: Reference) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise StepError(f"manifest of {reference} is not a JSON object", f"is {reference.registry} a registry?")
    if manifest.get("mediaType", MANIFEST_TYPES[0]) not in MANIFEST_TYPES or manifest.get("schemaVersion") != 2:
        kind = manifest.get("mediaType", f"of schema {manifest.get('schemaVersion')}")
        raise BadInput(f"{reference} is a manifest {kind!s}, not an image", "push it in OCI or docker v2 form")
    return manifest


def _choose_platform(index: dict[str, Any], reference: Reference) -> str:
    """Digest of the image to take from a multi-platform one; build attestations have the platform ``unknown``."""
    found = []
    for entry in index["manifests"] if isinstance(index["manifests"], list) else ():
        platform = (entry.get("platform") or {}) if isinstance(entry, dict) else {"os": "unknown"}
        if platform.get("os") != "unknown" and is_digest(str(entry.get("digest"))):
            preferred = (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")
            found.append((not preferred, str(entry["digest"])))
    if not found:
        raise BadInput(f"{reference} is an index without an image", "push an image there")
    return min(found, key=lambda candidate: candidate[0])[1]
