"""Settings and result of the evaluate step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from steps.evaluate import gate
from steps.runtime.entrypoint import OptionalFolder, settings


@settings
class Settings(gate.Rules):
    """Compare ``WORK/adapter`` with its base on ``eval.parquet`` of the dataset; write ``report/evaluation.json``."""

    work: Path
    """Work directory, shared by all steps."""
    dataset: OptionalFolder = None
    """Directory of the rows (default: ``WORK/dataset``)."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id or directory of the base model (default: the preset's)."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    method: Literal["lora", "qlora"] = "qlora"
    """Training method. The base is evaluated as served, unquantized, if memory is sufficient."""
    quantization_config: dict[str, Any] = field(default_factory=dict)
    """Arguments of transformers' BitsAndBytesConfig, as in training."""
    max_length: int = 1024
    """Maximum tokens per row; longer rows are truncated."""
    samples: int = 5
    """Number of held-out questions that the models answer; exact match and ROUGE-L are means over these answers."""
    max_new_tokens: int = 64
    """Maximum tokens of an answer."""
    tasks: list[str] = field(default_factory=list)
    """Tasks of lm-eval to run on each model: names, or paths of YAML files."""
    task_limit: int = 0
    """Samples of each task; 0: all."""
    seed: int = 42
    """Seed of the choice of samples."""
    adapter_digest: str = ""
    """Digest of the adapter, from the tune step."""
    data_digest: str = ""
    """Digest of the rows, from the download step."""
    previous: str = ""
    """Deployed adapter to compare with: a directory (absolute path) or an image reference; empty: none."""


@dataclass(frozen=True)
class Result:
    """Verdict and metrics; losses are means over all assistant tokens of the held-out rows."""

    base_loss: float
    adapter_loss: float
    base_perplexity: float
    adapter_perplexity: float
    verdict: str
    """``pass`` or ``fail``."""
    reason: str = ""
    """Failed rules of the gate; empty if all passed."""
    base_exact_match: float | None = None
    """Mean over the answers, from 0 to 1; None if nothing was answered."""
    adapter_exact_match: float | None = None
    base_rouge_l: float | None = None
    adapter_rouge_l: float | None = None
    previous_loss: float | None = None
    """Loss of the deployed adapter; None if there is none with this base model."""
    previous_exact_match: float | None = None
    previous_rouge_l: float | None = None
