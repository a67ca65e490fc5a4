"""Peak GPU memory of LoRA and QLoRA training, component by component.

The formulas count PyTorch's allocations at the peak of a step of ``steps.tune``. docs/ESTIMATES.md has the source of
each formula and its error compared with measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from workflows.estimate import scan_memory
from workflows.estimate.shapes import MLP_OUTPUTS, Shapes

GIB = 2**30

# QLoRA paper, section 3: NF4 stores a weight in 4 bits; each block of 64 shares a constant. Constants have 32 bits,
# or with double quantization 8 bits each, plus one of 32 bits per 256.
NF4_BYTES = 4 / 8
SINGLE_QUANTIZATION_BYTES = 32 / 64 / 8
DOUBLE_QUANTIZATION_BYTES = (8 / 64 + 32 / (64 * 256)) / 8
CODE_TABLES_BYTES = (16 + 256) * 4
"""Code tables of each quantized layer: 16 values of NF4, and 256 of its constants."""

# Bytes per trained parameter: the two moments of AdamW, or the state of other optimizers.
OPTIMIZER_BYTES = {"8bit": 2 * (1 + 4 / 256), "4bit": 2 * 0.5, "sgd": 0, "adafactor": 0.1, "lion": 4, "adagrad": 4}
ADAMW_BYTES = 8

# trl computes the loss in tiles of this size and never stores all logits (trl 1.16, chunked_logprob).
TILE_TOKENS = 4096
TILE_WORDS = 32768
# Without tiles: logits in 16 bits and in float32, their log softmax, and their gradient in 16 bits.
ALL_LOGITS_BYTES = 2 + 4 + 4 + 2

GATHERED_LAYERS = 3
"""Full layers of a sharded model in memory at a time: the computing layer, the prefetched one, and its buffer (torch's
fully_shard)."""


@dataclass(frozen=True)
class Device:
    """Device-specific memory of training."""

    compute_bytes: int
    """Bytes of a value in the type of the activations."""
    tile_copies: float
    """Copies of a tile of logits: 1 with an in-place kernel, otherwise including torch's temporaries."""
    context_gib: float
    """GiB of the CUDA context, kernels and workspaces."""
    margin: float
    """Fragmentation, as a share of activations, logits and backward."""


GPU = Device(compute_bytes=2, tile_copies=1, context_gib=0.8, margin=0.1)
CPU = Device(compute_bytes=4, tile_copies=8.25, context_gib=0, margin=0)


@dataclass(frozen=True)
class Training:
    """Settings that determine the memory of training."""

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
    """True if LoRA dropout is above 0."""
    logit_bytes: float = 0
    """Bytes per logit if the loss needs all logits; 0: trl computes them in tiles."""
    adapter_bytes: int = 4
    """Bytes of an adapter's parameter and its gradient: argotune keeps them in float32."""
    answers: int = 1
    """Sequences per row: 2 for preference pairs (DPO)."""
    gpus: int = 1
    """GPUs that share the layers of one process; one computes at a time."""
    processes: int = 1
    """Data-parallel processes, one per GPU, each with the whole model or a shard."""
    sharded: bool = False
    """True if the processes shard the base model's weights (FSDP)."""

    @property
    def tokens(self) -> int:
        """Tokens of one batch, including padding."""
        return self.batch_size * self.answers * self.length


