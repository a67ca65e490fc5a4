"""What an adapter was made of, kept with it: in the annotations of its image, and beside its files in a volume."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.models.adapter import adapter_digest
from steps.oci.reference import Reference
from steps.runtime import files

PREFIX = "dev.argotune."
FILE = "lineage.json"


@dataclass(frozen=True)
class Lineage:
    """Digests of an adapter and of what it was made from; empty where that is not known."""

    data_digest: str = ""
    settings_digest: str = ""
    adapter_digest: str = ""

    @property
    def origin(self) -> str:
        """Digest of data and settings together: equal for adapters that need not be trained twice."""
        return files.sha256_text(f"{self.data_digest}\n{self.settings_digest}\n")

    def annotations(self) -> dict[str, str]:
        """Annotations of a manifest that say it, none for what is not known."""
        names = {field.name: PREFIX + field.name.replace("_", ".") for field in dataclasses.fields(self)}
        return {names[name]: value for name, value in dataclasses.asdict(self).items() if value}

    @classmethod
    def of_annotations(cls, annotations: Mapping[str, str]) -> Lineage:
        """What the annotations of a manifest say."""
        fields = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: str(annotations.get(PREFIX + name.replace("_", "."), "")) for name in fields})


def of_image(reference: Reference) -> tuple[Reference, Lineage] | None:
    """The image that a registry has under ``reference``, by its digest, and its lineage; None when it has none.

    Raises:
        BadInput: these credentials may not read it.
        StepError: the registry can't be reached.
    """
    from steps.oci import registry

    found = registry.read_annotations(reference)
    if found is None:
        return None
    digest, annotations = found
    by_digest = Reference(reference.registry, reference.repository, digest=digest)
    return by_digest, Lineage.of_annotations(annotations)


def of_folder(folder: Path) -> Lineage | None:
    """The lineage of the adapter in ``folder``: empty where it has none with it, None where there is no whole adapter.

    ``write`` comes after the adapter's files, so files that are not those it names were torn by a kill.
    """
    try:
        digest = adapter_digest(folder)
    except FileNotFoundError:
        return None
    try:
        kept = Lineage(**json.loads((folder / FILE).read_text()))
    except FileNotFoundError:
        return Lineage(adapter_digest=digest)
    except (ValueError, TypeError):
        return None
    return kept if kept.adapter_digest == digest else None


def write(folder: Path, lineage: Lineage) -> None:
    """Put the lineage of the adapter in ``folder`` beside it, whole or not at all."""
    files.write_json(folder / FILE, dataclasses.asdict(lineage))
