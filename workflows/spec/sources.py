"""Rules for data sources and destinations: URLs, volumes, images, and names of Kubernetes objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from steps.data import file_weights
from steps.data.formats import file_names
from steps.data.locations.location import is_single_file
from steps.oci import reference
from steps.runtime.errors import BadInput
from steps.runtime.shown_url import shown
from workflows.field_path import join
from workflows.spec import names, placeholders, urls
from workflows.spec.findings import Findings, unknown
from workflows.spec.pipeline import PipelineData
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


def check_inputs(source: DataSource, data: PipelineData, findings: Findings) -> None:
    """Report errors of ``tuning.input``, and of the inputs that are mixed with it."""
    is_empty = not (source.urls or source.image) and source.volume_source is None
    if not (is_empty and data.inputs):
        check_source(source, "tuning.input", data.allow_private_hosts, findings)
        check_weights(data.weights, source.urls, "pipeline.data.weights", findings)
    names = [named.name for named in data.inputs]
    for index, named in enumerate(data.inputs):
        path = f"pipeline.data.inputs[{index}]"
        if named.name in names[:index]:
            findings.error(join(path, "name"), f"{named.name} is the name of another input", "give each its own name")
        plain = DataSource(urls=named.urls, image=named.image, volumeSource=named.volume_source)
        check_source(plain, path, data.allow_private_hosts, findings)
    if is_empty and data.inputs and not any(named.weight for named in data.inputs):
        findings.error("pipeline.data.inputs", "all weights are 0: no training rows remain", "increase one weight")


def check_source(source: DataSource, path: str, allow_private: bool, findings: Findings) -> None:
    """Report errors of an input."""
    given = [bool(source.urls), source.volume_source is not None, bool(source.image)]
    if sum(given) != 1:
        what = "Exactly one of URLs, Volume, or Image must be specified"
        findings.error(path, what, "set one of urls, volumeSource and image")
    if source.name and not names.is_subdomain(source.name):
        findings.error(join(path, "name"), f"{source.name!r} is not a DNS-1123 subdomain", names.SUBDOMAIN_RULE)
    seen: set[str] = set()
    for index, url in enumerate(source.urls):
        place = join(join(path, "urls"), index)
        urls.check(url, place, allow_private, findings)
        if url in seen:
            fix = "remove it; to count its rows twice, write pipeline: {data: {weights: {FILE: 2}}}"
            findings.error(place, "is a duplicate", fix)
        seen.add(url)
    check_volume(source.volume_source, join(path, "volumeSource"), findings)
    check_image(source.image, join(path, "image"), "input", findings)
    if source.image_pull_secrets and not source.image:
        findings.error(join(path, "imagePullSecrets"), "is only for images", "remove it")
    check_secrets(source.image_pull_secrets, join(path, "imagePullSecrets"), findings)


def check_weights(weights: Mapping[str, float], given: Sequence[str], path: str, findings: Findings) -> None:
    """Report weights of files that are not among the URLs; the download step checks those of folders and images."""
    if given and all(is_single_file(url) for url in given):
        for fault in file_weights.resolve_weights(weights, given)[1]:
            findings.error(join(path, fault.key) if fault.key else path, fault.message, fault.fix)


def check_extension(extension: str | None, given: Sequence[str], findings: Findings) -> None:
    """Report a ``dataset_extension`` of KAITO that contradicts the names of files."""
    formats = {file_names.parse_name(re.split("[?#]", url)[0])[0]: url for url in given if is_single_file(url)}
    if other := next((url for known, url in formats.items() if extension and known and known != extension), None):
        what = f"must be the format of the data, but {shown(other)} has another extension"
        findings.error("training_config.DatasetConfig.dataset_extension", what, "remove it, or rename the file")


def check_destination(output: DataDestination, path: str, findings: Findings, *, moves: bool = False) -> None:
    """Report errors of ``tuning.output``; ``moves``: the tag moves from run to run."""
    if (output.volume_source is not None) == bool(output.image):
        what = "Exactly one of Volume or Image must be specified"
        findings.error(path, what, "set one of image and volumeSource")
    check_volume(output.volume_source, join(path, "volumeSource"), findings)
    check_image(output.image, join(path, "image"), "output", findings, moves=moves)
    check_name(output.image_push_secret, join(path, "imagePushSecret"), findings)
    if output.image_push_secret and not output.image:
        findings.error(join(path, "imagePushSecret"), "is only for an image", "remove it")
    if "@" in output.image:
        findings.error(join(path, "image"), "a digest cannot be set when pushing", "write a tag instead")


def check_name(name: str, path: str, findings: Findings) -> None:
    """Report an invalid Kubernetes name; placeholders are warnings."""
    if name and names.placeholders(name) == [name]:
        findings.warn(path, f"{name} is a placeholder", "replace it before running")
    elif name and not names.is_subdomain(name):
        findings.error(path, f"{name!r} is not a valid Kubernetes name", names.SUBDOMAIN_RULE)


def check_secrets(secrets: Sequence[str], path: str, findings: Findings) -> None:
    """Report invalid, empty or repeated names of Secrets."""
    for index, secret in enumerate(secrets):
        if secret in secrets[:index]:
            findings.error(join(path, index), f'duplicate Secret "{secret}"', "remove one entry")
        elif not secret:
            findings.error(join(path, index), "must not be empty", "write the name of a Secret, or remove it")
        check_name(secret, join(path, index), findings)


def check_labels(labels: Mapping[str, str], path: str, findings: Findings) -> None:
    """Report labels that Kubernetes does not allow; braces of Argo are another error, of the whole file."""
    for key, value in labels.items():
        is_valid = names.is_label_key(key) and names.is_label_value(value)
        if not is_valid and "{{" not in key + value:
            findings.error(join(path, key), f"{value!r} is not a valid Kubernetes label", names.LABELS_RULE)


def check_image(image: str, path: str, role: str, findings: Findings, *, moves: bool = False) -> None:
    """Report an invalid image reference; placeholders and mutable tags are warnings.

    ``moves``: the tag is intended to move.
    """
    if not image:
        return
    if word := placeholders.find(image, is_image=True):
        findings.error(path, f"{word} is a placeholder", placeholders.FIXES["image"])
        return
    try:
        parsed = reference.parse(names.without_placeholders(image))
    except BadInput as error:
        findings.error(path, f"Unable to parse {role} image reference: {error.message}", error.fix)
        return
    words = names.placeholders(image)
    if not words and (fix := _lower_case(image, parsed)):
        findings.error(path, f"the registry {parsed.registry!r} has capitals", fix)
        return
    if words:
        findings.warn(path, f"placeholder in the image reference: {', '.join(words)}", "replace it before running")
    if parsed.tag_or_digest == "latest" and not moves:
        has = "the tag latest" if parsed.tag else "no tag, which means latest"
        findings.warn(
            path,
            f"{image} has {has}, which is mutable, so the image that runs is not determined",
            "write a version: :1.0",
        )


def _lower_case(image: str, parsed: reference.Reference) -> str:
    """Return the fix for a registry with capitals, which is often the organization of an image of Docker Hub."""
    registry = parsed.registry
    if registry == registry.lower():
        return ""
    lowered = registry.lower() + image.removeprefix(registry)
    if "." in registry or ":" in registry:
        return f"write {lowered}"
    return f"write {lowered} for an image of Docker Hub, or the host of the registry"


def check_pull_secrets(secrets: Sequence[str], image: str, path: str, findings: Findings) -> None:
    """Report Secrets without an image, more than one, and invalid names."""
    if secrets and not image:
        findings.error(path, "is only for images", "remove it")
    elif len(secrets) > 1:
        fix = "put the credentials of all registries into one dockerconfigjson Secret"
        findings.error(path, "only one Secret is supported", fix)
    for index, secret in enumerate(secrets):
        check_name(secret, join(path, index), findings)


def check_volume(volume: dict[str, Any] | None, path: str, findings: Findings) -> None:
    """Report errors of a Kubernetes VolumeSource."""
    if volume is None:
        return
    if len(volume) != 1:
        findings.error(path, "must have exactly one volume type", "write persistentVolumeClaim: {claimName: NAME}")
        return
    kind, content = next(iter(volume.items()))
    place = join(path, kind)
    if kind not in VOLUMES:
        findings.error(place, "unknown volume type", unknown(kind, VOLUMES))
    elif not isinstance(content, dict):
        findings.error(place, "must be a mapping", "write claimName: NAME, or the fields of the volume below it")
    elif kind == "persistentVolumeClaim" and not isinstance(content.get("claimName"), str):
        findings.error(place, "missing field claimName", "add claimName: NAME")
    elif kind == "persistentVolumeClaim" and not content["claimName"]:
        findings.error(join(place, "claimName"), "must not be empty", "write the name of the claim")
    elif kind == "persistentVolumeClaim":
        check_name(content["claimName"], join(place, "claimName"), findings)
