"""Measure the memory of large presets without a GPU, on fake tensors of the types that a GPU uses.

    python benchmarks/memory/without_gpu.py

PyTorch's fake tensors have shapes, types and storages but no values, so a step of a 32B model takes seconds, and
each allocation is counted. bitsandbytes' 4-bit layers, PEFT and trl's loss are the real ones. Temporaries of torch
code that replaces an in-place GPU kernel (tiles of the loss) are not counted.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import bitsandbytes
import peft
import torch
import transformers
import trl.kernels.chunked_logprob
import trl.trainer.utils
from allocations import Allocations, num_bytes
from torch._subclasses.fake_tensor import FakeTensorMode

import presets
from presets.derive import HubMetadata, derive
from workflows.estimate import memory, shapes

LAYERS = 6
"""Sufficient for all kinds of layers of a model."""
RANK = 8
CONFIGS = Path(__file__).parents[2] / "tests" / "presets" / "configs"
MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.2-1B-Instruct",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "mistralai/Mistral-Nemo-Instruct-2407",
    "mistralai/Ministral-8B-Instruct-2410",
    "microsoft/Phi-3-mini-4k-instruct",
    "microsoft/Phi-4-mini-instruct",
    "microsoft/phi-4",
    "Qwen/Qwen2.5-Coder-7B-Instruct",
    "Qwen/Qwen2.5-32B-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3.5-9B",
    "google/gemma-2-9b-it",
    "google/gemma-3-1b-it",
    "google/gemma-3-12b-it",
    "allenai/OLMo-7B-hf",
    "allenai/OLMo-2-1124-7B-Instruct",
    "allenai/Olmo-3.1-32B-Instruct",
    "HuggingFaceTB/SmolLM3-3B",
    "ibm-granite/granite-3.1-8b-instruct",
    "ibm-granite/granite-4.0-h-micro",
    "tiiuae/Falcon3-7B-Instruct",
    "tiiuae/falcon-7b-instruct",
    "tiiuae/falcon-40b-instruct",
    "bigcode/starcoder2-7b",
    "LGAI-EXAONE/EXAONE-4.0-1.2B",
    "LGAI-EXAONE/EXAONE-4.0-32B",
    "LiquidAI/LFM2-1.2B",
)
"""Repositories with a configuration in ``CONFIGS``."""
# A device without context and margin, which are not tensors.
TENSORS = dataclasses.replace(memory.GPU, context_gib=0, margin=0)


class Quantized(bitsandbytes.nn.Linear4bit):
    """A 4-bit layer of bitsandbytes, with its forward and backward pass, on fake tensors."""

    def __init__(self, layer: Any) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.compute_dtype = torch.bfloat16
        count = layer.weight.numel()
        constants = bitsandbytes.functional.QuantState(
            absmax=torch.empty(-(-count // 64 // 256)), code=torch.empty(256), blocksize=256, dtype=torch.float32
        )
        self.constants = bitsandbytes.functional.QuantState(
            absmax=torch.empty(-(-count // 64), dtype=torch.uint8),
            shape=layer.weight.shape,
            code=torch.empty(16),
            blocksize=64,
            quant_type="nf4",
            dtype=torch.bfloat16,
            offset=torch.empty(()),
            state2=constants,
        )
        self.weight = torch.nn.Parameter(torch.empty((count + 1) // 2, 1, dtype=torch.uint8), requires_grad=False)
        self.weight.compress_statistics, self.weight.quant_type = True, "nf4"
        self.weight.quant_state = self.constants
        self.bias = layer.bias

    def forward(self, inputs: Any) -> Any:
        """Multiply as bitsandbytes does."""
        multiply = bitsandbytes.autograd._functions.MatMul4Bit
        return multiply.apply(inputs.to(torch.bfloat16), self.weight.t(), None, self.bias, self.constants)


def main() -> None:
    """Print one row per model, method, batch size and checkpointing."""
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    _emulate_gpu()
    print("| Model, 6 layers | Settings | dynamic memory, MiB | estimate | error |")
    print("|---|---|---|---|---|")
    names = sys.argv[1:] or MODELS
    sizes, checkpointing = [(1, 1024), (4, 1024), (1, 4096)], [True, False]
    for name, method, (batch, length), is_checkpointed in itertools.product(
        names, ["qlora", "lora"], sizes, checkpointing
    ):
        training: Any = memory.Training(method, batch, length, rank=RANK, checkpointing=is_checkpointed)
        content = _truncated(json.loads((CONFIGS / f"{name.replace('/', '--')}.json").read_text()))
        # The preset that argotune derives of a model on the hub.
        facts = derive(HubMetadata(name, "0" * 40, content))
        measured, estimated = measure(content, facts, training), _estimate(facts, training)
        settings = f"{method}, {batch} x {length}, checkpointing {'on' if is_checkpointed else 'off'}"
        error = 100 * (estimated / measured - 1)
        print(f"| {name} | {settings} | {measured:.0f} | {estimated:.0f} | {error:+.1f}% |", flush=True)


def measure(content: dict[str, Any], facts: presets.Model, training: memory.Training) -> float:
    """Return the MiB of activations, logits, gradients and temporaries at the peak of a step."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = _model(content, facts, training)
        rows = torch.zeros(training.batch_size, training.length, dtype=torch.long)
        with Allocations([*model.parameters(), *model.buffers()]) as count:
            with torch.autocast("cpu", torch.bfloat16):
                loss = -model(input_ids=rows, labels=rows, fused_lm_head=True).log_probs.sum()
            loss.backward()
        gradients = num_bytes(p.grad for p in model.parameters() if p.grad is not None)
    return (count.peak - gradients) / 2**20


