"""Settings and result of the evaluate step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from steps.evaluate import gate
from steps.runtime.entrypoint import OptionalFolder, settings


@settings
class Settings(gate.Rules):
    """Compare ``WORK/adapter`` with its base on ``eval.parquet`` of the dataset; writes ``report/evaluation.json``."""

    work: Path
    """Work folder, shared by all steps."""
    dataset: OptionalFolder = None
    """Folder of the rows; by default ``WORK/dataset``."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id of the base model, or a folder; by default the preset's."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    method: Literal["lora", "qlora"] = "qlora"
    """How the base was loaded for training. It is evaluated as it is served, not quantized, if memory is enough."""
    quantization_config: dict[str, Any] = field(default_factory=dict)
    """Arguments of transformers' BitsAndBytesConfig, as in training."""
    max_length: int = 1024
    """Tokens of a row; longer rows are cut."""
    samples: int = 5
    """Rows whose question the models answer, to be read side by side; exact match and ROUGE-L are of these answers."""
    max_new_tokens: int = 64
    """Length of these answers."""
    tasks: list[str] = field(default_factory=list)
    """Tasks of lm-eval that the models are asked too: names, or paths of YAML files (lm_tasks.py)."""
    task_limit: int = 0
    """Samples of each task; 0: all."""
    seed: int = 42
    """Of the choice of samples."""
    adapter_digest: str = ""
    """Digest of the adapter, from the tune step."""
    data_digest: str = ""
    """Digest of the rows, from the download step."""
    previous: str = ""
    """The adapter in service, which this one must be better than: a folder (a path that begins with ``/``) or the
    reference of an image; empty: there is none."""


@dataclass(frozen=True)
class Result:
    """Losses are means over all assistant tokens of the held-out rows."""

    base_loss: float
    adapter_loss: float
    base_perplexity: float
    adapter_perplexity: float
    verdict: str
    """``pass`` or ``fail``."""
    reason: str = ""
    """The rules of the gate that said no; empty when none did."""
    base_exact_match: float | None = None
    """Means over the answers, from 0 to 1; None when nothing was answered."""
    adapter_exact_match: float | None = None
    base_rouge_l: float | None = None
    adapter_rouge_l: float | None = None
    previous_loss: float | None = None
    """Of the adapter in service; None when there is none of this base model."""
    previous_exact_match: float | None = None
    previous_rouge_l: float | None = None
