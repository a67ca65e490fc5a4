"""Options, settings and result of the evaluate step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from steps.runtime.gpu_time import PARAMETER, BudgetOptions
from steps.runtime.options import OptionalFolder, Options, Seed

Share = Annotated[float, Field(ge=0, le=1)]


class GateRules(Options):
    """Conditions that an adapter must meet to be packaged and served."""

    max_loss_ratio: float = Field(1.0, gt=0, le=1000)
    """Upper limit of the adapter's loss on the held-out rows divided by the base model's loss."""
    confident: bool = False
    """Compare the upper end of the ratio's 95 % bootstrap interval with the limit too, not only the ratio."""
    min_exact_match: Share | None = None
    """Minimum share of answers that equal the expected one, ignoring case, punctuation and articles (SQuAD)."""
    min_rouge_l: Share | None = None
    """Minimum mean ROUGE-L (F-measure) of the answers."""
    max_regressions: Share | None = None
    """Maximum share of held-out rows on which the adapter's loss is higher than the base model's."""
    min_task_scores: dict[str, float] = {}
    """Minimum scores of lm-eval tasks, as JSON: by `TASK` its first metric, by `TASK/METRIC` that one:
    `{"hellaswag/acc_norm": 0.5}`."""
    better_than_previous: bool = True
    """With a schedule: require a lower loss than the deployed adapter's."""


class EvaluationOptions(GateRules):
    """Comparison of the adapter with its base model (``pipeline.evaluation``)."""

    samples: int = Field(5, ge=0, le=1000)
    """Held-out rows that both models answer, shown side by side in the report, and scored."""
    max_new_tokens: int = Field(64, ge=1, le=4096)
    """Maximum tokens of an answer; for meaningful scores, at least the length of the expected answers."""
    tasks: list[str] = []
    """EleutherAI lm-evaluation-harness tasks to run on both models, such as `hellaswag` or `ifeval`, to measure what
    the base model can do and the adapter may have lost. A custom task is the path of its YAML file, on a cluster below
    `/mnt/models`, the volume of the base models. Requires `argotune[lm-eval]`."""
    task_limit: int = Field(0, ge=0, le=1_000_000)
    """Maximum samples of each task; 0: all, which can take hours."""


class Settings(EvaluationOptions, BudgetOptions):
    """Compare ``WORK/adapter`` with its base on ``eval.parquet`` of the dataset; write ``report/evaluation.json``."""

    PARAMETERS: ClassVar[Mapping[str, str]] = {"budget_hours": PARAMETER}
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
    quantization_config: dict[str, Any] = {}
    """Arguments of transformers' BitsAndBytesConfig, as in training."""
    max_length: int = Field(1024, ge=1)
    """Maximum tokens per row; longer rows are truncated."""
    objective: Literal["sft", "dpo"] = "sft"
    """Objective of the training: with dpo only the last answer of a row counts."""
    training_arguments: dict[str, Any] = {}
    """Arguments of trl's SFTConfig, as in training, for which tokens count and how rows are truncated."""
    seed: Seed = 42
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
    """Loss of the base model."""
    adapter_loss: float
    """Loss of the adapter."""
    base_perplexity: float
    """Perplexity of the base model."""
    adapter_perplexity: float
    """Perplexity of the adapter."""
    verdict: str
    """``pass`` or ``fail``."""
    reason: str = ""
    """Failed rules of the gate; empty if all passed."""
    base_exact_match: float | None = None
    """Exact match of the base model's answers, from 0 to 1; None if nothing was answered."""
    adapter_exact_match: float | None = None
    """The same for the adapter."""
    base_rouge_l: float | None = None
    """Mean ROUGE-L of the base model's answers; None if nothing was answered."""
    adapter_rouge_l: float | None = None
    """The same for the adapter."""
    previous_loss: float | None = None
    """Loss of the deployed adapter; None if there is none with this base model."""
    previous_exact_match: float | None = None
    """Exact match of the deployed adapter."""
    previous_rouge_l: float | None = None
    """ROUGE-L of the deployed adapter."""
    load_seconds: float = field(default=0.0, compare=False)
    """Seconds of all attempts of this step until the evaluation: image pull, imports, base model."""
    evaluate_seconds: float = field(default=0.0, compare=False)
    """Seconds of all attempts of this step that evaluated."""
