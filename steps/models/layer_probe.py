"""Time of one decoder layer on a CPU, by dtype: what decides the dtype of a training.

Matrix products alone do not: where bfloat16 products are four times as fast, small models can still train faster in
float32, because of the casts, norms and attention of each layer. The layer has the model's sizes and a LoRA adapter in
float32, its rows attend to themselves, and it runs forward and backward as in the trainer. Its rows are attended as
packed rows are (steps/tune/packed_attention.py), also for a training that pads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from steps.runtime.json_text import parse_json

DTYPES = ("float32", "bfloat16")
TOKENS = 256
"""Tokens of a batch that is not known."""
MAX_SIZE, MAX_INTERMEDIATE = 1024, 1536
"""Maximum hidden and intermediate size: larger ones differ little in the ratio of both dtypes, and take seconds."""
MIN_TOKENS, MAX_TOKENS = 64, 2048
MAX_PRODUCTS = 2e9
"""Multiplications of one layer, which limit its tokens. With fewer, bfloat16 seems slower than it is: with AMX, the
layer of SmolLM2-135M is 1.3 times as fast in it with 125 tokens, and 1.6 to 2.2 times with 512, as a training step."""
ROW_TOKENS, RANK = 128, 16
"""Tokens of a row, and rank of the adapter."""
MIN_ROUNDS, MAX_ROUNDS = 3, 9
"""The first round also prepares the kernels and is never the fastest."""
BUDGET_SECONDS = 0.3
"""No further round begins after this time, beyond the minimum."""
CLEAR = 6
"""A ratio that the first round alone decides."""
MARGIN = 1.1
"""Ratio by which bfloat16 has to be faster: quiet measurements repeat within 5%, and the loss is in float32 anyway."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder layer."""

    hidden: int = 576
    intermediate: int = 1536
    heads: int = 9

    @property
    def weights(self) -> int:
        """Number of weights of all linear layers."""
        return 4 * self.hidden**2 + 3 * self.hidden * self.intermediate


@dataclass(frozen=True)
class Seconds:
    """The fastest of several rounds in one dtype."""

    wall: float
    cpu: float
    """Of all threads: what a busy machine disturbs less."""


@dataclass(frozen=True)
class Measurement:
    """Time of a layer in both dtypes."""

    tokens: int
    float32: Seconds
    bfloat16: Seconds

    @property
    def ratio(self) -> float:
        """Speed of bfloat16 relative to float32, by the kind of time that favors it less.

        On a busy machine the wall time of the slower dtype is longer, because it is interrupted more often.
        """
        wall, cpu = self.float32.wall / self.bfloat16.wall, self.float32.cpu / max(self.bfloat16.cpu, 1e-9)
        return min(wall, cpu)

    @property
    def dtype(self) -> str:
        """The faster dtype: bfloat16 only by a margin."""
        return "bfloat16" if self.ratio >= MARGIN else "float32"

    def __str__(self) -> str:
        times = " and ".join(f"{seconds.wall * 1000:.3g}" for seconds in (self.bfloat16, self.float32))
        tokens = f"{self.tokens} token{'s' * (self.tokens != 1)}"
        return f"layer with {tokens} in bfloat16 and float32: {times} ms, speed {self.ratio:.2f} to 1"


