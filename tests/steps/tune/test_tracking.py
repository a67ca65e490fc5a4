"""Metrics for MLflow over real HTTP; errors of the server never stop the training."""

import json
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow_server import MlflowServer
from trainable_model import curve
from tuning import losses, quick, settings, with_rows

from steps.check import step as check_step
from steps.runtime.errors import BadInput
from steps.tune import tracking, training_config
from steps.tune.settings import Result
from steps.tune.step import tune
from steps.tune.training_callbacks import Checkpointing, attach

mlflow = pytest.importorskip("mlflow")
ROWS = 16
EVERY_STEP = {1, 2, 3, 4}


def track(work: Path, model: Path, **flags: Any) -> Result:
    return quick(work, model, report_to="mlflow", method="lora", **flags)


def send_events(work: Path, steps: Iterable[int], report_to: Any = "mlflow") -> None:
    """Send a trainer's events for these of four steps, without training."""
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import CallbackHandler

    (work / "report").mkdir(exist_ok=True)
    arguments = TrainingArguments(output_dir=str(work / "checkpoints"), use_cpu=True, report_to="none")
    events = CallbackHandler([], None, None, None, None)
    state, control = TrainerState(max_steps=4, is_world_process_zero=True), TrainerControl()
    trainer = SimpleNamespace(args=arguments, add_callback=events.add_callback)
    with tracking.track_training(trainer, report_to, "", work, "sha256:0"):
        events.on_train_begin(arguments, state, control)
        for step in steps:
            logs = {"loss": 3.0 / step, "learning_rate": 1e-4}
            state.global_step = step
            state.log_history.append({**logs, "step": step, "memory_gib": 1.5})
            events.on_log(arguments, state, control, logs)
        events.on_train_end(arguments, state, control)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return with_rows(tmp_path / "work", ROWS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "adapters")
    with MlflowServer() as mlflow_server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.address)
        yield mlflow_server