@dataclass(frozen=True)
class TuningMemory:
    """Peak memory of the GPU that uses the most, in GiB. The components sum to ``total``."""

    weights: float
    """The loaded base model; if sharded, a shard and the gathered layers."""
    adapter: float
    gradients: float
    """Including the reduction buffers of several processes."""
    optimizer: float
    activations: float
    """Tensors saved by the forward pass for the backward pass."""
    logits: float
    """Peak memory of the loss."""
    backward: float
    """Memory of a layer's backward pass beyond that of the loss: recomputed activations (checkpointing), gradients
    of activations, and the layer's dequantized weights."""
    context: float
    margin: float
    total: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(self.components().values()))

    def components(self) -> dict[str, float]:
        """Return the components by name."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.init}


def tuning(shapes: Shapes, training: Training, device: Device = GPU) -> TuningMemory:
    """Return the peak memory of training an adapter."""
    share = math.ceil(shapes.layers / training.gpus) / shapes.layers
    trained = shapes.adapter_parameters(training.rank, training.targets) * share
    saved = _saved_activations(shapes, training, device) * share + _after_layers(shapes, training, device)
    logits = _logits(shapes, training, device)
    backward = max(0.0, _backward(shapes, training, device) - logits)
    dynamic = saved + logits + backward
    buffered = training.processes > 1 and not training.sharded
    return TuningMemory(
        weights=_weights(shapes, training, share, device) / GIB,
        adapter=trained * training.adapter_bytes / GIB,
        gradients=trained * training.adapter_bytes * (1 + buffered) / GIB,
        optimizer=trained * _optimizer_bytes(training.optimizer) / GIB,
        activations=saved / GIB,
        logits=logits / GIB,
        backward=backward / GIB,
        context=device.context_gib,
        margin=dynamic * device.margin / GIB,
    )


def _weights(shapes: Shapes, training: Training, share: float, device: Device) -> float:
    other = float(shapes.other_parameters * device.compute_bytes)
    if training.gpus > 1 and not shapes.tied:
        other /= 2  # the embedding is on the first GPU, the output head on the last
    linear, constants = _linear(shapes, training, device)
    if not training.sharded:
        return (linear + constants) * share + other
    head = shapes.embedding_parameters * device.compute_bytes
    gathered = max(GATHERED_LAYERS * linear / shapes.layers, 0 if shapes.tied else head)
    # A tied embedding is not sharded.
    whole = head if shapes.tied else 0
    return (linear + other - whole) / training.processes + constants + whole + gathered


def weights_sent(shapes: Shapes, training: Training, device: Device = GPU) -> float:
    """Return the bytes that a process gathers from the others in one pass through a sharded model."""
    linear, _ = _linear(shapes, training, device)
    return linear * (training.processes - 1) / training.processes if training.sharded else 0


def _linear(shapes: Shapes, training: Training, device: Device) -> tuple[float, float]:
    """Return the bytes of the linear layers' weights, and of their quantization constants, which are not sharded."""
    if training.method == "lora":
        return shapes.linear_parameters * device.compute_bytes, 0
    if training.bits == 8:
        return shapes.linear_parameters, 0
    constants = DOUBLE_QUANTIZATION_BYTES if training.double_quantization else SINGLE_QUANTIZATION_BYTES
    tables = CODE_TABLES_BYTES * sum(linear.count for linear in shapes.linears)
    return shapes.linear_parameters * NF4_BYTES, shapes.linear_parameters * constants + tables


def _optimizer_bytes(name: str) -> float:
    return next((size for word, size in OPTIMIZER_BYTES.items() if word in name), ADAMW_BYTES)


def _saved_activations(shapes: Shapes, training: Training, device: Device) -> float:
    """Kept for the backward pass by all layers."""
    if training.checkpointing:
        return shapes.layers * shapes.hidden * device.compute_bytes * training.tokens
    casts = 0 if device.compute_bytes == training.adapter_bytes else device.compute_bytes
    return shapes.layers * _average_layer(shapes, training, device) + casts * shapes.adapter_parameters(
        training.rank, training.targets
    )


def _after_layers(shapes: Shapes, training: Training, device: Device) -> float:
    """Return the bytes of the last norm (float32), the hidden state for the loss, and the attention mask."""
    mask = device.compute_bytes * training.tokens * training.length
    return (4 + device.compute_bytes) * shapes.hidden * training.tokens + mask


def _average_layer(shapes: Shapes, training: Training, device: Device) -> float:
    """Return the bytes of activations that a layer saves, on average."""
    state = shapes.scan.layers / shapes.layers if shapes.scan else 0
    mixers = (1 - state) * _attention(shapes, training, device) + state * _scan(shapes, training)
    return mixers + _outside_mixer(shapes, training, device)


def _largest_layer(shapes: Shapes, training: Training, device: Device) -> float:
    """Return the bytes of activations that the layer saves that needs the most."""
    mixer = max(_attention(shapes, training, device), _scan(shapes, training))
    return mixer + _outside_mixer(shapes, training, device)


def _outside_mixer(shapes: Shapes, training: Training, device: Device) -> float:
    """Return the bytes that a layer's norms, MLP and adapters save."""
    values = shapes.norms * 4 * shapes.hidden  # norms compute in float32
    values += device.compute_bytes * (3 if shapes.gated else 1) * shapes.intermediate
    return training.tokens * (values + _adapter_inputs(shapes, training, device))


def _scan(shapes: Shapes, training: Training) -> float:
    """Return the bytes that a block with a state saves; 0 if there are none."""
    if shapes.scan is None:
        return 0
    rows = training.batch_size * training.answers
    return rows * scan_memory.padded(training.length, shapes.scan) * scan_memory.saved_bytes(shapes.scan)


