"""A process that holds a share of a base model, and tells how much that is; beside it, the same model as a whole."""

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
    """Bytes of a process, of the first, and of the whole model."""

    layers: int
    all_layers: int
    words: int
    all_words: int
    adapter: int
    all_adapter: int
    loss: float
    loss_of_whole: float


def work(given: Settings, group: DistributedContext) -> Result:
    import torch

    group.init_process_group("cpu")
    whole = _model(given, sharded=False)
    model = _model(given, sharded=True)
    arguments = SimpleNamespace(device=torch.device("cpu"), world_size=group.size)
    sharding.shard(SimpleNamespace(model=model, args=arguments))
    tokens = torch.arange(40).view(2, 20)
    with torch.no_grad():
        ours, other = (float(each(input_ids=tokens, labels=tokens).loss) for each in (model, whole))
    return Result(
        *[_held(each, part) for part in (".layers.", "embed_tokens", "lora_") for each in (model, whole)],
        loss=ours,
        loss_of_whole=other,
    )


def _model(given: Settings, *, sharded: bool) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = load_base(Path(given.model), given.method, {}, "cpu", dtype="float32", sharded=sharded)
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return model


def _held(model: Any, part: str) -> int:
    found = 0
    for name, weight in model.named_parameters():
        if part in name and (part == "lora_") == ("lora_" in name):
            local = weight.to_local() if hasattr(weight, "to_local") else weight
            found += local.numel() * local.element_size()
    return found


if __name__ == "__main__":
    process_group.main(Settings, work, "sharded")
