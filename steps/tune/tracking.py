"""Metrics for MLflow or Weights & Biases, sent by transformers' callbacks.

The tools' environment variables set address and credentials. Tracking never stops or slows the training: errors of the
server are logged once and sending is retried later.
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

RETRY_SECONDS = 600.0
"""Pause after an error: waiting for a server that is down must not slow the training."""
EXTRA_METRICS = ("tokens_per_second", "memory_gib", "memory_reserved_gib")
"""Metrics of the loss curve that transformers does not log."""
MLFLOW_QUEUE_LOGGER = "mlflow.utils.async_logging.async_logging_queue"
"""Logger of MLflow's sender threads, the only place where their errors appear."""


def check(report_to: ReportTo) -> None:
    """Check, before anything is loaded, that metrics can be sent.

    Raises:
        BadInput: The tool's package is not installed, or its address or key is not set.
    """
    if report_to != "none" and (missing := list(missing_settings(report_to, os.environ))):
        message, fix = ("; ".join(parts) for parts in zip(*missing, strict=True))
        raise BadInput(f"report_to {report_to}: {message}", fix)


@contextmanager
def track_training(trainer: Any, report_to: ReportTo, run_name: str, work: Path, fingerprint: str) -> Iterator[None]:
    """Send the trainer's metrics to the tool; a resumed training continues the same run there."""
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
    """File with the id of the tracking tool's run, next to the checkpoints."""

    file: Path
    report_to: str
    fingerprint: str

    def read(self) -> str:
        """Return the id; empty if this training has none."""
        try:
            saved = json.loads(self.file.read_text())
            same = saved["report_to"] == self.report_to and saved["fingerprint"] == self.fingerprint
            return str(saved["run"]) if same else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def write(self, run: str) -> None:
        """Save the id, for resumed trainings and the report."""
        content = {"report_to": self.report_to, "run": run, "fingerprint": self.fingerprint}
        files.write_json(self.file, content)


class Tracking:
    """Forwards the trainer's events to transformers' callback of the tool, and catches its errors."""

    def __init__(self, report_to: str, saved_run: SavedRun) -> None:
        self.report_to = report_to
        self.tool = TOOLS[report_to]
        self.saved_run = saved_run
        self.callback: Any = None
        self.started = self.finished = False
        self.warned = False
        self.paused_until = 0.0
        self.missing_steps = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Start a run, or continue this training's run."""
        self._forward("on_train_begin", args, state, control, **more)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Send a step, with the extra metrics."""
        entry = state.log_history[-1]
        metrics = {**logs, **{key: entry[key] for key in EXTRA_METRICS if key in entry}}
        if not self._forward("on_log", args, state, control, logs=metrics, **more) and "loss" in logs:
            self.missing_steps += 1

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Report a checkpoint, which the tool uploads if its environment variables say so."""
        self._forward("on_save", args, state, control, **more)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """End the run if the training is finished, not if it was stopped."""
        self.finished = state.global_step >= state.max_steps
        if self.finished:
            self._flush()
            self._forward("on_train_end", args, state, control, **more)

    def end(self, status: str) -> None:
        """End the run if it is open, and warn of missing steps."""
        self._flush()
        self._guarded(lambda: _close(self.report_to, status))
        if self.report_to == "mlflow" and self.callback is not None:
            # Its __del__ would end any open run, even a later training's, and deadlock on MLflow's locks.
            self.callback._auto_end_run = False
        logging.getLogger(MLFLOW_QUEUE_LOGGER).removeFilter(self._filter)
        if self.missing_steps:
            print(
                f"warning: {self.missing_steps} steps are missing in {self.tool.name}; the report has all", flush=True
            )

    def _forward(self, event: str, args: Any, state: Any, control: Any, **more: Any) -> bool:
        def call() -> None:
            if self.callback is None:
                self.callback = self._new_callback()
            if not self.started:
                self._start_run(args, state, control, more.get("model"))
            if event != "on_train_begin":
                getattr(self.callback, event)(args, state, control, **more)

        return time.monotonic() >= self.paused_until and self._guarded(call)

    def _new_callback(self) -> Any:
        from transformers.integrations.integration_utils import get_reporting_integration_callbacks

        if self.report_to == "mlflow":
            logging.getLogger(MLFLOW_QUEUE_LOGGER).addFilter(self._filter)
        [callback_class] = get_reporting_integration_callbacks([self.report_to])
        return callback_class()

    def _start_run(self, args: Any, state: Any, control: Any, model: Any) -> None:
        if not state.is_world_process_zero:
            self.started = True
            return
        run = self.saved_run.read()
        try:
            with _resume_run(self.report_to, run):
                self.callback.on_train_begin(args, state, control, model=model)
        except Exception as error:
            if not run or not _is_gone(error):
                raise
            print(f"run {run} was deleted in {self.tool.name}; starting a new one", flush=True)
            self.callback.on_train_begin(args, state, control, model=model)
        self.started = True
        self.saved_run.write(_current_run(self.report_to))

    def _filter(self, record: logging.LogRecord) -> bool:
        """Handle errors of MLflow's sender threads; return False to suppress their log record."""
        if record.levelno < logging.ERROR:
            return True
        self.missing_steps += 1
        self._pause(record.getMessage())
        return False

    def _flush(self) -> None:
        if self.report_to == "mlflow" and self.started:
            import mlflow

            self._guarded(mlflow.flush_async_logging)

    def _guarded(self, call: Any) -> bool:
        try:
            call()
        except Exception as error:  # from third-party tools and servers
            self._pause(f"{type(error).__name__}: {error}")
            return False
        return True

    def _pause(self, reason: str) -> None:
        self.paused_until = time.monotonic() + RETRY_SECONDS
        if self.warned:
            return
        self.warned = True
        print(
            f"warning: cannot send metrics to {self.tool.name}: {textwrap.shorten(redact(reason), 300)}; retrying "
            "later, the report has the loss curve",
            flush=True,
        )


@contextmanager
def _resume_run(report_to: str, run: str) -> Iterator[None]:
    """Make the tool continue a run; without one it starts a new run."""
    if report_to == "wandb" and run:
        import wandb

        # wandb reads its variables once per process, and transformers uses the open run.
        wandb.init(project=os.environ.get("WANDB_PROJECT", "huggingface"), id=run, resume="allow")
        yield
        return
    # MLflow's parameters are immutable, but a training that resumes with smaller batches has other values.
    with _environment({"MLFLOW_RUN_ID": run, "MLFLOW_MAX_LOG_PARAMS": "0"} if run else {}):
        yield


def _current_run(report_to: str) -> str:
    """Return the id of the tool's open run."""
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
    """Set environment variables temporarily; the tools have no other interface."""
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
