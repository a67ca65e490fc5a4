"""The adapters that a server should serve: a file that the rollout writes and the server watches.

On a local machine the file is next to the server's record; in a pod it is a mounted ConfigMap, which the kubelet
updates. Standard library only: a server reads it in an environment without our packages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from steps.runtime.json_text import parse_json

FILE_VARIABLE = "ARGOTUNE_ADAPTERS"
"""Environment variable of a server with the path of the file."""
FOLDER_VARIABLE = "ARGOTUNE_ADAPTER_FOLDER"
"""Environment variable of a server with the folder for pulled adapters."""
IMAGES_VARIABLE = "ARGOTUNE_ADAPTER_IMAGES"
"""Environment variable of a server with the folder in which a cluster has mounted images of adapters."""
BASE_VARIABLE = "ARGOTUNE_BASE_FOLDER"
"""Environment variable of a server with the folder of its base model."""
KIND_VARIABLE = "ARGOTUNE_SERVER_KIND"
"""Environment variable of a server with its kind: ``vllm`` or ``transformers``."""
CONTEXT_VARIABLE = "ARGOTUNE_CONTEXT_LENGTH"
"""Environment variable of a server with its ``max-model-len``, if that is set."""
REQUESTS_VARIABLE = "ARGOTUNE_REQUESTS_PER_MINUTE"
TOKENS_VARIABLE = "ARGOTUNE_TOKENS_PER_MINUTE"
"""Environment variables of a server with its rate limits (``rate_limits``); empty: none."""
NUM_DIGITS = 12


@dataclass(frozen=True)
class DesiredAdapter:
    """An adapter: the name that requests use, and the digest of the files that answer."""

    name: str
    digest: str
    """Digest of the image's manifest, or of the two files of a folder (``steps.models.adapter``)."""
    image: str = ""
    """Reference of an image, to be pulled by ``digest``."""
    path: str = ""
    """Folder with the two files."""

    @property
    def version(self) -> str:
        """Name under which the server loads it; it contains the digest, so that old and new coexist."""
        return f"{self.name}-{self.short_digest}"

    @property
    def short_digest(self) -> str:
        """First digits of the digest, without the algorithm."""
        return self.digest.rpartition(":")[2][:NUM_DIGITS]


def serialize(adapters: Sequence[DesiredAdapter]) -> str:
    """Return the content of the file; the first adapter answers requests that name no model."""
    return json.dumps({"adapters": [dataclasses.asdict(adapter) for adapter in adapters]}, indent=1) + "\n"


def parse(text: str) -> list[DesiredAdapter]:
    """Parse the content of the file.

    Raises:
        ValueError: It was not written by ``serialize``.
    """
    try:
        return [DesiredAdapter(**adapter) for adapter in parse_json(text)["adapters"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"invalid list of adapters: {error}") from None


def config_digest(text: str) -> str:
    """Return the digest that a server reports once it serves this content (``GET /adapters``, field ``reached``)."""
    return hashlib.sha256(text.encode()).hexdigest()