@pytest.fixture
def at_step_2(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Checkpointing], None]], None]:
    """``at_step_2(action)`` runs the action once, at the end of the second step."""

    def schedule(action: Callable[[Checkpointing], None]) -> None:
        original, pending = Checkpointing.on_step_end, [action]

        def on_step_end(self: Checkpointing, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == 2 and pending:
                pending.pop()(self)
            original(self, args, state, control, **more)

        monkeypatch.setattr(Checkpointing, "on_step_end", on_step_end)

    return schedule


def test_the_loss_curve_is_sent(server: MlflowServer, tiny: Path, work: Path) -> None:
    track(work, tiny, run_name="oncall-x7")
    run = server.run
    assert (run.name, run.status, server.experiments) == ("oncall-x7", "FINISHED", {"adapters": run.experiment})
    assert list(run.metrics["loss"].values()) == pytest.approx(losses(work))
    for key in ("learning_rate", "grad_norm", "tokens_per_second", "memory_gib"):
        assert run.metrics[key] == pytest.approx({line["step"]: line[key] for line in curve(work)}), key
    assert run.params["max_steps"] == "4"


def test_a_resumed_training_continues_its_run(server: MlflowServer, tiny: Path, work: Path, at_step_2: Any) -> None:
    at_step_2(lambda checkpointing: setattr(checkpointing, "stop", True))
    with pytest.raises(SystemExit):
        track(work, tiny)
    assert (server.run.status, set(server.run.metrics["loss"])) == ("KILLED", {1, 2})
    track(work, tiny)
    assert server.run.statuses == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert set(server.run.metrics["loss"]) == EVERY_STEP


def test_a_retry_with_smaller_batches_continues_the_run(
    server: MlflowServer, tiny: Path, work: Path, at_step_2: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second attempt has other parameters, which are immutable in MLflow."""

    def run_out_of_memory(_: Checkpointing) -> None:
        raise MemoryError

    at_step_2(run_out_of_memory)
    track(work, tiny)
    out = capsys.readouterr().out
    assert "retrying with 2" in out
    assert "cannot send metrics" not in out
    assert server.run.statuses == ["RUNNING", "FAILED", "RUNNING", "FINISHED"]
    assert set(server.run.metrics["loss"]) == EVERY_STEP


def test_an_unreachable_server_does_not_change_the_training(
    server: MlflowServer, tiny: Path, work: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """With report_to none, nothing is sent, even if the package and its environment variables exist."""
    untracked = quick(work, tiny, method="lora")
    assert server.calls == [] and "MLflow" not in capsys.readouterr().out
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        tracked = track(with_rows(tmp_path / "tracked", ROWS), tiny)
    out = capsys.readouterr().out
    assert out.count("warning: cannot send metrics to MLflow") == 1
    assert "warning: 4 steps are missing in MLflow" in out
    assert tracked.adapter_digest == untracked.adapter_digest


def test_a_deleted_run_is_replaced(server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    send_events(tmp_path, range(1, 3))
    deleted = server.run.id
    server.runs.clear()
    send_events(tmp_path, range(3, 5))
    assert f"run {deleted} was deleted in MLflow; starting a new one" in capsys.readouterr().out
    assert (server.run.status, set(server.run.metrics["loss"])) == ("FINISHED", {3, 4})
    assert json.loads((tmp_path / "checkpoints" / "tracking.json").read_text())["run"] == server.run.id


def test_sending_resumes_when_the_server_is_back(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.0)
    server.failing = {"": 2}
    send_events(tmp_path, EVERY_STEP)
    out = capsys.readouterr().out
    assert out.count("warning: cannot send metrics to MLflow") == 1
    assert "1 steps are missing" in out
    assert set(server.run.metrics["loss"]) == EVERY_STEP - {1}


def test_a_failing_server_is_not_retried_immediately(server: MlflowServer, tmp_path: Path) -> None:
    server.failing = {"": 1000}
    send_events(tmp_path, EVERY_STEP)
    assert len(server.calls) == 1


def test_rejected_metrics_are_logged_once(
    server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow's sender threads only log their errors."""
    server.failing = {"POST runs/log-batch": 1000}
    send_events(tmp_path, EVERY_STEP)
    output = capsys.readouterr()
    assert output.out.count("simulated failure") == 1
    assert "steps are missing in MLflow" in output.out
    assert "simulated failure" not in output.err
    assert server.run.status == "FINISHED"


def test_a_collected_callback_does_not_end_the_next_run(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' callback ends the open run when it is garbage collected, possibly during another training."""
    callbacks: list[tracking.Tracking] = []

    def attach_and_record(trainer: Any, callback: tracking.Tracking) -> None:
        callbacks.append(callback)
        attach(trainer, callback)

    monkeypatch.setattr(tracking, "attach", attach_and_record)
    send_events(tmp_path, EVERY_STEP)
    with mlflow.start_run():
        callbacks[0].callback.__del__()
        assert mlflow.active_run() is not None


def test_kubeflow_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within Kubeflow, transformers adds it to report_to."""
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:9")
    config = training_config.check(settings(tmp_path, tmp_path), ["q_proj"])
    assert training_config.trainer_config(config, tmp_path / "checkpoints", "cpu", rows=10).report_to == []


def test_wandb_continues_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: wandb writes to the report directory."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "adapters")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracking.check("wandb")
    send_events(tmp_path, range(1, 3), report_to="wandb")
    first = json.loads((tmp_path / "checkpoints" / "tracking.json").read_text())["run"]
    send_events(tmp_path, range(3, 5), report_to="wandb")
    folders = sorted(path.name for path in (tmp_path / "report" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(name.endswith(f"-{first}") for name in folders)


@pytest.mark.parametrize(
    ("report_to", "hidden", "message"),
    [
        ("mlflow", "", "report_to mlflow: MLFLOW_TRACKING_URI is not set"),
        ("mlflow", "mlflow", "the package mlflow is not installed; MLFLOW_TRACKING_URI is not set"),
        ("wandb", "wandb", "the package wandb is not installed; WANDB_API_KEY is not set"),
    ],
)
def test_missing_requirements_are_reported_first(
    tmp_path: Path, monkeypatch: Any, report_to: Any, hidden: str, message: str
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    if hidden:
        monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(BadInput) as caught:
        tune(settings(tmp_path / "missing", tmp_path, report_to=report_to))
    assert message in str(caught.value)


def test_report_to_is_rejected_in_training_arguments(tmp_path: Path) -> None:
    tune_settings = settings(tmp_path, tmp_path, training_arguments={"report_to": "mlflow"})
    with pytest.raises(BadInput, match="report_to: use --report-to instead"):
        training_config.check(tune_settings, ["q_proj"])


def test_tracking_does_not_change_the_settings_digest(tmp_path: Path) -> None:
    """A scheduled run does not retrain because of another tracking server."""
    plain = check_step.Settings(work=tmp_path)
    tracked = check_step.Settings(work=tmp_path, report_to="mlflow", run_name="x")
    assert check_step.compute_settings_digest(plain) == check_step.compute_settings_digest(tracked)
