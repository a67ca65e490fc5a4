"""Parts of a model: linear layers, which LoRA adapts and QLoRA quantizes, and all other parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from presets.facts import Linear, Scan

EXPERT_LAYERS = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3")
"""Names of an expert's layers. PEFT adapts the experts if one of them is a target, even if only a shared expert has a
linear layer of this name."""


@dataclass(frozen=True)
class Cache:
    """Values that a server keeps per token."""

    values: int = 0
    """Sum over the layers that keep every token."""
    window_values: int = 0
    """Sum over the layers that keep the last tokens only."""
    window: int = 0
    """Number of these tokens."""
    latent: bool = False
    """Multi-head latent attention: the GPUs of a server do not share the values."""


@dataclass(frozen=True)
class Part:
    """Some of a model's parameters."""

    linears: tuple[Linear, ...] = ()
    other: int = 0
    """Parameters outside of linear layers, biases included."""
    experts: int = 0
    """Those of them that are expert weights: three-dimensional parameters, which LoRA cannot adapt."""

    def __add__(self, more: Part) -> Part:
        return Part((*self.linears, *more.linears), self.other + more.other, self.experts + more.experts)

    def __mul__(self, count: int) -> Part:
        """Return the part, repeated in ``count`` layers."""
        linears = tuple(linear.model_copy(update={"count": linear.count * count}) for linear in self.linears)
        return Part(linears if count else (), self.other * count, self.experts * count)


@dataclass(frozen=True)
class Layers:
    """A whole model."""

    linears: tuple[Linear, ...]
    """Without the output head."""
    other: int
    experts: int
    cache: Cache
    norms: int = 2
    """Norms of a block on the residual stream."""
    qk_norm: bool = False
    """Blocks with attention normalize queries and keys."""
    stateful: bool = False
    """Some layers keep a state instead of keys and values (Mamba, linear attention, convolutions)."""
    scan: Scan | None = None
    """Those of them that compute the state in chunks (Mamba, linear attention)."""

    @property
    def parameters(self) -> int:
        """All parameters; input and output embeddings count once if they are tied."""
        return sum(linear.parameters * linear.count for linear in self.linears) + self.other

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the linear layers, each once; of a mixture of experts, without the names of its experts' layers."""
        names = dict.fromkeys(linear.name for linear in self.linears)
        return tuple(name for name in names if not self.experts or name not in EXPERT_LAYERS)


def linear(name: str, inputs: int, outputs: int, *, bias: bool = False) -> Part:
    """Return a linear layer; its bias is not adapted."""
    return Part((Linear(name=name, inputs=inputs, outputs=outputs),), outputs if bias else 0)


def plain(parameters: int) -> Part:
    """Return parameters outside of linear layers."""
    return Part(other=parameters)


def expert_weights(parameters: int) -> Part:
    """Return weights of experts."""
    return Part(other=parameters, experts=parameters)


def add(parts: Iterable[Part]) -> Part:
    """Return the sum of parts; equal linear layers become one with their count."""
    total = sum(parts, Part())
    counts: dict[tuple[str, int, int], int] = {}
    for item in total.linears:
        key = (item.name, item.inputs, item.outputs)
        counts[key] = counts.get(key, 0) + item.count
    linears = tuple(
        Linear(name=name, inputs=inputs, outputs=outputs, count=count)
        for (name, inputs, outputs), count in counts.items()
    )
    return Part(linears, total.other, total.experts)
