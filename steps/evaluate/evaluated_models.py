"""The models that an evaluation compares: the base, the adapter, and the deployed adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steps.models.adapter import CONFIG, WEIGHTS, adapter_digest
from steps.models.compute_dtype import compute_dtype
from steps.models.model import load_base
from steps.runtime import machine
from steps.runtime.errors import BadInput
from steps.runtime.json_text import parse_json
from steps.runtime.machine import GIB


def adapter_folder(work: Path, digest: str) -> Path:
    """Return the directory of this run's adapter.

    Raises:
        BadInput: The adapter is missing, or its digest is not ``digest`` (if set).
    """
    folder = work / "adapter"
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise BadInput(f"{folder}: {' and '.join(missing)} not found", "run the tune step first")
    if digest and adapter_digest(folder) != digest:
        raise BadInput(f"{folder}: the adapter's digest differs from adapter_digest", "run the tune step again")
    return folder


def previous_folder(previous: str, work: Path, adapter: Path) -> Path | None:
    """Return the directory of the deployed adapter; None if there is none, or it has another base model.

    Raises:
        BadInput: The image cannot be pulled, or is not an adapter.
        StepError: The registry is unreachable.
    """
    if not previous:
        return None
    folder = Path(previous)
    if not folder.is_absolute():
        from steps.oci import reference
        from steps.oci.registry import pull_adapter

        folder = pull_adapter(reference.parse(previous), work / "previous")
    previous_base, base = _read_base(folder), _read_base(adapter)
    if previous_base != base:
        print(f"not comparing with the deployed adapter: its base is {previous_base}, not {base}", flush=True)
        return None
    return folder


def load(base: Path, adapter: Path, method: str, quantization_config: Mapping[str, Any], device: str) -> Any:
    """Return the base model with the adapter, loaded as servers load it: unquantized, even if trained with qlora.

    An adapter learns to compensate the rounding of a quantized base, so its quality is measured without quantization.
    The base is loaded as in training only if the device's memory is too small.

    Raises:
        BadInput: The adapter does not fit the base model.
        StepError: The base was not quantized.
    """
    from peft import PeftModel

    if method == "qlora" and (required := _unquantized_gib(base, device)) > (free := _free_gib(device)):
        print(
            f"evaluating the base quantized, as in training: unquantized it needs {required:.0f} GiB, {free:.0f} GiB "
            "are free",
            flush=True,
        )
    else:
        method = "lora"
    model = load_base(base, method, quantization_config, device)
    try:
        return PeftModel.from_pretrained(model, str(adapter), local_files_only=True).eval()
    except (ValueError, RuntimeError) as error:
        message = f"the adapter does not fit the base model: {_first_line(error)}"
        raise BadInput(message, "use the base model that the adapter was tuned on") from None


def iter_models(model: Any, previous: Path | None) -> Iterator[str]:
    """Yield ``base``, ``adapter`` and, if there is one, ``previous``, after switching ``model`` to it.

    Raises:
        BadInput: The deployed adapter does not fit the base model.
    """
    with model.disable_adapter():
        yield "base"
    yield "adapter"
    if previous:
        try:
            model.load_adapter(str(previous), adapter_name="previous", local_files_only=True)
        except (ValueError, RuntimeError) as error:
            message = f"the deployed adapter does not fit the base model: {_first_line(error)}"
            raise BadInput(message, "use another tag or volume as output") from None
        model.set_adapter("previous")
        yield "previous"


def _unquantized_gib(base: Path, device: str) -> float:
    """Return the GiB of the weights in the device's compute dtype, and of activations."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, local_files_only=True))
    return float(model.num_parameters() * getattr(torch, compute_dtype(device, base)).itemsize / GIB * 1.2 + 2)


def _free_gib(device: str) -> float:
    """Return the GiB free for weights, summed over all GPUs, since layers are spread over them."""
    import torch

    if device != "cuda":
        return machine.free_memory() / GIB
    return sum(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())) / GIB


def _read_base(folder: Path) -> str:
    try:
        return str(parse_json((folder / CONFIG).read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder} is not an adapter: {error}", "provide an adapter, or unset previous") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
