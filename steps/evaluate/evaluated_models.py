"""The models that an evaluation compares: the base, the adapter on it, and the adapter in service."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steps.models.adapter import CONFIG, WEIGHTS, adapter_digest
from steps.models.model import compute_dtype, load_base
from steps.runtime import machine
from steps.runtime.errors import BadInput
from steps.runtime.machine import GIB


def adapter_folder(work: Path, digest: str) -> Path:
    """Where the adapter of this run is.

    Raises:
        BadInput: there is none, or it is not the one with ``digest`` (where that is given).
    """
    folder = work / "adapter"
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise BadInput(f"there is no {' and no '.join(missing)} in {folder}", "run the tune step before")
    if digest and adapter_digest(folder) != digest:
        raise BadInput(f"the adapter in {folder} is not the one that was tuned: its digest differs", "tune again")
    return folder


def previous_folder(previous: str, work: Path, adapter: Path) -> Path | None:
    """The files of the adapter in service; None when there is none, or it is of another base model.

    Raises:
        BadInput: it can't be had, or is no adapter.
        StepError: its registry can't be reached.
    """
    if not previous:
        return None
    folder = Path(previous)
    if not folder.is_absolute():
        from steps.oci import reference
        from steps.oci.registry import pull_adapter

        folder = pull_adapter(reference.parse(previous), work / "previous")
    base, own = _base_of(folder), _base_of(adapter)
    if base != own:
        print(f"the adapter in service is of {base}, not of {own}: they are not compared", flush=True)
        return None
    return folder


def load(base: Path, adapter: Path, method: str, quantization_config: Mapping[str, Any], device: str) -> Any:
    """The base model as servers load it, with the adapter on it: not quantized, also where the adapter learned so.

    An adapter learns to make up for the rounding of its base; how good it is without is what will be noticed. Only
    where the device's memory is too small is the base loaded as for training.

    Raises:
        BadInput: the adapter does not fit.
        StepError: the base was not quantized.
    """
    from peft import PeftModel

    if method == "qlora" and (needed := _gib_as_served(base, device)) > (free := _free_gib(device)):
        print(
            f"the base is evaluated quantized, as in training: as it is served it takes {needed:.0f} GiB, and "
            f"{free:.0f} are free",
            flush=True,
        )
    else:
        method = "lora"
    model = load_base(base, method, quantization_config, device)
    try:
        return PeftModel.from_pretrained(model, str(adapter), local_files_only=True).eval()
    except (ValueError, RuntimeError) as error:
        what = f"the adapter doesn't fit the base model: {_first_line(error)}"
        raise BadInput(what, "give the base it was tuned on") from None


def turns(model: Any, previous: Path | None) -> Iterator[str]:
    """Names of what is measured, one after the other; when a name comes out, ``model`` is what it says.

    Raises:
        BadInput: the adapter in service does not fit.
    """
    with model.disable_adapter():
        yield "base"
    yield "adapter"
    if previous:
        try:
            model.load_adapter(str(previous), adapter_name="previous", local_files_only=True)
        except (ValueError, RuntimeError) as error:
            what = f"the adapter in service doesn't fit the base model: {_first_line(error)}"
            raise BadInput(what, "give another tag or volume as output") from None
        model.set_adapter("previous")
        yield "previous"


def _gib_as_served(base: Path, device: str) -> float:
    """Weights in the type that the device computes in, and room for what is computed with them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, local_files_only=True))
    return float(model.num_parameters() * getattr(torch, compute_dtype(device)).itemsize / GIB * 1.2 + 2)


def _free_gib(device: str) -> float:
    """Memory that is free for weights; of all GPUs, as the layers are spread over them."""
    import torch

    if device != "cuda":
        return machine.free_memory() / GIB
    return sum(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())) / GIB


def _base_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / CONFIG).read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder} holds no adapter: {error}", "put a whole adapter there, or none") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