def _estimate(facts: presets.Model, training: memory.Training) -> float:
    estimated = memory.tuning(shapes.of(facts), training, TENSORS)
    return (estimated.activations + estimated.logits + estimated.backward) * 1024


def _emulate_gpu() -> None:
    for name in ("_forward_tile", "_backward_tile", "_addmm_fp32"):
        setattr(trl.kernels.chunked_logprob, name, lambda *args, **kwargs: None)
    torch.nn.functional.layer_norm = _layer_norm
    # PEFT checks autocast of the GPU, which the CPU replaces.
    is_autocast_enabled = torch.is_autocast_enabled
    torch.is_autocast_enabled = lambda device="cpu": is_autocast_enabled(device)
    # Fake tensors cannot be moved between devices.
    torch.nn.Module.to = lambda self, *args, **kwargs: self
    peft.tuners.tuners_utils.BaseTunerLayer._move_adapter_to_device_of_base_layer = lambda *args, **kwargs: None


def _layer_norm(inputs: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Compute in float32, as autocast of the GPU does and that of the CPU does not."""
    weights = [values if values is None else values.float() for values in (weight, bias)]
    return torch.layer_norm(inputs.float(), shape, *weights, eps)


def _model(content: dict[str, Any], facts: presets.Model, training: memory.Training) -> Any:
    model = transformers.AutoModelForCausalLM.from_config(_config(content), dtype=torch.bfloat16)
    if training.method == "qlora":
        for name, layer in list(model.named_modules()):
            if isinstance(layer, torch.nn.Linear) and name != "lm_head":
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, Quantized(layer))
        model.is_loaded_in_4bit = True
    for parameter in model.parameters():
        parameter.requires_grad = False
    trl.trainer.utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if training.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    lora = peft.LoraConfig(r=training.rank, target_modules=list(facts.lora_targets), task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.train()


def _truncated(content: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a model with ``LAYERS`` blocks, and each kind of block as often as in the whole."""
    whole = _config(content)
    changes: dict[str, Any] = {"num_hidden_layers": LAYERS}
    if kinds := getattr(whole, "layer_types", None):
        counts = {kind: max(1, round(LAYERS * count / len(kinds))) for kind, count in Counter(kinds).items()}
        most = max(counts, key=lambda kind: counts[kind])
        counts[most] += LAYERS - sum(counts.values())
        changes["layer_types"] = [kind for kind, count in counts.items() for _ in range(count)]
    if "text_config" in content:
        return content | {"text_config": content["text_config"] | changes}
    return content | changes


def _config(content: dict[str, Any]) -> Any:
    """Return the configuration of the text model in transformers."""
    values = {key: value for key, value in content.items() if key not in ("model_type", "architectures")}
    return transformers.AutoConfig.for_model(content["model_type"], **values).get_text_config()


if __name__ == "__main__":
    main()
