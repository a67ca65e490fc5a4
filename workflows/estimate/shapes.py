"""Sizes of a model's layers, from its preset."""

from __future__ import annotations

from dataclasses import dataclass

import presets


class UnknownShapes(LookupError):
    """The preset does not specify its layers; its model can be served but not tuned."""


@dataclass(frozen=True)
class Linear:
    """A linear layer of each transformer block."""

    name: str
    inputs: int
    outputs: int

    @property
    def parameters(self) -> int:
        """Number of weights; biases are negligible."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model for the estimates of memory and time."""

    hidden: int
    layers: int
    vocabulary: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool
    """True for a gated MLP (Llama, Mistral, Qwen, Phi); False for a plain one (Falcon)."""
    fused_qkv: bool
    norms: int
    """Norms of a block on the residual stream."""
    tied: bool
    """True if input and output embeddings are tied."""
    linears: tuple[Linear, ...]

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads; equal to that of the value heads."""
        return self.kv_heads * self.head_dim

    @property
    def linear_parameters(self) -> int:
        """Parameters that QLoRA quantizes."""
        return self.layers * sum(linear.parameters for linear in self.linears)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of one of the two embeddings."""
        return self.vocabulary * self.hidden

    @property
    def other_parameters(self) -> int:
        """Parameters that stay in 16 bits: embeddings, output head and norms."""
        return (1 if self.tied else 2) * self.embedding_parameters + (self.norms * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.linear_parameters + self.other_parameters

    def adapted(self, targets: tuple[str, ...]) -> tuple[Linear, ...]:
        """Return the linear layers of a block that get an adapter; ``all-linear`` is PEFT's name for all of them."""
        if not targets or targets == ("all-linear",):
            return self.linears
        # PEFT matches a target with the end of a layer's dotted name.
        return tuple(linear for linear in self.linears if linear.name in {name.rpartition(".")[2] for name in targets})

    def adapter_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Return the parameters of a LoRA adapter: rank x (inputs + outputs) per layer (LoRA paper, section 4)."""
        return self.layers * sum(rank * (linear.inputs + linear.outputs) for linear in self.adapted(targets))


def of(model: presets.Model) -> Shapes:
    """Return the shapes of a preset's model.

    Raises:
        UnknownShapes: the preset does not specify its linear layers.
    """
    if not model.lora_targets or not model.intermediate_size or not model.vocab_size:
        raise UnknownShapes(model.name)
    head_dim = model.head_dim or model.hidden_size // model.heads
    queries, keys, hidden, inner = model.heads * head_dim, model.kv_heads * head_dim, *_widths(model)
    sizes = {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
        "qkv_proj": (hidden, queries + 2 * keys),
        "gate_up_proj": (hidden, 2 * inner),
        "query_key_value": (hidden, queries + 2 * keys),
        "dense": (queries, hidden),
        "dense_h_to_4h": (hidden, inner),
        "dense_4h_to_h": (inner, hidden),
    }
    gated = "down_proj" in model.lora_targets
    return Shapes(
        hidden=hidden,
        layers=model.layers,
        vocabulary=model.vocab_size,
        intermediate=inner,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=head_dim,
        gated=gated,
        fused_qkv="q_proj" not in model.lora_targets,
        # Falcon's attention and MLP run in parallel; in the 7B they share one norm.
        norms=1 if not gated and model.kv_heads == 1 else 2,
        tied=model.tied_embeddings,
        linears=tuple(Linear(name, *sizes[name]) for name in model.lora_targets),
    )


def _widths(model: presets.Model) -> tuple[int, int]:
    return model.hidden_size, model.intermediate_size or 0
