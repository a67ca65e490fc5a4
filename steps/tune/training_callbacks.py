"""What happens beside the training itself: the loss curve, progress, checkpoints."""

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
from steps.runtime.machine import GIB
from steps.tune import checkpoints
from steps.tune.checkpoints import Checkpoint
from steps.tune.process_group import ALONE, DistributedContext

SAVE_AFTER_SECONDS = 600
TELL_AFTER_SECONDS = 1.0
LOGGED = (
    *("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "seconds"),
    *("memory_gib", "memory_reserved_gib"),
    *("rewards/margins", "rewards/accuracies"),
)
"""What a line of the curve holds. Memory is of this process: on a GPU the most that tensors took during the step, and
the most that PyTorch had reserved for them; without one, what the process has at the end of the step. Rewards are of
pairs of answers alone: by how much the chosen one is preferred, and in which share of the pairs."""


class TrainingLog:
    """Writes the loss curve, a JSON line a step, and tells how far the training is.

    The curve is kept in the trainer's state too, so that a resumed run writes the same file as an undisturbed one.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.recent: deque[tuple[float, float]] = deque(maxlen=20)
        self.told = -math.inf

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the curve anew, with what was logged up to the checkpoint."""
        history = [entry for entry in state.log_history if "loss" in entry]
        write_curve(self.file, history)
        self.before = history[-1]["seconds"] if history else 0.0
        self.started = self.last = time.monotonic()
        self.tokens = 0
        _memory(args.device)  # what loading the model took is not of the first step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Add a step to the curve.

        Raises:
            BadInput: the loss is no number any more; going on would only cost time.
        """
        if "loss" not in logs:
            return
        step, now = state.global_step, time.monotonic()
        if not math.isfinite(logs["loss"]):
            raise BadInput(f"the loss is not a number any more at step {step}", "lower the learning rate")
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
        self._tell(step, state.max_steps, entry, now)

    def _tell(self, step: int, total: int, entry: dict[str, Any], now: float) -> None:
        if step < total and now - self.told < TELL_AFTER_SECONDS:
            return
        self.told = now
        tokens, seconds = (sum(values) for values in zip(*self.recent, strict=True))
        left = (total - step) * seconds / len(self.recent)
        rate = f"lr {entry['learning_rate']:.1e} {tokens / max(seconds, 1e-9):.0f} tok/s eta {_clock(left)}"
        progress.report(step, total, f"step {step}/{total} loss {entry['loss']:.3f} {rate}")


class Checkpointing:
    """Marks whole checkpoints, saves more often where steps are slow, and saves and stops when told to.

    Where several processes train, all have one, and do the same after the same step.
    """

    def __init__(self, fingerprint: str, rows: int = 0, group: DistributedContext = ALONE) -> None:
        self.fingerprint = fingerprint
        self.rows = rows
        self.group = group
        self.stop = False
        self.newest: Checkpoint | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a save when the last one is long ago, or when the training is to stop."""
        self.stop, late = self.group.all_reduce_any(self.stop, time.monotonic() - self.saved > SAVE_AFTER_SECONDS)
        if self.stop or late:
            control.should_save = True
        if self.stop:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint that was just written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        finished = state.global_step >= state.max_steps
        self.newest = Checkpoint(folder, state.global_step, finished, self.rows, self.group.size)
        self.group.barrier()  # each writes its random numbers
        if self.group.is_rank_zero:
            checkpoints.mark_complete(self.newest, self.fingerprint)
        self.saved = time.monotonic()


def attach(trainer: Any, watch: Any) -> None:
    """Let ``watch`` hear the trainer's events; those it has no method for are dropped."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        pass

    for name in (name for name in dir(watch) if name.startswith("on_")):
        setattr(Watch, name, staticmethod(getattr(watch, name)))
    trainer.add_callback(Watch())


def write_curve(file: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write the whole loss curve."""
    files.write_text(file, "".join(_line(entry) for entry in history))


def _memory(device: Any) -> dict[str, float]:
    """GiB that the process takes; on a GPU the most since the last call."""
    if device.type == "cuda":
        import torch

        taken = {
            "memory_gib": torch.cuda.max_memory_allocated(device),
            "memory_reserved_gib": torch.cuda.max_memory_reserved(device),
        }
        torch.cuda.reset_peak_memory_stats(device)
    else:
        taken = {"memory_gib": psutil.Process().memory_info().rss}
    return {key: round(size / GIB, 3) for key, size in taken.items()}


def _line(entry: dict[str, Any]) -> str:
    known = {key: entry[key] for key in LOGGED if key in entry}
    # A gradient may overflow in float16 and the step be skipped; JSON has no word for it.
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in known.items()
    }
    return json.dumps(plain) + "\n"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
