"""A base model that one GPU can't hold: each process keeps a share of its weights (FSDP).

Before a layer computes, its weights are gathered from all processes, and they are let go after it. The adapter is
whole in each process, and its gradients are averaged there; so optimizer, checkpoints and the adapter that is written
are those of a training without this, and either may go on where the other stopped.

transformers' trainer trains models that were divided before (``is_distributed_loading_by_transformers``). It divides
none that is quantized while it is loaded, so that is done here. Accelerate's integration of FSDP divides the adapter
too: with it, only FSDP can go on from a checkpoint, and for each one the whole base is gathered in the first process.

Weights of 4 bits are divided as they are packed, and stay what they were: FSDP takes packed bytes for numbers of the
type that is computed in, and never computes with them (``bnb_4bit_quant_storage``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from steps.runtime.errors import BadInput

Sharding = Literal["auto", "none", "full"]
METHOD = "bitsandbytes_4bit"


def strategies(wanted: Sharding, *, shardable: bool = True) -> list[Literal["none", "full"]]:
    """How several processes may hold the base, in the order in which it is tried: each all of it, or each a share."""
    if wanted == "auto":
        return ["none", "full"] if shardable else ["none"]
    return [wanted]


def unsupported_reason(wanted: Sharding, quantization: Mapping[str, Any]) -> str:
    """Why the weights can't be divided as wanted; empty where they can."""
    if wanted != "full" or can_shard(quantization):
        return ""
    return "FSDP divides weights of 4 and of 16 bits, not those of load_in_8bit"


def can_shard(quantization: Mapping[str, Any]) -> bool:
    """Whether weights that are quantized like this can be divided."""
    return str(quantization.get("load_in_8bit", False)).lower() not in ("true", "1", "yes", "on")


@contextmanager
def quantize_on_device(device: str) -> Iterator[None]:
    """While a model is loaded into main memory, its layers are quantized on ``device``, one after the other.

    There it takes seconds, on a processor hours, and the model as a whole fits no device.
    """
    from transformers.integrations.bitsandbytes import Bnb4bitQuantize
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    class Quantize(Bnb4bitQuantize):
        def convert(self, input_dict: Any, *rest: Any, **more: Any) -> Any:
            loaded = {name: value[0] if isinstance(value, list) else value for name, value in input_dict.items()}
            there = {name: value.to(device) for name, value in loaded.items()}
            return {name: weight.to("cpu") for name, weight in super().convert(there, *rest, **more).items()}

    class Quantizer(Bnb4BitHfQuantizer):
        def get_quantize_ops(self) -> Any:
            return Quantize(self)

    before = AUTO_QUANTIZER_MAPPING[METHOD]
    AUTO_QUANTIZER_MAPPING[METHOD] = Quantizer
    try:
        yield
    finally:
        AUTO_QUANTIZER_MAPPING[METHOD] = before


def keep_on_cpu(model: Any) -> None:
    """Keep the trainer from moving the whole model to a GPU: it leaves one with a map of devices where it is."""
    model.hf_device_map = {"": "cpu"}


def shard(trainer: Any) -> None:
    """Divide the weights of the trainer's model, which is in main memory, among the processes that train together.

    Raises:
        BadInput: the library doesn't tell what the model's layers are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    model, device = trainer.model.get_base_model(), trainer.args.device
    layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
    if not layers:
        what = f"sharding full: transformers does not tell what the layers of {type(model).__name__} are"
        raise BadInput(what, "write sharding: none")
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    trained = {weight for weight in model.parameters() if weight.requires_grad}
    # One matrix that two parts of the model read can't be divided for each of them.
    tied = {words.weight} if words.weight is head.weight else set()
    mesh = init_device_mesh(device.type, (trainer.args.world_size,))
    for module in (*layers, *(() if tied else (words, head)), model.base_model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=trained | tied)
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)
    del model.hf_device_map
    trainer.is_distributed_loading_by_transformers = True
