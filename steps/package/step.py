"""Package the adapter as an OCI image for KAITO's inference, in ``work/image`` and in a registry."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from steps.models.adapter import ADAPTER_FILES, adapter_digest, base_revision
from steps.oci import oci_layout, reference
from steps.oci.oci_layout import Image
from steps.oci.reference import Reference
from steps.package import lineage, provenance
from steps.package.lineage import Lineage
from steps.package.settings import Result, Settings
from steps.runtime import files
from steps.runtime.errors import BadInput, StepError, TransientError

MODEL_NAME = "sh.kaito.model.name"
"""Manifest annotation that KAITO's pusher writes."""


def package(settings: Settings) -> Result:
    """Build the adapter's image in ``work/image`` and push it to ``image``.

    Raises:
        BadInput: what the user must fix, before anything is written: reference, annotations, a changed adapter.
        StepError: the registry is unreachable or rejects the push; the image is kept and a rerun pushes it.
    """
    from steps.oci import registry

    target, moving = check_settings(settings)
    adapter, layout = settings.work / "adapter", settings.work / "image"
    digest = _check_adapter(adapter, settings.adapter_digest)
    tag = (target.tag or "latest") if target else "adapter"
    annotations = _build_annotations(settings, digest)
    image = _load_cached_image(layout, tag, annotations) or oci_layout.build_image(adapter, layout, tag, annotations)
    base = {"preset": settings.preset, "model": _model(settings), "revision": _revision(settings)}
    name = target.name if target else settings.preset or "adapter"
    image = provenance.attach(image, settings.work, name, base, _lineage(settings, digest))
    provenance_digest = image.referrers[-1].manifest.digest
    print(f"image {image.manifest.digest}, {image.size / 1e6:.1f} MB, in {layout}", flush=True)
    if settings.output:
        _copy_adapter(adapter, settings.output, _lineage(settings, digest))
    if target is None or not settings.push:
        image_reference = f"oci:{layout.absolute()}:{tag}"
        return Result(
            image.manifest.digest, image_reference, image.size, pushed=False, provenance_digest=provenance_digest
        )
    try:
        pushed = registry.push_image(layout, target, immutable=settings.immutable)
        has_provenance = _push_provenance(layout, target)
        if moving:
            registry.push_image(layout, moving, mount_from=target)
    except StepError as error:
        error.fix = f"{error.fix}\n  the image is kept in {layout}; a rerun pushes it".lstrip()
        raise
    image_reference = f"{target.name}@{pushed}"
    return Result(
        pushed, image_reference, image.size, pushed=True, provenance_digest=provenance_digest if has_provenance else ""
    )


def check_settings(settings: Settings) -> tuple[Reference | None, Reference | None]:
    """Validate the settings; return the references to push to and to move, each None if not set.

    Raises:
        BadInput: all errors in the settings.
    """
    errors: list[BadInput] = []
    target = _parse_reference(settings.image, "image", errors)
    moving = _parse_reference(settings.moving_image, "moving image", errors)
    if settings.moving_image and not settings.image:
        errors.append(BadInput("--moving-image requires --image", "pass --image"))
    for key in settings.annotations:
        if key == MODEL_NAME or key.startswith(lineage.PREFIX):
            errors.append(BadInput(f"annotation {key!r} is set by this step", "remove it"))
        elif not re.fullmatch(r"[\x21-\x7e]+", key):
            errors.append(BadInput(f"annotation {key!r} is not a valid key", "use a key like com.example.key"))
    if errors:
        raise BadInput("; ".join(e.message for e in errors), "; ".join(dict.fromkeys(e.fix for e in errors)))
    return target, moving


