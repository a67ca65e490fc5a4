"""Sizes of a model's layers, from its preset."""

from __future__ import annotations

from dataclasses import dataclass

import presets
from presets.facts import Linear, Scan

GATES = {"gate_proj", "gate_up_proj", "w3", "input_linear"}
"""Names of the layers with the gate of an MLP."""
MLP_OUTPUTS = {"down_proj", "dense_4h_to_h", "fc2", "c_proj", "fc_out", "w2", "output_linear"}
"""Names of the last layer of an MLP."""


class UnknownShapes(LookupError):
    """The preset does not specify its layers; its model can be served but not tuned."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model for the estimates of memory and time."""

    hidden: int
    layers: int
    vocabulary: int
    intermediate: int
    """Width of the MLP; that of the widest one if the blocks differ."""
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool
    """True for a gated MLP (Llama, Mistral, Qwen, Phi); False for a plain one (Falcon)."""
    fused_qkv: bool
    norms: int
    """Norms of a block on the residual stream."""
    qk_norm: bool
    """True if attention normalizes queries and keys (Qwen 3, Gemma 3, OLMo 2)."""
    tied: bool
    """True if input and output embeddings are tied."""
    linears: tuple[Linear, ...]
    total: int | None = None
    """All parameters, if the preset has their number; it includes experts, images and other layers."""
    scan: Scan | None = None
    """Blocks that keep a state instead of keys and values."""

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
        return sum(linear.parameters * linear.count for linear in self.linears)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of one of the two embeddings."""
        return self.vocabulary * self.hidden

    @property
    def other_parameters(self) -> int:
        """Parameters that stay in 16 bits: embeddings, output head and norms, and experts."""
        if self.total is not None:
            return self.total - self.linear_parameters
        return (1 if self.tied else 2) * self.embedding_parameters + (self.norms * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.linear_parameters + self.other_parameters

    def adapted(self, targets: tuple[str, ...]) -> tuple[Linear, ...]:
        """Return the linear layers that get an adapter; ``all-linear`` is PEFT's name for all of them."""
        if not targets or targets == ("all-linear",):
            return self.linears
        # PEFT matches a target with the end of a layer's dotted name.
        return tuple(linear for linear in self.linears if linear.name in {name.rpartition(".")[2] for name in targets})

    def adapter_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Return the parameters of a LoRA adapter: rank x (inputs + outputs) per layer (LoRA paper, section 4)."""
        return sum(rank * linear.count * (linear.inputs + linear.outputs) for linear in self.adapted(targets))


def of(model: presets.Model) -> Shapes:
    """Return the shapes of a preset's model.

    Raises:
        UnknownShapes: the preset does not specify its linear layers.
    """
    if not model.vocab_size or not model.intermediate_size or not (model.linears or model.lora_targets):
        raise UnknownShapes(model.name)
    if model.linears:
        return _from_linears(model)
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
        qk_norm=model.qk_norm,
        tied=model.tied_embeddings,
        linears=tuple(
            Linear(name=name, inputs=sizes[name][0], outputs=sizes[name][1], count=model.layers)
            for name in model.lora_targets
        ),
    )


def _from_linears(model: presets.Model) -> Shapes:
    names = {linear.name for linear in model.linears}
    return Shapes(
        hidden=model.hidden_size,
        layers=model.layers,
        vocabulary=model.vocab_size or 0,
        intermediate=_intermediate(model),
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim or model.hidden_size // model.heads,
        gated=bool(names & GATES),
        fused_qkv="q_proj" not in names and "q_b_proj" not in names,
        norms=model.norms or 2,
        qk_norm=model.qk_norm,
        tied=model.tied_embeddings,
        linears=model.linears,
        total=model.parameters,
        scan=model.scan,
    )


def _intermediate(model: presets.Model) -> int:
    """Return the width of the MLP, which some configurations adjust (LFM2, Gemma 4)."""
    widths = [linear.inputs for linear in model.linears if linear.name in MLP_OUTPUTS]
    return max(widths) if widths and not model.experts else model.intermediate_size or 0


def _widths(model: presets.Model) -> tuple[int, int]:
    return model.hidden_size, model.intermediate_size or 0
