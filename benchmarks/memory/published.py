"""Compare the estimates with published results: peak memory, and speed.

python benchmarks/memory/published.py    # prints both tables
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import presets
from workflows.estimate import cost, memory, shapes
from workflows.estimate.shapes import Shapes

# Models without a preset: hidden size, layers, heads, key heads, intermediate size, vocabulary size.
OTHERS = {
    "llama-2-7b": (4096, 32, 32, 32, 11008, 32000),
    "llama-2-70b": (8192, 80, 64, 8, 28672, 32000),
    "qwen-7b": (4096, 32, 32, 32, 11008, 151936),
    "qwen-14b": (5120, 40, 40, 40, 13696, 152064),
}


@dataclass(frozen=True)
class Row:
    """A published result and the estimate for its settings, in GiB or tokens per second."""

    source: str
    published: float
    estimated: float
    bound: tuple[float, float]
    """Minimum and maximum of ``error``."""

    @property
    def error(self) -> float:
        """Deviation of the estimate from the published value, in percent."""
        return 100 * (self.estimated / self.published - 1)


def rows() -> Iterator[Row]:
    """Yield the rows of ``published.yaml``."""
    for row in yaml.safe_load(Path(__file__).with_name("published.yaml").read_text()):
        published = row["gib"] if "gib" in row else row["gb"] * 1e9 / memory.GIB
        yield Row(row["source"], published, _estimate(row), tuple(row["bound"]))


def speeds() -> Iterator[Row]:
    """Yield the rows of ``published_speed.yaml``."""
    for row in yaml.safe_load(Path(__file__).with_name("published_speed.yaml").read_text()):
        training = memory.Training(**row["training"])
        estimated = cost.tokens_per_second(model(row["model"]), training, row["tflops"])
        yield Row(row["source"], row["tokens_per_second"], estimated, tuple(row["bound"]))


def _estimate(row: dict[str, Any]) -> float:
    settings = dict(row["training"])
    training = memory.Training(**{**settings, "targets": tuple(settings.get("targets", ()))})
    estimated = memory.tuning(model(row["model"]), training)
    is_device_total = row["counts"] == "device"
    return estimated.total if is_device_total else estimated.total - estimated.context - estimated.margin


def model(name: str) -> Shapes:
    """Return the shapes of a preset, or of one of ``OTHERS``."""
    if name not in OTHERS:
        return shapes.of(presets.model(name))
    hidden, layers, heads, kv_heads, intermediate, vocabulary = OTHERS[name]
    facts = presets.model("llama-3.1-8b-instruct").model_copy(
        update={
            "hidden_size": hidden,
            "layers": layers,
            "heads": heads,
            "kv_heads": kv_heads,
            "intermediate_size": intermediate,
            "vocab_size": vocabulary,
        }
    )
    return shapes.of(facts)


def table() -> str:
    """Return all rows as Markdown tables."""
    lines = ["| Published | GiB | Estimate | Error |", "|---|---|---|---|"]
    lines += [f"| {row.source} | {row.published:.1f} | {row.estimated:.1f} | {row.error:+.0f}% |" for row in rows()]
    lines += ["", "| Published | tokens/s | Estimate | Error |", "|---|---|---|---|"]
    lines += [f"| {row.source} | {row.published:.0f} | {row.estimated:.0f} | {row.error:+.0f}% |" for row in speeds()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
