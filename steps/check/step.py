"""Check for changes: compare data and settings with those of the live adapter.

    python -m steps.check --work work --preset phi-4 --data-digest sha256:... --image registry.example.com/team/a:1.0

It runs on any machine, before GPU nodes are requested. The live adapter is the image under the Workspace's reference,
or the adapter in its output volume.
"""

from __future__ import annotations

import json

from steps.check.settings import Result, Settings
from steps.oci import reference
from steps.package import lineage
from steps.package.lineage import Lineage
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.tune.settings import NON_ADAPTER_FIELDS as NON_ADAPTER_FIELDS_OF_TUNE

NON_ADAPTER_FIELDS = NON_ADAPTER_FIELDS_OF_TUNE | {"data_digest", "image", "push", "output"}
NOTHING = "nothing"
NO_ADAPTER = "no live adapter"
MAX_TAG_LENGTH = 128
NUM_TAG_DIGITS = 12


def check(settings: Settings) -> Result:
    """Find the live adapter, and report whether data or settings differ from its lineage.

    Raises:
        BadInput: the digest of the data is missing, or the reference is invalid or not readable.
        StepError: the registry is unreachable.
    """
    if not settings.data_digest:
        raise BadInput("--data-digest is required", "run the download step and pass its data-digest output")
    digest = compute_settings_digest(settings)
    desired = Lineage(settings.data_digest, digest)
    previous, live = _find_live_adapter(settings)
    difference = _compare(live, desired)
    changed = difference != NOTHING
    decision = "tuning a new adapter" if changed else "nothing to tune"
    print(f"live adapter: {previous or 'none'}\nchanged: {difference}; {decision}", flush=True)
    return Result(changed, _derive_reference(settings.image, desired), previous, digest, difference)


def compute_settings_digest(settings: Settings) -> str:
    """Return the digest of the settings that shape the adapter, without the data."""
    values = {
        name: value for name, value in settings.model_dump(by_alias=True).items() if name not in NON_ADAPTER_FIELDS
    }
    if not settings.search:  # the digest of adapters without a search stays the same
        del values["search"]
    return files.sha256_text(json.dumps(values, sort_keys=True, default=str))


def _find_live_adapter(settings: Settings) -> tuple[str, Lineage | None]:
    """Return image or directory of the live adapter, and its lineage; "" and None if there is none."""
    if settings.image and settings.push:
        image = lineage.read_image_lineage(reference.parse(settings.image))
        return (str(image[0]), image[1]) if image else ("", None)
    if settings.output:
        origin = lineage.read_folder_lineage(settings.output)
        return (str(settings.output.absolute()), origin) if origin else ("", None)
    return "", None


def _derive_reference(image: str, desired: Lineage) -> str:
    if not image:
        return ""
    target = reference.parse(image)
    digits = desired.origin.partition(":")[2][:NUM_TAG_DIGITS]
    return f"{target.name}:{(target.tag or 'latest')[: MAX_TAG_LENGTH - NUM_TAG_DIGITS - 1]}-{digits}"


def _compare(live: Lineage | None, desired: Lineage) -> str:
    if live is None:
        return NO_ADAPTER
    pairs = (("data", live.data_digest, desired.data_digest),
             ("settings", live.settings_digest, desired.settings_digest))  # fmt: skip
    return " and ".join(name for name, old, new in pairs if old != new) or NOTHING
