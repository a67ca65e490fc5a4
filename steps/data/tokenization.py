"""Choice of the tokens of a row that are kept and learned: the same for preview, training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Learned = Literal["assistant", "last", "all"]
"""Loss scope: each assistant turn, only the last one, or every token."""


class TokenizationSettings(Protocol):
    """Settings of a step that tokenizes rows."""

    @property
    def max_length(self) -> int:
        """Maximum tokens of a row."""

    @property
    def objective(self) -> str:
        """Objective of the training: ``sft`` or ``dpo``."""

    @property
    def training_arguments(self) -> dict[str, Any]:
        """Arguments of trl's SFTConfig."""


@dataclass(frozen=True)
class Tokenization:
    """Maximum length, loss scope and truncation side of rows."""

    max_length: int
    """Maximum tokens of a row."""
    learned: Learned = "assistant"
    keep: str = "keep_start"
    """End of a truncated row that is kept: ``keep_start`` or ``keep_end``."""

    @classmethod
    def from_settings(cls, settings: TokenizationSettings) -> Tokenization:
        """Return the tokenization that trl's SFTConfig, or DPO, has with these settings."""
        arguments = settings.training_arguments
        learned: Learned = "all" if arguments.get("assistant_only_loss") is False else "assistant"
        if settings.objective == "dpo" or arguments.get("completion_only_loss"):
            learned = "last"
        return cls(settings.max_length, learned, arguments.get("truncation_mode") or "keep_start")
