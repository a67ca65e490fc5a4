"""Tune presets on the GPU of this machine, and compare memory and speed with the estimates.

    python benchmarks/gpu/measure.py            # all settings, as a table (downloads the base models)
    python benchmarks/gpu/measure.py --check    # only check that torch can use a GPU

Memory is the peak of ``torch.cuda.max_memory_allocated`` over all steps, which the tune step records, without the CUDA
context. Speed excludes the first step. A setting that fails has a row with its error, and the exit code is 1.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import presets
from steps.runtime import machine
from steps.runtime.errors import StepError
from steps.tune.settings import Settings
from steps.tune_bench import trial
from workflows.estimate import memory, shapes

SETTINGS: tuple[tuple[str, Any, int, int], ...] = (
    ("smollm2-135m-instruct", "qlora", 8, 1024),
    ("smollm2-135m-instruct", "lora", 8, 1024),
    ("phi-4-mini-instruct", "qlora", 4, 1024),
    ("phi-3-mini-128k-instruct", "qlora", 4, 1024),
    ("qwen2.5-coder-7b-instruct", "qlora", 4, 1024),
    ("mistral-7b-v0.3", "qlora", 1, 4096),
    ("llama-3.1-8b-instruct", "qlora", 4, 1024),
    ("llama-3.1-8b-instruct", "lora", 1, 1024),
)
"""Preset, method, batch size and length."""
RANK, SECONDS = 16, 30.0
# A GPU without context and margin, which PyTorch's allocator does not count.
TENSORS = dataclasses.replace(memory.GPU, context_gib=0, margin=0)


def main() -> int:
    """Print a row for each setting; return 2 without a GPU, and 1 if a setting failed."""
    gpus = machine.read(Path.cwd()).gpus
    if not gpus or not machine.is_torch_built_with_cuda():
        print(
            "error: no CUDA device, or torch is built without CUDA: run this on a machine with a GPU", file=sys.stderr
        )
        return 2
    if "--check" in sys.argv:
        return 0
    print(f"{machine.gpu_text(gpus)}, {machine.processor()}\n")
    print("| Settings | memory, GiB | estimate, GiB | error | tokens/s | steps |\n|---|---|---|---|---|---|")
    return int(not all([_print_row(*setting) for setting in SETTINGS]))


def _print_row(preset: str, method: Any, batch: int, length: int) -> bool:
    """Return True if the training succeeded."""
    name = f"{preset}, {method}, {batch} x {length}"
    training = memory.Training(method, batch, length, rank=RANK, checkpointing=True)
    estimate = memory.tuning(shapes.of(presets.model(preset)), training, TENSORS).total
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _write_rows(work / "dataset" / "train.parquet", length)
        arguments = {"gradient_checkpointing": True}
        settings = Settings(
            work=work,
            preset=preset,
            method=method,
            batch_size=batch,
            max_length=length,
            rank=RANK,
            processes=1,
            training_arguments=arguments,
        )
        try:
            curve = trial.train_for(settings, SECONDS)
        except StepError as error:
            print(f"| {name} | failed: {error.message} | {estimate:.2f} | | | |", flush=True)
            return False
    gib, speed = curve.memory_gib, curve.tokens / curve.seconds
    print(
        f"| {name} | {gib:.2f} | {estimate:.2f} | {estimate / gib - 1:+.0%} | {speed:,.0f} | {curve.steps} |",
        flush=True,
    )
    return True


def _write_rows(file: Path, length: int) -> None:
    """Write rows that are truncated to ``length``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "word " * 2 * length}]
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"messages": [row] * 64}), file)


if __name__ == "__main__":
    sys.exit(main())
