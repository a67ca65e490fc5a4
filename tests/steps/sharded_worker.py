"""A rank that loads a base model sharded and unsharded, and reports the size of both."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from steps.models import sharding
from steps.models.model import load_base
from steps.runtime.options import Options
from steps.tune import process_group
from steps.tune.process_group import DistributedContext


class Settings(Options):
    work: Path
    model: str
    method: str


@dataclass(frozen=True)
class Result:
    """Bytes that rank 0 holds, and bytes of the unsharded model."""

    layers: int
    all_layers: int
    embeddings: int
    all_embeddings: int
    adapter: int
    all_adapter: int
    loss: float
    unsharded_loss: float


def work(settings: Settings, group: DistributedContext) -> Result:
    import torch

    group.init_process_group("cpu")
    unsharded = _model(settings, sharded=False)
    model = _model(settings, sharded=True)
    arguments = SimpleNamespace(device=torch.device("cpu"), world_size=group.size)
    sharding.shard(SimpleNamespace(model=model, args=arguments))
    tokens = torch.arange(40).view(2, 20)
    with torch.no_grad():
        loss, unsharded_loss = (float(each(input_ids=tokens, labels=tokens).loss) for each in (model, unsharded))
    return Result(
        *[_num_bytes(each, part) for part in (".layers.", "embed_tokens", "lora_") for each in (model, unsharded)],
        loss=loss,
        unsharded_loss=unsharded_loss,
    )


def _model(settings: Settings, *, sharded: bool) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = load_base(Path(settings.model), settings.method, {}, "cpu", dtype="float32", sharded=sharded)
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return model


def _num_bytes(model: Any, part: str) -> int:
    total = 0
    for name, weight in model.named_parameters():
        if part in name and (part == "lora_") == ("lora_" in name):
            local = weight.to_local() if hasattr(weight, "to_local") else weight
            total += local.numel() * local.element_size()
    return total


if __name__ == "__main__":
    process_group.main(Settings, work, "sharded")