def model_shape(base: Path | None) -> Shape:
    """Return the sizes in a model's config.json, or those of a small model if it has other names for them."""
    if base is None:
        return Shape()
    try:
        config = parse_json((base / "config.json").read_text())
        config = config.get("text_config") or config  # multimodal models
        sizes = [int(config[name]) for name in ("hidden_size", "intermediate_size", "num_attention_heads")]
        hidden, intermediate, heads = sizes
        if min(sizes) < 1:
            return Shape()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return Shape()  # the model's loader reports an unreadable file
    head = max(1, hidden // heads)
    heads = max(1, min(hidden, MAX_SIZE) // head)
    return Shape(heads * min(head, MAX_SIZE), min(intermediate, MAX_INTERMEDIATE), heads)


def limit_tokens(shape: Shape, tokens: int) -> int:
    """Return the tokens to measure: those of a batch, up to a number that keeps the measurement short."""
    affordable = max(MIN_TOKENS, min(MAX_TOKENS, int(MAX_PRODUCTS / shape.weights)))
    return max(1, min(tokens, affordable))


@lru_cache
def measure(shape: Shape, tokens: int = TOKENS) -> Measurement:
    """Time a layer forward and backward in both dtypes, alternately, and return the fastest round of each."""
    tokens = limit_tokens(shape, tokens)
    layers = {dtype: _layer(shape, tokens, dtype) for dtype in DTYPES}
    best = dict.fromkeys(DTYPES, Seconds(float("inf"), float("inf")))
    begin = time.perf_counter()
    for number in range(MAX_ROUNDS):
        if number and time.perf_counter() - begin > BUDGET_SECONDS and (number >= MIN_ROUNDS or _is_clear(best)):
            break
        for dtype, run in layers.items():
            best[dtype] = _faster(best[dtype], _time(run))
    return Measurement(tokens, best["float32"], best["bfloat16"])


def _is_clear(best: Mapping[str, Seconds]) -> bool:
    """Return True if one dtype is several times as fast: bfloat16 without its instructions takes seconds."""
    first, second = (best[dtype].cpu for dtype in DTYPES)
    return max(first, second) > CLEAR * min(first, second)


def _faster(first: Seconds, second: Seconds) -> Seconds:
    return Seconds(min(first.wall, second.wall), min(first.cpu, second.cpu))


def _time(run: Callable[[], None]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def _layer(shape: Shape, tokens: int, dtype_name: str) -> Callable[[], None]:
    """Return a function that runs a layer forward and backward."""
    import torch
    from torch.nn import functional

    dtype = getattr(torch, dtype_name)
    hidden, intermediate = shape.hidden, shape.intermediate
    query, key, value, output = [_linear(hidden, hidden, dtype) for _ in range(4)]
    gate, up, down = [_linear(*sides, dtype) for sides in [(hidden, intermediate)] * 2 + [(intermediate, hidden)]]
    inputs = torch.full((tokens, hidden), 0.01, dtype=dtype, requires_grad=True)

    def normalize(states: Any) -> Any:
        squares = states.float().pow(2).mean(-1, keepdim=True)
        return (states.float() * torch.rsqrt(squares + 1e-6)).to(dtype)

    def attend(states: Any) -> Any:
        heads = [linear(states).view(tokens, shape.heads, -1).split(ROW_TOKENS) for linear in (query, key, value)]
        rows = [attend_row(*(part.transpose(0, 1)[None] for part in row)) for row in zip(*heads, strict=True)]
        return output(torch.cat([row[0].transpose(0, 1) for row in rows]).reshape(tokens, hidden))

    def attend_row(queries: Any, keys: Any, values: Any) -> Any:
        first, second, third = (part.float() for part in (queries, keys, values))
        with torch.autocast("cpu", enabled=False):
            return functional.scaled_dot_product_attention(first, second, third, is_causal=True).to(dtype)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            states = inputs + attend(normalize(inputs))
            normalized = normalize(states)
            result = states + down(functional.silu(gate(normalized)) * up(normalized))
        result.sum().backward()

    return run


def _linear(inputs: int, outputs: int, dtype: Any) -> Callable[[Any], Any]:
    """Return a frozen linear layer with an adapter in float32."""
    import torch
    from torch.nn.functional import linear

    weight = torch.full((outputs, inputs), 0.01, dtype=dtype)
    first = torch.full((RANK, inputs), 0.01, requires_grad=True)
    second = torch.full((outputs, RANK), 0.01, requires_grad=True)
    return lambda states: linear(states, weight) + linear(linear(states, first), second)
