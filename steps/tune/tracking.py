"""Metrics of a training for MLflow or Weights & Biases, if the user asks for it, through transformers' own callbacks.

Where to and with what credentials is said by the environment variables of these tools. What is tracked is a copy: a
server that is down, slow or says no is told of once and asked again later, and never costs the training.
"""

from __future__ import annotations

import json
import logging
import os
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.runtime.redaction import redact
from steps.tune.tracking_tools import TOOLS, ReportTo, missing_settings
from steps.tune.training_callbacks import attach

PAUSE_SECONDS = 600.0
"""After a fault, until the server is asked again: waiting for one that is down must not slow the training."""
OURS = ("tokens_per_second", "memory_gib", "memory_reserved_gib")
"""What the loss curve has and transformers does not log."""
SENDER = "mlflow.utils.async_logging.async_logging_queue"
"""Logger of MLflow's own threads that send metrics; nobody else hears of their faults."""


def check(report_to: ReportTo) -> None:
    """Look, before anything is loaded, whether metrics can be sent to where the user wants them.

    Raises:
        BadInput: the tool's package is not installed, or its address or key is not there.
    """
    if report_to != "none" and (found := list(missing_settings(report_to, os.environ))):
        what, fix = ("; ".join(parts) for parts in zip(*found, strict=True))
        raise BadInput(f"metrics are to go to {TOOLS[report_to].name}, and {what}", fix)


@contextmanager
def track_training(trainer: Any, report_to: ReportTo, run_name: str, work: Path, fingerprint: str) -> Iterator[None]:
    """Send what the trainer logs to where the user wants it; a training that goes on goes on in the same run there."""
    if report_to == "none":
        yield
        return
    tool = TOOLS[report_to]
    defaults = {name: value.format(report=work / "report") for name, value in tool.defaults.items()}
    trainer.args.run_name = run_name or None
    with _environment({name: value for name, value in defaults.items() if name not in os.environ}):
        tracking = Tracking(report_to, SavedRun(work / "checkpoints" / "tracking.json", report_to, fingerprint))
        attach(trainer, tracking)
        try:
            yield
        except BaseException:
            tracking.end("FAILED")
            raise
        tracking.end("FINISHED" if tracking.finished else "KILLED")


@dataclass
class SavedRun:
    """The run of the tracking tool that belongs to the checkpoints beside it."""

    file: Path
    report_to: str
    fingerprint: str

    def read(self) -> str:
        """Its id; empty when there is none of this training."""
        try:
            kept = json.loads(self.file.read_text())
            same = kept["report_to"] == self.report_to and kept["fingerprint"] == self.fingerprint
            return str(kept["run"]) if same else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def write(self, run: str) -> None:
        """Keep it; the report tells it too."""
        content = {"report_to": self.report_to, "run": run, "fingerprint": self.fingerprint}
        files.write_json(self.file, content)


