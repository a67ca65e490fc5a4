"""Places that a base model's files come from: the hub, a directory, an OCI image or an object store.

ORG/NAME                        the model hub; also hf://ORG/NAME[@REVISION]
/PATH                           a directory
oci://REGISTRY/NAME:TAG         files of an OCI image (KAITO's ``presetOptions.image``)
s3://BUCKET/PREFIX, gs://, abfss://, az://      objects of a store, as for data
"""

from __future__ import annotations

import re
from dataclasses import replace

from steps.data.locations import location, patterns
from steps.data.locations.location import InvalidLocation, ObjectLocation
from steps.oci import reference
from steps.oci.reference import Reference
from steps.runtime.errors import BadInput

HUB = "hf://"
IMAGE = "oci://"
STORES = ("s3://", "gs://", "abfs://", "abfss://", "az://")
CONFIG_VARIABLE = "ARGOTUNE_MODEL_DOCKER_CONFIG"
"""Variable with the directory of docker's config.json for an image; without it that of ``DOCKER_CONFIG``."""
FORMS = "a Hugging Face id, a directory, oci://IMAGE, s3://BUCKET/PREFIX, gs://, abfss:// or az://"
_HUB_ID = re.compile(r"(?:models/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w./-]*))?/?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_folder(model: str) -> bool:
    """Return True for a path."""
    return model.startswith(("/", "./", "../", "~"))


def is_image(model: str) -> bool:
    """Return True for an OCI image."""
    return model.startswith(IMAGE)


def is_store(model: str) -> bool:
    """Return True for a prefix of an object store."""
    return model.lower().startswith(STORES)


def has_own_weights(model: str) -> bool:
    """Return True for an image or an object store, whose files are copied and pinned by a digest."""
    return is_image(model) or is_store(model)


def short_name(model: str) -> str:
    """Return the name by which a model is served without a preset."""
    if is_image(model):
        return parse_image(model).repository.rpartition("/")[2]
    last = model.rstrip("/").rpartition("/")[2]
    return last if is_folder(model) or is_store(model) else model


def parse_hub(model: str) -> tuple[str, str]:
    """Return the Hugging Face id of ``hf://ORG/NAME[@REVISION]``, and the revision or "".

    Raises:
        BadInput: it is not such a location.
    """
    found = _HUB_ID.fullmatch(model.removeprefix(HUB))
    if not found:
        raise BadInput(f"{model} is not a model of the hub", "write hf://ORG/NAME or hf://ORG/NAME@REVISION")
    return found[1], found[2] or ""


def parse_image(model: str, revision: str = "") -> Reference:
    """Return the image of ``oci://REFERENCE``; its digest is ``revision`` if that is set.

    Raises:
        BadInput: the reference or the revision is invalid.
    """
    parsed = reference.parse(model.removeprefix(IMAGE))
    return replace(parsed, digest=_check_digest(model, revision)) if revision else parsed


def parse_store(model: str, revision: str = "") -> ObjectLocation:
    """Return the prefix of an object store.

    Raises:
        BadInput: the location or the revision is invalid.
    """
    try:
        parsed, digest = location.parse(model)
    except InvalidLocation as error:
        fix = error.fix.replace("pipeline.data.secret", "pipeline.model.secret")
        raise BadInput(f"{model.partition('@')[0]}: {error}", fix) from None
    if not isinstance(parsed, ObjectLocation):
        raise BadInput(f"{model} is not an object store", f"write {FORMS}")
    if digest or patterns.is_pattern(parsed.path):
        raise BadInput(f"{model} is not a prefix", "write the prefix of config.json and the weights, without patterns")
    if revision:
        _check_digest(model, revision)
    return replace(parsed, path=parsed.path.strip("/"))


def check(model: str, revision: str = "") -> None:
    """Check the form of a location, without access to it.

    Raises:
        BadInput: it has no known form, or its revision is not a digest.
    """
    if model.startswith(HUB):
        parse_hub(model)
    elif is_image(model):
        parse_image(model, revision)
    elif is_store(model):
        parse_store(model, revision)
    elif "://" in model:
        raise BadInput(f"{model.partition('://')[0]}:// cannot have weights", f"write {FORMS}")


def _check_digest(model: str, revision: str) -> str:
    if not _DIGEST.fullmatch(revision):
        fix = "remove it, or write sha256: and 64 hex digits, which a run prints"
        raise BadInput(f"revision {revision!r} of {model} is not a digest", fix)
    return revision
