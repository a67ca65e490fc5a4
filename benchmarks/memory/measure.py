"""Train on the CPU with the tune step, and compare its memory with the estimate.

    python benchmarks/memory/measure.py                 # all settings, each in a separate process
    python benchmarks/memory/measure.py qlora 4 512 on  # one setting: method, batch, length, checkpointing

The second step of a training is measured: tensors by component, from the storages that PyTorch's operations create and
free. ``rss`` of a single setting is the process's peak memory, libraries and loading included.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import presets
from workflows.estimate import memory, shapes

PRESET = "smollm2-135m-instruct"
RANK = 8
MIB = 2**20
PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "peak")


def main() -> None:
    """Measure one setting in this process, or print all as a table."""
    if len(sys.argv) > 1:
        method, batch, length, checkpointing = sys.argv[1:]
        print(json.dumps(compare(method, int(batch), int(length), checkpointing == "on")))
        return
    print("| Settings | " + " | ".join(f"{part}, MiB (estimate)" for part in PARTS) + " | error at peak |")
    print("|---" * (len(PARTS) + 2) + "|")
    settings = [*itertools.product(["qlora"], [1, 4, 8], [128, 512], ["off", "on"]), ("lora", 4, 512, "off")]
    for method, batch, length, checkpointing in settings:
        result = _run_separately(method, str(batch), str(length), checkpointing)
        cells = [f"{result['measured'][part]:.1f} ({result['estimated'][part]:.1f})" for part in PARTS]
        error = 100 * (result["estimated"]["peak"] / result["measured"]["peak"] - 1)
        name = f"{method}, {batch} x {length}, checkpointing {checkpointing}"
        print(f"| {name} | {' | '.join(cells)} | {error:+.1f}% |", flush=True)


def compare(method: Any, batch: int, length: int, checkpointing: bool) -> dict[str, dict[str, float]]:
    """Return measured and estimated MiB by component."""
    training = memory.Training(method, batch, length, rank=RANK, checkpointing=checkpointing)
    estimated = memory.tuning(shapes.of(presets.model(PRESET)), training, memory.CPU)
    parts = {name: value * 1024 for name, value in estimated.components().items()}
    measured = {name: value / MIB for name, value in _measure(method, batch, length, checkpointing).items()}
    return {"measured": measured, "estimated": parts | {"peak": estimated.total * 1024}}


def _run_separately(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    stdout = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(json.loads(stdout.strip().splitlines()[-1]))


def _measure(method: Any, batch: int, length: int, checkpointing: bool) -> dict[str, float]:
    from steps.models.model import prepare_libraries

    prepare_libraries()
    import trl
    from allocations import Allocations

    from steps.tune.settings import Settings as TuneSettings
    from steps.tune.step import tune

    components: dict[str, float] = {}
    counts: list[Allocations] = []
    step, loss = trl.SFTTrainer.training_step, trl.SFTTrainer.compute_loss

    def measured_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = loss(self, *args, **kwargs)
        components["activations"] = counts[-1].current
        return result

    def measured_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if tuple(inputs["input_ids"].shape) != (batch, length):
            raise SystemExit(f"rows of {inputs['input_ids'].shape}, not {batch} x {length}")
        with Allocations([*model.parameters(), *model.buffers()]) as count:
            counts.append(count)
            result = step(self, model, inputs, *args, **kwargs)
        components.update(_persistent_bytes(self, model))
        components["peak"] = count.peak + sum(components[part] for part in ("weights", "adapter", "optimizer"))
        return result

    trl.SFTTrainer.training_step, trl.SFTTrainer.compute_loss = measured_step, measured_loss
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(sys.stderr):
        _write_rows(Path(work), 2 * batch, length)
        arguments = {"gradient_checkpointing": checkpointing}
        tune(
            TuneSettings(
                work=Path(work),
                preset=PRESET,
                method=method,
                max_steps=2,
                batch_size=batch,
                rank=RANK,
                max_length=length,
                training_arguments=arguments,
            )
        )
    components["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return components


def _persistent_bytes(trainer: Any, model: Any) -> dict[str, float]:
    """Return the bytes of tensors that live between steps."""
    import torch
    from allocations import num_bytes

    parameters = list(model.parameters())
    states = [getattr(part.weight, "quant_state", None) for part in model.modules() if hasattr(part, "weight")]
    constants = [tensor for state in states if state for tensor in (state.absmax, state.code)]
    constants += [
        tensor for state in states if state and state.state2 for tensor in (state.state2.absmax, state.state2.code)
    ]
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return {
        "weights": num_bytes([*(p for p in parameters if not p.requires_grad), *constants]),
        "adapter": num_bytes(p for p in parameters if p.requires_grad),
        "gradients": num_bytes(p.grad for p in parameters if p.grad is not None),
        "optimizer": num_bytes(value for value in moments if isinstance(value, torch.Tensor)),
    }


def _write_rows(work: Path, count: int, length: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (work / "dataset").mkdir()
    # Half of the rows are shorter, so that batches are padded and attention is masked, as with real data.
    words = ["word " * (2 * length if number % 2 == 0 or count == 2 else length // 2) for number in range(count)]
    turns = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}] for answer in words]
    rows = [{"messages": messages} for messages in turns]
    pq.write_table(pa.Table.from_pylist(rows), work / "dataset" / "train.parquet")


if __name__ == "__main__":
    main()
