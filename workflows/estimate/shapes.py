"""Sizes of a model's layers, from the facts of its preset."""

from __future__ import annotations

from dataclasses import dataclass

import presets


class UnknownShapes(LookupError):
    """The preset lacks the facts that this needs; its models can be served but not tuned."""


@dataclass(frozen=True)
class Linear:
    """A linear layer of each transformer block."""

    name: str
    inputs: int
    outputs: int

    @property
    def parameters(self) -> int:
        """Weights; the few biases there are don't matter here."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shapes:
    """What the arithmetic of memory and time needs to know of a model."""

    hidden: int
    layers: int
    vocabulary: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool
    """The MLP multiplies a gate with what goes up (Llama, Mistral, Qwen, Phi); else one matrix goes up (Falcon)."""
    fused_qkv: bool
    norms: int
    """Norms of a block that see the residual stream."""
    tied: bool
    """Input and output embeddings are one matrix."""
    linears: tuple[Linear, ...]

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads; that of the value heads is the same."""
        return self.kv_heads * self.head_dim

    @property
    def linear_parameters(self) -> int:
        """Parameters that QLoRA quantizes."""
        return self.layers * sum(linear.parameters for linear in self.linears)

    @property
    def embedding_parameters(self) -> int:
        """Of one of the two embeddings."""
        return self.vocabulary * self.hidden

    @property
    def other_parameters(self) -> int:
        """What stays in 16 bits: embeddings, output head and norms."""
        return (1 if self.tied else 2) * self.embedding_parameters + (self.norms * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.linear_parameters + self.other_parameters

    def adapted(self, targets: tuple[str, ...]) -> tuple[Linear, ...]:
        """The linear layers of a block that get an adapter; ``all-linear`` is PEFT's word for each of them."""
        if not targets or targets == ("all-linear",):
            return self.linears
        # PEFT takes a target for the end of a layer's dotted name.
        return tuple(linear for linear in self.linears if linear.name in {name.rpartition(".")[2] for name in targets})

    def adapter_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Of a LoRA adapter: two matrices a layer, inputs x rank and rank x outputs (LoRA paper, section 4)."""
        return self.layers * sum(rank * (linear.inputs + linear.outputs) for linear in self.adapted(targets))


def of(model: presets.Model) -> Shapes:
    """The shapes of a preset's model.

    Raises:
        UnknownShapes: the preset does not tell its linear layers.
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
        # Falcon's attention and MLP run side by side; its 7B shares one norm between them.
        norms=1 if not gated and model.kv_heads == 1 else 2,
        tied=model.tied_embeddings,
        linears=tuple(Linear(name, *sizes[name]) for name in model.lora_targets),
    )


def _widths(model: presets.Model) -> tuple[int, int]:
    return model.hidden_size, model.intermediate_size or 0
