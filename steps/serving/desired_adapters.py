"""Which adapters a server shall serve: a file that the rollout writes and the server follows.

On one machine it lies beside the server's record; in a pod it is a mounted ConfigMap, which the kubelet keeps current.
Standard library alone: a server reads it in an environment of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

FILE_VARIABLE = "ARGOTUNE_ADAPTERS"
"""Environment variable of a server that names the file."""
FOLDER_VARIABLE = "ARGOTUNE_ADAPTER_FOLDER"
"""Environment variable of a server that names the folder for adapters it pulls."""
IMAGES_VARIABLE = "ARGOTUNE_ADAPTER_IMAGES"
"""Environment variable of a server that names the folder where a cluster has mounted images of adapters."""
DIGITS = 12


@dataclass(frozen=True)
class DesiredAdapter:
    """An adapter by the name that requests call it by, and by the digest of what shall answer."""

    name: str
    digest: str
    """Of the image's manifest, or of the adapter's two files where it is a folder (``steps.models.adapter``)."""
    image: str = ""
    """Reference of an image, to be pulled by ``digest``."""
    path: str = ""
    """Folder with the two files."""

    @property
    def version(self) -> str:
        """Name under which the server loads it: another digest is another name, so that old and new live together."""
        return f"{self.name}-{self.place}"

    @property
    def place(self) -> str:
        """Name of what holds its image, whatever name it is served under."""
        return self.digest.rpartition(":")[2][:DIGITS]


def write(adapters: Sequence[DesiredAdapter]) -> str:
    """Content of the file; the first adapter answers requests that name no model."""
    return json.dumps({"adapters": [dataclasses.asdict(adapter) for adapter in adapters]}, indent=1) + "\n"


def read(text: str) -> list[DesiredAdapter]:
    """Read the file.

    Raises:
        ValueError: it is not as ``write`` makes it.
    """
    try:
        return [DesiredAdapter(**given) for given in json.loads(text)["adapters"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"no list of adapters: {error}") from None


def mark(text: str) -> str:
    """What a server tells when it serves what the file says (``GET /adapters``, field ``reached``)."""
    return hashlib.sha256(text.encode()).hexdigest()
