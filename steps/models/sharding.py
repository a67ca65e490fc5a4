"""Sharding of a base model that does not fit one GPU: each process holds a shard of its weights (FSDP).

Each layer's weights are gathered from all processes of a node before it computes, and freed after it. Each node has
all shards, so no weights cross the network between nodes. The adapter is replicated and its gradients are averaged, so
optimizer, checkpoints and the final adapter are those of an unsharded training, and a training can resume with or
without sharding.

transformers' trainer accepts models that are already sharded (``is_distributed_loading_by_transformers``), but cannot
shard a model that is quantized on loading, so this module does. Accelerate's FSDP integration shards the adapter too:
then only FSDP can resume from a checkpoint, and each checkpoint gathers the whole base on rank 0.

4-bit weights are sharded in packed form: FSDP treats packed bytes as numbers of the compute dtype and never computes
with them (``bnb_4bit_quant_storage``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from steps.runtime.errors import BadInput

Sharding = Literal["auto", "none", "full"]
METHOD = "bitsandbytes_4bit"


def strategies(sharding: Sharding, *, shardable: bool = True) -> list[Literal["none", "full"]]:
    """Return the strategies to try in order: the base replicated (``none``) or sharded (``full``)."""
    if sharding == "auto":
        return ["none", "full"] if shardable else ["none"]
    return [sharding]


def unsupported_reason(sharding: Sharding, quantization: Mapping[str, Any]) -> str:
    """Return why the weights cannot be sharded as requested, or an empty string."""
    if sharding != "full" or can_shard(quantization):
        return ""
    return "FSDP shards 4-bit and 16-bit weights, but not load_in_8bit"


def can_shard(quantization: Mapping[str, Any]) -> bool:
    """Return True if weights quantized like this can be sharded."""
    return str(quantization.get("load_in_8bit", False)).lower() not in ("true", "1", "yes", "on")


@contextmanager
def quantize_on_device(device: str) -> Iterator[None]:
    """Quantize layers one by one on ``device`` while a model is loaded into main memory.

    On a GPU this takes seconds, on a CPU hours, and the whole model fits no device.
    """
    from transformers.integrations.bitsandbytes import Bnb4bitQuantize
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    class Quantize(Bnb4bitQuantize):
        def convert(self, input_dict: Any, *rest: Any, **more: Any) -> Any:
            loaded = {name: value[0] if isinstance(value, list) else value for name, value in input_dict.items()}
            on_device = {name: value.to(device) for name, value in loaded.items()}
            return {name: weight.to("cpu") for name, weight in super().convert(on_device, *rest, **more).items()}

    class Quantizer(Bnb4BitHfQuantizer):
        def get_quantize_ops(self) -> Any:
            return Quantize(self)

    original = AUTO_QUANTIZER_MAPPING[METHOD]
    AUTO_QUANTIZER_MAPPING[METHOD] = Quantizer
    try:
        yield
    finally:
        AUTO_QUANTIZER_MAPPING[METHOD] = original


def keep_on_cpu(model: Any) -> None:
    """Keep the trainer from moving the whole model to a GPU: it does not move models with a device map."""
    model.hf_device_map = {"": "cpu"}


def shard(trainer: Any, nodes: int = 1) -> None:
    """Shard the weights of the trainer's model, which is in main memory, among the ranks of each node.

    Raises:
        BadInput: transformers does not define the model's layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    model, device = trainer.model.get_base_model(), trainer.args.device
    layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
    if not layers:
        message = f"sharding full: transformers does not define the layers of {type(model).__name__}"
        raise BadInput(message, "set sharding: none")
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    trained = {weight for weight in model.parameters() if weight.requires_grad}
    # A weight shared by two modules cannot be sharded for each of them.
    tied = {embeddings.weight} if embeddings.weight is head.weight else set()
    ranks = trainer.args.world_size
    if nodes == 1:
        mesh = init_device_mesh(device.type, (ranks,))
    else:
        # HSDP: replicated across the first dimension, sharded across the second. Ranks of a node follow each other.
        names = ("nodes", "processes")
        mesh = init_device_mesh(device.type, (nodes, ranks // nodes), mesh_dim_names=names)
    for module in (*layers, *(() if tied else (embeddings, head)), model.base_model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=trained | tied)
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)
    del model.hf_device_map
    trainer.is_distributed_loading_by_transformers = True
