"""Settings and result of the promote step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from steps.runtime.options import Options


def _to_kebab_case(name: str) -> str:
    return name.replace("_", "-")


@pydantic_dataclass(frozen=True, config=pydantic.ConfigDict(alias_generator=_to_kebab_case, populate_by_name=True))
class Candidate:
    """Outputs of ``tune`` and ``evaluate`` for one candidate; other outputs are ignored."""

    adapter_digest: Annotated[str, Field(min_length=1)]
    base_loss: Annotated[float, Field(allow_inf_nan=False)]
    adapter_loss: Annotated[float, Field(allow_inf_nan=False)]
    verdict: str


class Settings(Options):
    """Promote the best candidate to the adapter that later steps use."""

    work: Path
    """Work folder, shared by all steps."""
    candidates: list[Candidate]
    """JSON list of mappings with ``adapter-digest``, ``base-loss``, ``adapter-loss`` and ``verdict``, as Argo
    aggregates the outputs of a fan-out: ``{{tasks.NAME.outputs.parameters}}``."""


@dataclass(frozen=True)
class Result:
    """The winner."""

    candidate: str
    """Name of its directory."""
    adapter_digest: str
    """Digest of its adapter."""
    base_loss: float
    """Loss of the base model on the held-out rows."""
    adapter_loss: float
    """Loss of the adapter on the held-out rows."""
    compared: int
    """Number of candidates."""
