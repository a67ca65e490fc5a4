"""Peak GPU memory of LoRA and QLoRA training, component by component.

The arithmetic counts what PyTorch holds when a step of ``steps.tune`` is at its peak: see docs/ESTIMATES.md for each
formula's source and for how far it is from what was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from workflows.estimate.shapes import Shapes

GIB = 2**30

# QLoRA paper, section 3: NF4 holds a weight in 4 bits; each block of 64 shares a constant. The constants are 32 bits,
# or quantized again: 8 bits each, and one of 32 bits for 256 of them.
NF4_BYTES = 4 / 8
SINGLE_QUANTIZATION_BYTES = 32 / 64 / 8
DOUBLE_QUANTIZATION_BYTES = (8 / 64 + 32 / (64 * 256)) / 8
CODE_TABLES_BYTES = (16 + 256) * 4
"""Of each quantized layer: the 16 values of NF4, and the 256 of its constants."""

# Bytes a trained parameter: the two moments of AdamW and the like.
OPTIMIZER_BYTES = {"8bit": 2 * (1 + 4 / 256), "4bit": 2 * 0.5, "sgd": 0, "adafactor": 0.1, "lion": 4, "adagrad": 4}
ADAMW_BYTES = 8

# trl computes the loss in tiles of so many tokens and words, and never holds all logits (trl 1.16, chunked_logprob).
TILE_TOKENS = 4096
TILE_WORDS = 32768
# Where it can't: logits in 16 bits and in float32, the logarithm of their softmax, and their gradient in 16 bits.
ALL_LOGITS_BYTES = 2 + 4 + 4 + 2

GATHERED_LAYERS = 3
"""Of a model that is divided, what is whole at a time: the layer that computes, the next one, and the buffer in which
it came (torch's fully_shard)."""


@dataclass(frozen=True)
class Device:
    """What training takes on a kind of device beside its tensors."""

    compute_bytes: int
    """Of a value in the type that activations have."""
    tile_copies: float
    """How often a tile of logits is held: once where a kernel works in place, else with the temporaries of torch."""
    context_gib: float
    """Of the CUDA context, the libraries' kernels and their workspaces."""
    margin: float
    """Share of the moving part (activations, logits, backward) that the allocator loses to fragmentation."""


GPU = Device(compute_bytes=2, tile_copies=1, context_gib=0.8, margin=0.1)
CPU = Device(compute_bytes=4, tile_copies=8.25, context_gib=0, margin=0)


@dataclass(frozen=True)
class Training:
    """The settings that decide how much memory training takes."""

    method: Literal["lora", "qlora"]
    batch_size: int
    length: int
    """Tokens of the longest row of a batch; all rows are padded to it."""
    rank: int = 16
    targets: tuple[str, ...] = ()
    """Layers with an adapter; empty: all linear layers."""
    checkpointing: bool = True
    attention: Literal["sdpa", "eager"] = "sdpa"
    optimizer: str = "adamw_torch_fused"
    bits: Literal[4, 8] = 4
    double_quantization: bool = True
    dropout: bool = False
    """LoRA dropout is above 0."""
    logit_bytes: float = 0
    """Of each word's score for each token, where the loss needs all at once; 0: trl computes them in tiles."""
    adapter_bytes: int = 4
    """Of an adapter's parameter and its gradient: this project keeps them in float32."""
    answers: int = 1
    """Conversations that one row is: 2 with pairs of answers (DPO)."""
    gpus: int = 1
    """That hold the model together: the layers are spread over them, and one computes at a time."""
    processes: int = 1
    """That train side by side, each on a GPU which holds all of the model, or a share of its weights."""
    divided: bool = False
    """Each holds a share of the base model's weights, and gathers those of a layer when it computes (FSDP)."""

    @property
    def tokens(self) -> int:
        """Of one batch, padding included."""
        return self.batch_size * self.answers * self.length


@dataclass(frozen=True)
class TuningMemory:
    """Peak memory of the fullest GPU, in GiB. The components sum to ``total``."""

    weights: float
    """The base model, as loaded; of several processes that divide it, a share and what is gathered at a time."""
    adapter: float
    gradients: float
    """Of several processes, and the buffers in which they add them up."""
    optimizer: float
    activations: float
    """What the forward pass keeps for the backward pass."""
    logits: float
    """What the loss takes at once."""
    backward: float
    """What a layer's backward pass takes beyond what the loss took before it: with checkpointing the layer's
    activations, which are computed again, then gradients of activations and the layer's weights in 16 bits."""
    context: float
    margin: float
    total: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(self.components().values()))

    def components(self) -> dict[str, float]:
        """Each component by name."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.init}


def tuning(shapes: Shapes, training: Training, device: Device = GPU) -> TuningMemory:
    """Peak memory of training an adapter."""
    share = math.ceil(shapes.layers / training.gpus) / shapes.layers
    trained = shapes.adapter_parameters(training.rank, training.targets) * share
    kept = _kept(shapes, training, device) * share + _after_layers(shapes, training, device)
    logits = _logits(shapes, training, device)
    backward = max(0.0, _backward(shapes, training, device) - logits)
    moving = kept + logits + backward
    buffered = training.processes > 1 and not training.divided
    return TuningMemory(
        weights=_weights(shapes, training, share, device) / GIB,
        adapter=trained * training.adapter_bytes / GIB,
        gradients=trained * training.adapter_bytes * (1 + buffered) / GIB,
        optimizer=trained * _optimizer_bytes(training.optimizer) / GIB,
        activations=kept / GIB,
        logits=logits / GIB,
        backward=backward / GIB,
        context=device.context_gib,
        margin=moving * device.margin / GIB,
    )


def _weights(shapes: Shapes, training: Training, share: float, device: Device) -> float:
    other = float(shapes.other_parameters * device.compute_bytes)
    if training.gpus > 1 and not shapes.tied:
        other /= 2  # the embedding is on the first GPU, the output head on the last
    linear, constants = _linear(shapes, training, device)
    if not training.divided:
        return (linear + constants) * share + other
    head = shapes.embedding_parameters * device.compute_bytes
    gathered = max(GATHERED_LAYERS * linear / shapes.layers, 0 if shapes.tied else head)
    # One matrix for input and output can't be divided.
    whole = head if shapes.tied else 0
    return (linear + other - whole) / training.processes + constants + whole + gathered


def weights_sent(shapes: Shapes, training: Training, device: Device = GPU) -> float:
    """Bytes that a process gets from the others each time that it goes through a model which is divided."""
    linear, _ = _linear(shapes, training, device)
    return linear * (training.processes - 1) / training.processes if training.divided else 0


def _linear(shapes: Shapes, training: Training, device: Device) -> tuple[float, float]:
    """Bytes of the weights of the linear layers, and of the constants of their quantization, which are not divided."""
    if training.method == "lora":
        return shapes.linear_parameters * device.compute_bytes, 0
    if training.bits == 8:
        return shapes.linear_parameters, 0
    constants = DOUBLE_QUANTIZATION_BYTES if training.double_quantization else SINGLE_QUANTIZATION_BYTES
    tables = CODE_TABLES_BYTES * len(shapes.linears) * shapes.layers
    return shapes.linear_parameters * NF4_BYTES, shapes.linear_parameters * constants + tables


def _optimizer_bytes(name: str) -> float:
    return next((size for word, size in OPTIMIZER_BYTES.items() if word in name), ADAMW_BYTES)


def _kept(shapes: Shapes, training: Training, device: Device) -> float:
    """Kept for the backward pass by all layers."""
    if training.checkpointing:
        return shapes.layers * shapes.hidden * device.compute_bytes * training.tokens
    casts = 0 if device.compute_bytes == training.adapter_bytes else device.compute_bytes
    return shapes.layers * _layer(shapes, training, device) + casts * shapes.adapter_parameters(
        training.rank, training.targets
    )


def _after_layers(shapes: Shapes, training: Training, device: Device) -> float:
    """The last norm (in float32), the hidden state that the loss reads, and the mask of attention."""
    mask = device.compute_bytes * training.tokens * training.length
    return (4 + device.compute_bytes) * shapes.hidden * training.tokens + mask


def _layer(shapes: Shapes, training: Training, device: Device) -> float:
    """Activations that one layer keeps."""
    size, tokens = device.compute_bytes, training.tokens
    values = shapes.norms * 4 * shapes.hidden  # norms compute in float32
    values += size * 4 * shapes.queries  # queries, keys and values (each repeated for its heads), and the output
    if shapes.fused_qkv and shapes.heads == shapes.kv_heads:
        values += size * (shapes.queries + shapes.keys)  # the values are a view of all three, which it keeps
    values += 4 * shapes.heads  # the kernel's sum of exponentials
    values += shapes.heads * training.length * _scores(shapes, training, device)
    values += size * (3 if shapes.gated else 1) * shapes.intermediate
    return tokens * (values + _adapter_inputs(shapes, training, device))


def _scores(shapes: Shapes, training: Training, device: Device) -> int:
    """Bytes kept of each score of a query and a key; none where one kernel computes attention."""
    if training.attention == "eager":
        return 4 + device.compute_bytes  # the softmax in float32, then cast
    # Falcon gives one key head to many queries, which no kernel takes: torch falls back to plain matrices.
    return 2 * device.compute_bytes if not shapes.gated and shapes.kv_heads == 1 else 0


def _adapter_inputs(shapes: Shapes, training: Training, device: Device) -> float:
    """Bytes a token of what the adapters of a layer keep: their inputs, and what comes out of their first matrix."""
    adapted = shapes.adapted(training.targets)
    size = device.compute_bytes
    # On a GPU, PEFT casts the input of an adapter beside a layer that isn't quantized, for each layer anew; the layers
    # that read the same input share it otherwise. Attention's output counts again: its heads are put side by side.
    shared_inputs = training.method == "qlora" or size == training.adapter_bytes
    inputs = {_source(linear.name) if shared_inputs else linear.name: linear.inputs for linear in adapted}
    # Dropout keeps its mask and its result; beside a layer that isn't quantized, in float32.
    dropped = 1 + size if shared_inputs else 4
    dropout = sum(linear.inputs * dropped for linear in adapted) if training.dropout else 0
    return size * (sum(inputs.values()) + training.rank * len(adapted)) + dropout


def _source(layer: str) -> str:
    """What a linear layer reads; layers that read the same share it."""
    if layer in ("o_proj", "dense"):
        return "attention"
    if layer in ("down_proj", "dense_4h_to_h"):
        return "inner"
    return "second norm" if layer in ("gate_proj", "up_proj", "gate_up_proj", "dense_h_to_4h") else "first norm"


def _logits(shapes: Shapes, training: Training, device: Device) -> float:
    """What the loss takes at once, and the gradient that it hands to the last layer."""
    tokens, hidden = training.tokens, shapes.hidden
    if training.logit_bytes:
        return tokens * shapes.vocabulary * training.logit_bytes
    tile = min(tokens, TILE_TOKENS) * min(shapes.vocabulary, TILE_WORDS) * device.compute_bytes
    return tile * device.tile_copies + tokens * hidden * (4 + device.compute_bytes)


def _backward(shapes: Shapes, training: Training, device: Device) -> float:
    """What the backward pass of one layer takes at its peak, in the MLP."""
    size, tokens = device.compute_bytes, training.tokens
    widest = max(linear.parameters for linear in shapes.linears)
    inner, hidden = size * tokens * shapes.intermediate, size * tokens * shapes.hidden
    if training.method == "qlora":
        gradients = max(2 * inner + hidden, size * widest + 2 * hidden)
    else:
        # PEFT's casts to float32 and back have gradients too.
        gradients = (5 if training.dropout else 3) * inner + 2 * hidden
    # Eager attention frees as it goes; plain matrices have their gradients and those of their scores at once.
    scores = _scores(shapes, training, device) * (1 if training.attention == "eager" else 2)
    gradients = max(gradients, tokens * shapes.heads * training.length * scores)
    again = _layer(shapes, training, device) if training.checkpointing else 0
    return again + gradients
