"""Trainer callbacks: loss curve, progress and checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from steps.runtime import files, progress
from steps.runtime.errors import BadInput
from steps.runtime.gpu_time import TRAINING, GpuTimer
from steps.runtime.machine import GIB
from steps.tune import checkpoints
from steps.tune.checkpoints import Checkpoint
from steps.tune.process_group import ALONE, DistributedContext

SAVE_INTERVAL_SECONDS = 600
PROGRESS_INTERVAL_SECONDS = 1.0
LOGGED = (
    *("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "seconds"),
    *("memory_gib", "memory_reserved_gib"),
    *("rewards/margins", "rewards/accuracies"),
)
"""Keys of a line of the loss curve. Memory is this process's: on a GPU the peaks of allocated and reserved memory
during the step, on a CPU the resident size after the step. Rewards exist for dpo only: the margin by which the chosen
answer is preferred, and the share of pairs in which it is."""


class TrainingLog:
    """Writes the loss curve, one JSON line per step, and reports progress.

    The curve is also in the trainer's state, so a resumed run writes the same file as an undisturbed one.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.recent: deque[tuple[float, float]] = deque(maxlen=20)
        self.reported = -math.inf

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Rewrite the curve up to the checkpoint."""
        history = [entry for entry in state.log_history if "loss" in entry]
        write_curve(self.file, history)
        self.before = history[-1]["seconds"] if history else 0.0
        self.started = self.last = time.monotonic()
        self.tokens = 0
        _memory(args.device)  # do not count the loading of the model in the first step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Append a step to the curve.

        Raises:
            BadInput: The loss is not finite.
        """
        if "loss" not in logs:
            return
        step, now = state.global_step, time.monotonic()
        if not math.isfinite(logs["loss"]):
            raise BadInput(f"the loss is not finite at step {step}", "lower the learning rate")
        tokens = int(logs.get("num_tokens", 0)) - self.tokens
        self.tokens += tokens
        self.recent.append((tokens, now - self.last))
        self.last = now
        entry = state.log_history[-1]
        entry["tokens"] = tokens
        entry["tokens_per_second"] = round(tokens / max(self.recent[-1][1], 1e-9), 1)
        entry["seconds"] = round(self.before + now - self.started, 3)
        entry |= _memory(args.device)
        with self.file.open("a") as curve:
            curve.write(_line(entry))
        self._report(step, state.max_steps, entry, now)

    def _report(self, step: int, total: int, entry: dict[str, Any], now: float) -> None:
        if step < total and now - self.reported < PROGRESS_INTERVAL_SECONDS:
            return
        self.reported = now
        tokens, seconds = (sum(values) for values in zip(*self.recent, strict=True))
        eta = (total - step) * seconds / len(self.recent)
        rate = f"lr {entry['learning_rate']:.1e} {tokens / max(seconds, 1e-9):.0f} tok/s eta {_format_time(eta)}"
        progress.report(step, total, f"step {step}/{total} loss {entry['loss']:.3f} {rate}")


class Checkpointing:
    """Marks complete checkpoints, saves at least every ten minutes, and saves and stops when ``stop`` is set.

    It also sets ``stop`` when the budget is used up, which rank 0 knows from its timer, and saves and stops after the
    share ``stop_after`` of the steps. Each rank has one, and all ranks act after the same step.
    """

    def __init__(
        self,
        fingerprint: str,
        rows: int = 0,
        dtype: str = "",
        group: DistributedContext = ALONE,
        timer: GpuTimer | None = None,
        stop_after: float = 1,
    ) -> None:
        self.fingerprint = fingerprint
        self.rows = rows
        self.dtype = dtype
        self.group = group
        self.timer = timer
        self.stop_after = stop_after
        self.stop = False
        self.latest: Checkpoint | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self.saved = time.monotonic()
        if self.timer:
            self.timer.switch(TRAINING)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Request a save if the last one is long ago, or if the training is stopping."""
        due = time.monotonic() - self.saved > SAVE_INTERVAL_SECONDS
        self.stop = self.stop or (self.timer is not None and self.timer.is_budget_used_up())
        self.stop, due = self.group.all_reduce_any(self.stop, due)
        ends = state.global_step >= checkpoints.steps_of(self.stop_after, state.max_steps)
        if self.stop or due or ends:
            control.should_save = True
        if self.stop or ends:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the new checkpoint as complete."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        finished = state.global_step >= state.max_steps
        self.latest = Checkpoint(folder, state.global_step, finished, self.rows, self.group.size, self.dtype)
        self._collect_random_states(folder)
        if self.group.is_rank_zero:
            checkpoints.mark_complete(self.latest, self.fingerprint)
        self.saved = time.monotonic()

    def _collect_random_states(self, folder: Path) -> None:
        """Wait until each rank has written its random state, and copy those of other nodes to rank 0's checkpoint."""
        if self.group.nodes == 1:
            self.group.barrier()
            return
        file = folder / f"rng_state_{self.group.rank}.pth"
        state = (file.name, file.read_bytes()) if self.group.node > 0 else None
        states = self.group.gather_from_nodes(state)
        for name, content in states if self.group.is_rank_zero else ():
            (folder / name).write_bytes(content)


def attach(trainer: Any, listener: Any) -> None:
    """Call the listener's ``on_`` methods on the trainer's events, without importing transformers to define it."""
    from transformers import TrainerCallback

    class Listener(TrainerCallback):
        pass

    for name in (name for name in dir(listener) if name.startswith("on_")):
        setattr(Listener, name, staticmethod(getattr(listener, name)))
    trainer.add_callback(Listener())


def write_curve(file: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write the whole loss curve."""
    files.write_text(file, "".join(_line(entry) for entry in history))


def _memory(device: Any) -> dict[str, float]:
    """Return the GiB that the process uses; on a GPU the peaks since the last call."""
    if device.type == "cuda":
        import torch

        sizes = {
            "memory_gib": torch.cuda.max_memory_allocated(device),
            "memory_reserved_gib": torch.cuda.max_memory_reserved(device),
        }
        torch.cuda.reset_peak_memory_stats(device)
    else:
        sizes = {"memory_gib": psutil.Process().memory_info().rss}
    return {key: round(size / GIB, 3) for key, size in sizes.items()}


def _line(entry: dict[str, Any]) -> str:
    logged = {key: entry[key] for key in LOGGED if key in entry}
    # float16 gradients can overflow, which skips the step; JSON has no infinity.
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in logged.items()
    }
    return json.dumps(finite) + "\n"


def _format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