def outputs_intact(settings: Settings, result: Result) -> bool:
    """Return True if the layout is complete and, if pushed, the registry still has the image."""
    from steps.oci import registry

    try:
        image = oci_layout.read_image(settings.work / "image")
        exists = not result.pushed or registry.manifest_exists(reference.parse(result.image_reference))
        if result.pushed and result.provenance_digest:
            pushed = reference.parse(result.image_reference)
            exists = exists and registry.manifest_exists(replace(pushed, digest=result.provenance_digest))
    except StepError:
        return False
    expected = _lineage(settings, adapter_digest(settings.work / "adapter"))
    copied = settings.output is None or lineage.read_folder_lineage(settings.output) == expected
    return exists and copied and image.manifest.digest == result.image_digest


def _parse_reference(text: str, label: str, errors: list[BadInput]) -> Reference | None:
    try:
        target = reference.parse(text) if text else None
    except BadInput as error:
        errors.append(error)
        return None
    if target and target.digest:
        errors.append(
            BadInput(f"{label} {text!r} has a digest, which is not known before the push", "use a tag instead")
        )
    return target


def _check_adapter(adapter: Path, expected: str) -> str:
    missing = [name for name in ADAPTER_FILES if not (adapter / name).is_file()]
    if missing:
        raise BadInput(f"{' and '.join(missing)} not found in {adapter}", "run the tune step first")
    digest = adapter_digest(adapter)
    if expected and digest != expected:
        raise BadInput(
            f"the adapter in {adapter} has digest {digest}, not {expected} from tune", "rerun the tune step"
        )
    return digest


def _lineage(settings: Settings, digest: str) -> Lineage:
    return Lineage(settings.data_digest, settings.settings_digest, digest)


def _push_provenance(layout: Path, target: Reference) -> bool:
    """Push the statement; return False, with a warning, if the registry rejects it."""
    from steps.oci import registry

    try:
        registry.push_referrers(layout, target)
    except TransientError:
        raise
    except StepError as error:
        print(f"warning: the image has no provenance: {error.message}", flush=True)
        return False
    return True


def _copy_adapter(adapter: Path, output: Path, origin: Lineage) -> None:
    """Copy file by file, as a mounted volume cannot be replaced as a whole; write the lineage last."""
    replaced = lineage.read_folder_lineage(output)
    if replaced and replaced.adapter_digest != origin.adapter_digest:
        print(f"replacing adapter {replaced.adapter_digest} in {output}", flush=True)
    for name in reversed(ADAPTER_FILES):
        with (adapter / name).open("rb") as source, files.replacing(output / name) as copy:
            shutil.copyfileobj(source, copy)
    lineage.write(output, origin)
    print(f"adapter copied to {output}", flush=True)


def _build_annotations(settings: Settings, digest: str) -> dict[str, str]:
    """Return the annotations of the manifest (image-spec annotations.md): those with a value, then the user's."""
    model = _model(settings)
    values = {
        "org.opencontainers.image.title": f"LoRA adapter for {settings.preset or model}"
        if settings.preset or model
        else "",
        MODEL_NAME: settings.preset,
        f"{lineage.PREFIX}base.model": model,
        f"{lineage.PREFIX}base.revision": _revision(settings),
        **_lineage(settings, digest).annotations(),
    }
    return {**{key: value for key, value in values.items() if value}, **settings.annotations}


def _model(settings: Settings) -> str:
    """Return the model's id, or the preset for a local path, which would differ between machines."""
    return settings.preset if Path(settings.model).is_absolute() else settings.model


def _revision(settings: Settings) -> str:
    """Return the revision that the adapter was tuned on, which a branch or a tag does not determine."""
    return base_revision(settings.work / "adapter", settings.model, settings.revision)


def _load_cached_image(layout: Path, tag: str, annotations: dict[str, str]) -> Image | None:
    """Return the image of an earlier attempt if it is complete and has the same adapter, tag and annotations."""
    try:
        image = oci_layout.read_image(layout)
    except StepError:
        return None
    is_same = image.tag == tag and image.annotations == oci_layout.with_created(annotations)
    return image if is_same else None
