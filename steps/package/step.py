"""Package: the adapter becomes an OCI image that KAITO's inference can take, in ``work/image`` and in a registry."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from steps.models.adapter import ADAPTER_FILES, adapter_digest
from steps.oci import oci_layout, reference
from steps.oci.oci_layout import Image
from steps.oci.reference import Reference
from steps.package import lineage, provenance
from steps.package.lineage import Lineage
from steps.package.settings import Result, Settings
from steps.runtime import files
from steps.runtime.errors import BadInput, StepError, TransientError

MODEL_NAME = "sh.kaito.model.name"
"""KAITO's pusher writes this annotation of the manifest."""


def package(given: Settings) -> Result:
    """Make the adapter's image in ``work/image`` and push it where ``image`` says.

    Raises:
        BadInput: what the user must mend, before anything is written: reference, annotations, a changed adapter.
        StepError: the registry can't be reached or refuses; the image is kept and a rerun pushes it.
    """
    from steps.oci import registry

    target, moving = check(given)
    adapter, layout = given.work / "adapter", given.work / "image"
    digest = _check_adapter(adapter, given.adapter_digest)
    tag = (target.tag or "latest") if target else "adapter"
    annotations = _annotations(given, digest)
    image = _kept(layout, tag, annotations) or oci_layout.build_image(adapter, layout, tag, annotations)
    base = {"preset": given.preset, "model": _model(given), "revision": given.revision}
    name = target.name if target else given.preset or "adapter"
    image = provenance.attach(image, given.work, name, base, _lineage(given, digest))
    statement = image.referrers[-1].manifest.digest
    print(f"image {image.manifest.digest}, {image.size / 1e6:.1f} MB, in {layout}", flush=True)
    if given.output:
        _copy_adapter(adapter, given.output, _lineage(given, digest))
    if target is None or not given.push:
        where = f"oci:{layout.absolute()}:{tag}"
        return Result(image.manifest.digest, where, image.size, pushed=False, provenance_digest=statement)
    try:
        pushed = registry.push_image(layout, target, immutable=given.immutable)
        described = _describe(layout, target)
        if moving:
            registry.push_image(layout, moving, mount_from=target)
    except StepError as error:
        error.fix = f"{error.fix}\n  the image is kept in {layout}; a rerun pushes it from there".lstrip()
        raise
    where = f"{target.name}@{pushed}"
    return Result(pushed, where, image.size, pushed=True, provenance_digest=statement if described else "")


def check(given: Settings) -> tuple[Reference | None, Reference | None]:
    """Check what can be wrong in the settings; give the references to push to and to move, where there are any.

    Raises:
        BadInput: with all that is wrong.
    """
    wrong: list[BadInput] = []
    target = _reference(given.image, "image", wrong)
    moving = _reference(given.moving_image, "moving image", wrong)
    if given.moving_image and not given.image:
        wrong.append(BadInput("a moving image is named and no image", "give --image"))
    for key in given.annotations:
        if key == MODEL_NAME or key.startswith(lineage.PREFIX):
            wrong.append(BadInput(f"annotation {key!r} is set by this step", "leave it out"))
        elif not re.fullmatch(r"[\x21-\x7e]+", key):
            wrong.append(BadInput(f"annotation {key!r} is not a key", "write it like com.example.key"))
    if wrong:
        raise BadInput("; ".join(e.message for e in wrong), "; ".join(dict.fromkeys(e.fix for e in wrong)))
    return target, moving


def outputs_intact(given: Settings, result: Result) -> bool:
    """Whether the layout is whole and, if it was pushed, the registry still has the image."""
    from steps.oci import registry

    try:
        image = oci_layout.read_image(given.work / "image")
        held = not result.pushed or registry.holds(reference.parse(result.image_reference))
        if result.pushed and result.provenance_digest:
            named = reference.parse(result.image_reference)
            held = held and registry.holds(replace(named, digest=result.provenance_digest))
    except StepError:
        return False
    expected = _lineage(given, adapter_digest(given.work / "adapter"))
    copied = given.output is None or lineage.of_folder(given.output) == expected
    return held and copied and image.manifest.digest == result.image_digest


def _reference(text: str, what: str, wrong: list[BadInput]) -> Reference | None:
    try:
        target = reference.parse(text) if text else None
    except BadInput as error:
        wrong.append(error)
        return None
    if target and target.digest:
        wrong.append(BadInput(f"{what} {text!r} has a digest, which the image gets only now", "name a tag"))
    return target


def _check_adapter(adapter: Path, expected: str) -> str:
    missing = [name for name in ADAPTER_FILES if not (adapter / name).is_file()]
    if missing:
        raise BadInput(f"{adapter} has no {' and no '.join(missing)}", "run the tune step first")
    digest = adapter_digest(adapter)
    if expected and digest != expected:
        raise BadInput(
            f"the adapter in {adapter} is {digest}, not {expected} as tuned", "run again from the tune step on"
        )
    return digest


def _lineage(given: Settings, digest: str) -> Lineage:
    return Lineage(given.data_digest, given.settings_digest, digest)


def _describe(layout: Path, target: Reference) -> bool:
    """Push the statement; what a registry does not take of it is no reason to hold back the adapter."""
    from steps.oci import registry

    try:
        registry.push_referrers(layout, target)
    except TransientError:
        raise
    except StepError as error:
        print(f"warning: the image is there without its provenance: {error.message}", flush=True)
        return False
    return True


def _copy_adapter(adapter: Path, output: Path, made_of: Lineage) -> None:
    """Copy file by file: a mounted volume can't be replaced as a whole. The lineage comes last."""
    for name in reversed(ADAPTER_FILES):
        with (adapter / name).open("rb") as source, files.replacing(output / name) as copy:
            shutil.copyfileobj(source, copy)
    lineage.write(output, made_of)
    print(f"adapter copied to {output}", flush=True)


def _annotations(given: Settings, digest: str) -> dict[str, str]:
    """Annotations of the manifest (image-spec annotations.md): ours where there is a value, and the user's."""
    model = _model(given)
    values = {
        "org.opencontainers.image.title": f"LoRA adapter for {given.preset or model}" if given.preset or model else "",
        MODEL_NAME: given.preset,
        f"{lineage.PREFIX}base.model": model,
        f"{lineage.PREFIX}base.revision": given.revision,
        **_lineage(given, digest).annotations(),
    }
    return {**{key: value for key, value in values.items() if value}, **given.annotations}


def _model(given: Settings) -> str:
    """Folders of this machine say nothing elsewhere, and would make the image differ between machines."""
    return given.preset if Path(given.model).is_absolute() else given.model


def _kept(layout: Path, tag: str, annotations: dict[str, str]) -> Image | None:
    """The image of an earlier try, if it is whole and of the same adapter, tag and annotations."""
    try:
        image = oci_layout.read_image(layout)
    except StepError:
        return None
    same = image.tag == tag and image.annotations == oci_layout.with_created(annotations)
    return image if same else None