def _attention(shapes: Shapes, training: Training, device: Device) -> float:
    """Return the bytes that attention saves."""
    size = device.compute_bytes
    values = 0.0
    if shapes.qk_norm:
        # transformers casts queries and keys to float32; the product and the square of the norm keep the copy
        # (derivatives.yaml of PyTorch: mul, pow).
        values += 4 * (shapes.queries + shapes.keys)
    values += size * 4 * shapes.queries  # queries, keys and values (each repeated for its heads), and the output
    if shapes.fused_qkv and shapes.heads == shapes.kv_heads:
        values += size * (shapes.queries + shapes.keys)  # the values are a view of the fused tensor, which is saved
    values += 4 * shapes.heads  # the kernel's sum of exponentials
    values += shapes.heads * training.length * _scores(shapes, training, device)
    return training.tokens * values


def _scores(shapes: Shapes, training: Training, device: Device) -> int:
    """Return the bytes saved per attention score; 0 if one kernel computes attention."""
    if training.attention == "eager":
        return 4 + device.compute_bytes  # the softmax in float32, then cast
    # No kernel supports Falcon's single key head for many queries: torch falls back to matrix products.
    return 2 * device.compute_bytes if not shapes.gated and shapes.kv_heads == 1 else 0


def _adapter_inputs(shapes: Shapes, training: Training, device: Device) -> float:
    """Return the bytes per token that the adapters of a layer save: inputs, and outputs of the first matrix."""
    adapted = shapes.adapted(training.targets)
    size = device.compute_bytes
    # On a GPU, PEFT casts the adapter input of each layer that is not quantized; otherwise layers with the same input
    # share it. Attention's output counts again because its heads are concatenated.
    shared_inputs = training.method == "qlora" or size == training.adapter_bytes
    inputs: dict[str, float] = {}
    for linear in adapted:
        name = _source(linear.name) if shared_inputs else linear.name
        inputs[name] = max(inputs.get(name, 0), linear.inputs * linear.count / shapes.layers)
    # Dropout saves its mask and its result, in float32 for layers that are not quantized.
    dropped = 1 + size if shared_inputs else 4
    num_layers = sum(linear.count for linear in adapted) / shapes.layers
    dropout = sum(linear.inputs * linear.count for linear in adapted) / shapes.layers * dropped
    return size * (sum(inputs.values()) + training.rank * num_layers) + (dropout if training.dropout else 0)


SECOND_NORM = (
    *("gate_proj", "up_proj", "gate_up_proj", "dense_h_to_4h"),
    *("fc1", "c_fc", "fc_in", "w1", "w3", "input_linear"),
)
"""Names of layers whose input is the norm before the MLP."""


def _source(layer: str) -> str:
    """Return the name of a linear layer's input; layers with the same input share it."""
    if layer in ("o_proj", "out_proj", "dense"):
        return "attention"
    if layer in MLP_OUTPUTS:
        return "inner"
    return "second norm" if layer in SECOND_NORM else "first norm"


def _logits(shapes: Shapes, training: Training, device: Device) -> float:
    """Return the bytes of the loss and of its gradient for the last layer."""
    tokens, hidden = training.tokens, shapes.hidden
    if training.logit_bytes:
        return tokens * shapes.vocabulary * training.logit_bytes
    tile = min(tokens, TILE_TOKENS) * min(shapes.vocabulary, TILE_WORDS) * device.compute_bytes
    return tile * device.tile_copies + tokens * hidden * (4 + device.compute_bytes)


def _backward(shapes: Shapes, training: Training, device: Device) -> float:
    """Return the peak bytes of one layer's backward pass, in the MLP."""
    size, tokens = device.compute_bytes, training.tokens
    widest = max(linear.parameters for linear in shapes.linears)
    inner, hidden = size * tokens * shapes.intermediate, size * tokens * shapes.hidden
    if training.method == "qlora":
        gradients = max(2 * inner + hidden, size * widest + 2 * hidden)
    else:
        # PEFT's casts to float32 and back have gradients too.
        gradients = (5 if training.dropout else 3) * inner + 2 * hidden
    # Eager attention frees its scores early; matrix products hold the gradients of both.
    scores = _scores(shapes, training, device) * (1 if training.attention == "eager" else 2)
    gradients = max(gradients, tokens * shapes.heads * training.length * scores)
    if shapes.scan:
        gradients = max(gradients, tokens * scan_memory.gradient_bytes(shapes.scan))
    recomputed = _largest_layer(shapes, training, device) if training.checkpointing else 0
    return recomputed + gradients