class Tracking:
    """Hands the trainer's events on to transformers' callback of the tool, and keeps its faults away from training."""

    def __init__(self, report_to: str, kept: SavedRun) -> None:
        self.report_to = report_to
        self.tool = TOOLS[report_to]
        self.kept = kept
        self.callback: Any = None
        self.begun = self.finished = False
        self.told = False
        self.paused_until = 0.0
        self.lost = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Begin a run there, or go on with the one of this training."""
        self._hand_on("on_train_begin", args, state, control, **more)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Send a step, with what the loss curve has besides."""
        entry = state.log_history[-1]
        whole = {**logs, **{key: entry[key] for key in OURS if key in entry}}
        if not self._hand_on("on_log", args, state, control, logs=whole, **more) and "loss" in logs:
            self.lost += 1

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Tell of a checkpoint, which the tool takes too where the user's environment says so."""
        self._hand_on("on_save", args, state, control, **more)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """End the run there, if the training is at its end and not only stopped."""
        self.finished = state.global_step >= state.max_steps
        if self.finished:
            self._flush()
            self._hand_on("on_train_end", args, state, control, **more)

    def end(self, status: str) -> None:
        """End the run there that is still open, and say what it lacks."""
        self._flush()
        self._guarded(lambda: _close(self.report_to, status))
        if self.report_to == "mlflow" and self.callback is not None:
            # Its __del__ ends whichever run is open: a later training's, at any allocation, under locks of MLflow's.
            self.callback._auto_end_run = False
        logging.getLogger(SENDER).removeFilter(self._heard)
        if self.lost:
            print(
                f"warning: {self.tool.name} lacks {self.lost} steps of this training; the report has all", flush=True
            )

    def _hand_on(self, event: str, args: Any, state: Any, control: Any, **more: Any) -> bool:
        def call() -> None:
            if self.callback is None:
                self.callback = self._new_callback()
            if not self.begun:
                self._begin(args, state, control, more.get("model"))
            if event != "on_train_begin":
                getattr(self.callback, event)(args, state, control, **more)

        return time.monotonic() >= self.paused_until and self._guarded(call)

    def _new_callback(self) -> Any:
        from transformers.integrations.integration_utils import get_reporting_integration_callbacks

        if self.report_to == "mlflow":
            logging.getLogger(SENDER).addFilter(self._heard)
        [kind] = get_reporting_integration_callbacks([self.report_to])
        return kind()

    def _begin(self, args: Any, state: Any, control: Any, model: Any) -> None:
        if not state.is_world_process_zero:
            self.begun = True
            return
        run = self.kept.read()
        try:
            with _going_on_with(self.report_to, run):
                self.callback.on_train_begin(args, state, control, model=model)
        except Exception as error:
            if not run or not _is_gone(error):
                raise
            print(f"{self.tool.name} has no run {run} any more; a new one begins", flush=True)
            self.callback.on_train_begin(args, state, control, model=model)
        self.begun = True
        self.kept.write(_current(self.report_to))

    def _heard(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR:
            return True
        self.lost += 1
        self._pause(record.getMessage())
        return False

    def _flush(self) -> None:
        if self.report_to == "mlflow" and self.begun:
            import mlflow

            self._guarded(mlflow.flush_async_logging)

    def _guarded(self, call: Any) -> bool:
        try:
            call()
        except Exception as error:  # of a tool and of a server that are not ours
            self._pause(f"{type(error).__name__}: {error}")
            return False
        return True

    def _pause(self, why: str) -> None:
        self.paused_until = time.monotonic() + PAUSE_SECONDS
        if self.told:
            return
        self.told = True
        print(
            f"warning: {self.tool.name} does not take the metrics ({textwrap.shorten(redact(why), 300)}); the training"
            " goes on, its curve is in the report, and the server is asked again later",
            flush=True,
        )


@contextmanager
def _going_on_with(report_to: str, run: str) -> Iterator[None]:
    """Have the tool go on with a run; without one it begins another."""
    if report_to == "wandb" and run:
        import wandb

        # It reads its variables once a process, and transformers takes the run that is open.
        wandb.init(project=os.environ.get("WANDB_PROJECT", "huggingface"), id=run, resume="allow")
        yield
        return
    # MLflow lets no parameter be changed, and a training that goes on with smaller batches has others.
    with _environment({"MLFLOW_RUN_ID": run, "MLFLOW_MAX_LOG_PARAMS": "0"} if run else {}):
        yield


def _current(report_to: str) -> str:
    """Id of the run that the tool has open."""
    run: Any
    if report_to == "wandb":
        import wandb

        run = wandb.run
        return str(run.id)
    import mlflow

    run = mlflow.active_run()
    return str(run.info.run_id)


def _close(report_to: str, status: str) -> None:
    if report_to == "wandb":
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=0 if status == "FINISHED" else 1)
        return
    import mlflow

    if mlflow.active_run() is not None:
        mlflow.end_run(status)


def _is_gone(error: Exception) -> bool:
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" or "deleted state" in str(error)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a while; the tools read nothing else."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
