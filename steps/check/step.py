"""Whether there is anything to tune: the data and the settings against those of the adapter in service.

    python -m steps.check --work work --preset phi-4 --data-digest sha256:... --image registry.example.com/team/a:1.0

It runs on any machine, before nodes with GPUs are asked for. The adapter in service is the image under the reference
that the Workspace names, or the one in its output volume.
"""

from __future__ import annotations

import json

from steps.check.settings import Result, Settings
from steps.oci import reference
from steps.package import lineage
from steps.package.lineage import Lineage
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.tune import settings

NON_ADAPTER_FIELDS = settings.NON_ADAPTER_FIELDS | {"data_digest", "image", "push", "output"}
NOTHING = "nothing"
NOBODY = "no adapter is in service"
MAX_TAG_LENGTH = 128
DIGITS = 12


def check(given: Settings) -> Result:
    """Find the adapter in service, and say whether data or settings are others than it was made of.

    Raises:
        BadInput: there is no digest of the data, or the reference is none or may not be read.
        StepError: the registry can't be reached.
    """
    if not given.data_digest:
        raise BadInput("there is no digest of the data", "run the download step before, and give its --data-digest")
    digest = settings_digest(given)
    wanted = Lineage(given.data_digest, digest)
    previous, made_of = _in_service(given)
    difference = _difference(made_of, wanted)
    changed = difference != NOTHING
    what = "there is an adapter to tune" if changed else "there is nothing to tune"
    print(f"in service: {previous or 'no adapter'}\ndifferent from it: {difference}; {what}", flush=True)
    return Result(changed, _derived(given.image, wanted), previous, digest, difference)


def settings_digest(given: Settings) -> str:
    """Digest of the settings that shape the adapter; the data has a digest of its own."""
    values = {name: value for name, value in given.model_dump(by_alias=True).items() if name not in NON_ADAPTER_FIELDS}
    return files.sha256_text(json.dumps(values, sort_keys=True, default=str))


def _in_service(given: Settings) -> tuple[str, Lineage | None]:
    """Where the adapter in service is, and what it was made of."""
    if given.image and given.push:
        found = lineage.of_image(reference.parse(given.image))
        return (str(found[0]), found[1]) if found else ("", None)
    if given.output:
        made_of = lineage.of_folder(given.output)
        return (str(given.output.absolute()), made_of) if made_of else ("", None)
    return "", None


def _derived(image: str, wanted: Lineage) -> str:
    if not image:
        return ""
    target = reference.parse(image)
    digits = wanted.origin.partition(":")[2][:DIGITS]
    return f"{target.name}:{(target.tag or 'latest')[: MAX_TAG_LENGTH - DIGITS - 1]}-{digits}"


def _difference(made_of: Lineage | None, wanted: Lineage) -> str:
    if made_of is None:
        return NOBODY
    pairs = (("data", made_of.data_digest, wanted.data_digest),
             ("settings", made_of.settings_digest, wanted.settings_digest))  # fmt: skip
    return " and ".join(name for name, old, new in pairs if old != new) or NOTHING
