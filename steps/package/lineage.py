"""Lineage of an adapter, stored in the annotations of its image and next to its files in a volume."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.models.adapter import adapter_digest
from steps.oci.reference import Reference
from steps.runtime import files
from steps.runtime.json_text import parse_json

PREFIX = "dev.argotune."
FILE = "lineage.json"


@dataclass(frozen=True)
class Lineage:
    """Digests of an adapter, its data and its settings; empty if unknown."""

    data_digest: str = ""
    settings_digest: str = ""
    adapter_digest: str = ""

    @property
    def origin(self) -> str:
        """Digest of data and settings together: equal for equivalent adapters."""
        return files.sha256_text(f"{self.data_digest}\n{self.settings_digest}\n")

    def annotations(self) -> dict[str, str]:
        """Return the lineage as annotations of a manifest, without unknown digests."""
        names = {field.name: PREFIX + field.name.replace("_", ".") for field in dataclasses.fields(self)}
        return {names[name]: value for name, value in dataclasses.asdict(self).items() if value}

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str]) -> Lineage:
        """Parse the annotations of a manifest."""
        fields = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: str(annotations.get(PREFIX + name.replace("_", "."), "")) for name in fields})


def read_image_lineage(reference: Reference) -> tuple[Reference, Lineage] | None:
    """Return the image of ``reference`` in its registry, by digest, and its lineage; None if it does not exist.

    Raises:
        BadInput: these credentials are not allowed to read it.
        StepError: the registry is unreachable.
    """
    from steps.oci import registry

    stored = registry.read_annotations(reference)
    if stored is None:
        return None
    digest, annotations = stored
    by_digest = Reference(reference.registry, reference.repository, digest=digest)
    return by_digest, Lineage.from_annotations(annotations)


def read_folder_lineage(folder: Path) -> Lineage | None:
    """Return the lineage of the adapter in ``folder``; None if there is no complete adapter.

    ``write`` follows the adapter's files, so files with another digest come from an interrupted copy.
    """
    try:
        digest = adapter_digest(folder)
    except FileNotFoundError:
        return None
    try:
        lineage = Lineage(**parse_json((folder / FILE).read_text()))
    except FileNotFoundError:
        return Lineage(adapter_digest=digest)
    except (ValueError, TypeError):
        return None
    return lineage if lineage.adapter_digest == digest else None


def write(folder: Path, lineage: Lineage) -> None:
    """Write the lineage next to the adapter in ``folder``, atomically."""
    files.write_json(folder / FILE, dataclasses.asdict(lineage))
