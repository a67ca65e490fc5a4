"""Where data comes from and where the adapter goes: URLs, volumes, images, and the names of Kubernetes objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steps.data import file_weights
from steps.oci import reference
from steps.runtime.errors import BadInput
from workflows.spec import names, urls
from workflows.spec.findings import Findings, unknown
from workflows.spec.source import join
from workflows.spec.workspace import DataDestination, DataSource

VOLUMES = (
    "persistentVolumeClaim",
    "hostPath",
    "nfs",
    "csi",
    "ephemeral",
    "emptyDir",
    "azureFile",
    "configMap",
    "secret",
    "projected",
    "image",
)


def check_source(source: DataSource, path: str, allow_private: bool, found: Findings) -> None:
    """Note what is wrong with the input of tuning."""
    given = [bool(source.urls), source.volume_source is not None, bool(source.image)]
    if sum(given) != 1:
        what = "Exactly one of URLs, Volume, or Image must be specified"
        found.wrong(path, what, "keep one of urls, volumeSource and image")
    if source.name and not names.is_subdomain(source.name):
        found.wrong(join(path, "name"), f"{source.name!r} is not a DNS-1123 subdomain", names.SUBDOMAIN_RULE)
    for index, url in enumerate(source.urls):
        place = join(join(path, "urls"), index)
        urls.check(url, place, allow_private, found)
        if url in source.urls[:index]:
            fix = "leave it out; for its rows to count twice, write pipeline: {data: {weights: {FILE: 2}}}"
            found.wrong(place, "stands in the list twice", fix)
    check_volume(source.volume_source, join(path, "volumeSource"), found)
    check_image(source.image, join(path, "image"), "input", found)
    if source.image_pull_secrets and not source.image:
        found.wrong(join(path, "imagePullSecrets"), "no image is pulled here", "leave it out")
    elif len(source.image_pull_secrets) > 1:
        fix = "put the credentials of all registries into one dockerconfigjson Secret"
        found.wrong(join(path, "imagePullSecrets"), "one Secret is mounted, not several", fix)
    for index, secret in enumerate(source.image_pull_secrets):
        check_name(secret, join(join(path, "imagePullSecrets"), index), found)


def check_weights(weights: Mapping[str, float], given: Sequence[str], path: str, found: Findings) -> None:
    """Note weights of files that are not among the addresses; of a volume and an image the download step knows."""
    if given:
        for fault in file_weights.of_files(weights, given)[1]:
            found.wrong(join(path, fault.key) if fault.key else path, fault.message, fault.fix)


def check_destination(output: DataDestination, path: str, found: Findings, *, moves: bool = False) -> None:
    """Note what is wrong with the output of tuning; ``moves``: the tag is that of the newest of many runs."""
    if (output.volume_source is not None) == bool(output.image):
        what = "Exactly one of Volume or Image must be specified"
        found.wrong(path, what, "keep one of image and volumeSource")
    check_volume(output.volume_source, join(path, "volumeSource"), found)
    check_image(output.image, join(path, "image"), "output", found, moves=moves)
    check_name(output.image_push_secret, join(path, "imagePushSecret"), found)
    if output.image_push_secret and not output.image:
        found.wrong(join(path, "imagePushSecret"), "no image is pushed here", "leave it out")
    if "@" in output.image:
        found.wrong(join(path, "image"), "a digest cannot be chosen when pushing", "write a tag instead")


def check_name(name: str, path: str, found: Findings) -> None:
    """Note a name that no Kubernetes object can have; placeholders of examples get a warning."""
    if name and names.placeholders(name) == [name]:
        found.warn(path, f"{name} is a placeholder", "replace it before running")
    elif name and not names.is_subdomain(name):
        found.wrong(path, f"{name!r} is not a name Kubernetes allows", names.SUBDOMAIN_RULE)


def check_image(image: str, path: str, role: str, found: Findings, *, moves: bool = False) -> None:
    """Note an image reference that does not parse; placeholders of examples, and tags that move, get a warning.

    ``moves``: the tag is meant to.
    """
    if not image:
        return
    if "<" in image:
        found.wrong(path, f"{image} is a placeholder", "write the reference of your image")
        return
    try:
        parsed = reference.parse(names.without_placeholders(image))
    except BadInput as error:
        found.wrong(path, f"Unable to parse {role} image reference: {error.message}", error.fix)
        return
    if words := names.placeholders(image):
        found.warn(path, f"placeholder in the image reference: {', '.join(words)}", "replace it before running")
    if parsed.pulled == "latest" and not moves:
        has = "the tag latest" if parsed.tag else "no tag, and so the tag latest"
        found.warn(
            path, f"{image} has {has}, which others may move: it does not say what runs", "write a version: :1.0"
        )


def check_volume(volume: dict[str, Any] | None, path: str, found: Findings) -> None:
    """Note what is wrong with a Kubernetes VolumeSource."""
    if volume is None:
        return
    if len(volume) != 1:
        found.wrong(path, "must hold exactly one kind of volume", "write persistentVolumeClaim: {claimName: NAME}")
        return
    kind, content = next(iter(volume.items()))
    place = join(path, kind)
    if kind not in VOLUMES:
        found.wrong(place, "unknown kind of volume", unknown(kind, VOLUMES))
    elif not isinstance(content, dict):
        found.wrong(place, "must be a map")
    elif kind == "persistentVolumeClaim" and not isinstance(content.get("claimName"), str):
        found.wrong(place, "missing field claimName", "add claimName: NAME")
    elif kind == "persistentVolumeClaim":
        check_name(content["claimName"], join(place, "claimName"), found)
