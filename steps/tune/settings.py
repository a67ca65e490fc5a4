"""What the tune step is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from steps.models.sharding import Sharding
from steps.runtime.entrypoint import OptionalFolder, settings
from steps.tune.tracking_tools import ReportTo

NON_ADAPTER_FIELDS = {"work", "dataset", "report_to", "run_name", "tasks", "processes", "sharding"}
"""Settings with which the adapter stays the same."""


@settings
class Settings:
    """Train an adapter on ``train.parquet`` of the dataset and write it to ``WORK/adapter``."""

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
    """qlora: the base is quantized to 4 bits; lora: it is not."""
    objective: Literal["sft", "dpo"] = "sft"
    """sft: learn the answers; dpo: learn to prefer the chosen answer of a pair to the rejected one."""
    beta: float = 0.1
    """Of dpo: how much it costs to move away from the base model."""
    epochs: float = 3
    """Passes over the data."""
    max_steps: int = -1
    """Stop after so many optimizer steps; -1: as many as the epochs need."""
    learning_rate: float = 2e-4
    """Peak learning rate."""
    batch_size: int = 4
    """Rows of one step on a device."""
    processes: Annotated[int, Field(ge=0)] = 0
    """That train together, each with rows of its own; 0: one for each GPU, or one on a processor."""
    sharding: Sharding = "auto"
    """How they hold the base. none: each all of it; full: each a share of its weights, gathered where they are needed;
    auto: all of it, or a share where a GPU can't hold it."""
    rank: int = 16
    """LoRA rank r."""
    alpha: float = 32
    """LoRA alpha."""
    dropout: float = 0.0
    """LoRA dropout."""
    target_modules: list[str] = field(default_factory=list)
    """Names of the layers that get an adapter; by default the preset's, or all linear layers."""
    max_length: int = 1024
    """Tokens of a row; longer rows are cut."""
    seed: int = 42
    """Of the order of the rows, the adapter's first weights and dropout."""
    training_arguments: dict[str, Any] = field(default_factory=dict)
    """More arguments of trl's SFTConfig."""
    lora_config: dict[str, Any] = field(default_factory=dict)
    """More arguments of peft's LoraConfig."""
    quantization_config: dict[str, Any] = field(default_factory=dict)
    """Arguments of transformers' BitsAndBytesConfig."""
    model_config: dict[str, Any] = field(default_factory=dict)
    """How the base is loaded: torch_dtype, chat_template (Jinja text)."""
    data_digest: str = ""
    """Digest of the rows, from the download step."""
    report_to: ReportTo = "none"
    """Where metrics go besides the report; address and credentials come from the environment, as the tool reads it."""
    run_name: str = ""
    """What the run is called there."""
    tasks: list[str] = field(default_factory=list)
    """Tasks of lm-eval that the evaluation will ask: what it lacks for them is told before anything is trained."""


@dataclass(frozen=True)
class Result:
    """The adapter and how its training went."""

    adapter_digest: str
    train_loss: float
    """Mean over all steps."""
    steps: int
    device: str
    tokens_per_second: float
