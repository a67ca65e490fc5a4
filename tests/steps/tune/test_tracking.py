"""Metrics go to MLflow where the user asks for it, over real HTTP; and no fault of a server costs the training."""

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
from tuning import losses, quick, settings, small_model, with_rows

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


def lesson(work: Path, steps: Iterable[int], report_to: Any = "mlflow") -> None:
    """What a trainer tells its callbacks in these steps of four, without the training."""
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
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.getbasetemp())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return with_rows(tmp_path / "work", ROWS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "adapters")
    with MlflowServer() as started:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", started.address)
        yield started


@pytest.fixture
def at_step_2(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Checkpointing], None]], None]:
    """Has something happen once, at the end of the second step."""

    def plan(happens: Callable[[Checkpointing], None]) -> None:
        usual, left = Checkpointing.on_step_end, [happens]

        def on_step_end(self: Checkpointing, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == 2 and left:
                left.pop()(self)
            usual(self, args, state, control, **more)

        monkeypatch.setattr(Checkpointing, "on_step_end", on_step_end)

    return plan


def test_the_curve_is_there_too(server: MlflowServer, tiny: Path, work: Path) -> None:
    track(work, tiny, run_name="oncall-x7")
    run = server.run
    assert (run.name, run.status, server.experiments) == ("oncall-x7", "FINISHED", {"adapters": run.experiment})
    assert list(run.metrics["loss"].values()) == pytest.approx(losses(work))
    for key in ("learning_rate", "grad_norm", "tokens_per_second", "memory_gib"):
        assert run.metrics[key] == pytest.approx({line["step"]: line[key] for line in curve(work)}), key
    assert run.params["max_steps"] == "4"


def test_a_training_that_goes_on_goes_on_in_the_same_run(
    server: MlflowServer, tiny: Path, work: Path, at_step_2: Any
) -> None:
    at_step_2(lambda saving: setattr(saving, "stop", True))
    with pytest.raises(SystemExit):
        track(work, tiny)
    assert (server.run.status, set(server.run.metrics["loss"])) == ("KILLED", {1, 2})
    track(work, tiny)
    assert server.run.statuses == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert set(server.run.metrics["loss"]) == EVERY_STEP


def test_smaller_batches_go_on_in_the_same_run(
    server: MlflowServer, tiny: Path, work: Path, at_step_2: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second try has other parameters, and MLflow lets none be changed."""

    def run_out_of_memory(_: Checkpointing) -> None:
        raise MemoryError

    at_step_2(run_out_of_memory)
    track(work, tiny)
    out = capsys.readouterr().out
    assert "going on with 2 at a time" in out
    assert "does not take" not in out
    assert server.run.statuses == ["RUNNING", "FAILED", "RUNNING", "FINISHED"]
    assert set(server.run.metrics["loss"]) == EVERY_STEP


def test_a_server_that_is_down_costs_nothing(
    server: MlflowServer, tiny: Path, work: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """And where nobody asks for it, nothing is sent, though the package is there and the environment says where."""
    untracked = quick(work, tiny, method="lora")
    assert server.calls == [] and "MLflow" not in capsys.readouterr().out
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        lonely = track(with_rows(tmp_path / "lonely", ROWS), tiny)
    out = capsys.readouterr().out
    assert out.count("warning: MLflow does not take the metrics") == 1
    assert "warning: MLflow lacks 4 steps of this training" in out
    assert lonely.adapter_digest == untracked.adapter_digest


def test_a_run_that_was_deleted_there_begins_anew(
    server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson(tmp_path, range(1, 3))
    gone = server.run.id
    server.runs.clear()
    lesson(tmp_path, range(3, 5))
    assert f"MLflow has no run {gone} any more; a new one begins" in capsys.readouterr().out
    assert (server.run.status, set(server.run.metrics["loss"])) == ("FINISHED", {3, 4})
    assert json.loads((tmp_path / "checkpoints" / "tracking.json").read_text())["run"] == server.run.id


def test_a_server_that_comes_back_hears_the_rest(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "PAUSE_SECONDS", 0.0)
    server.failing = {"": 2}
    lesson(tmp_path, EVERY_STEP)
    out = capsys.readouterr().out
    assert out.count("warning: MLflow does not take the metrics") == 1
    assert "lacks 1 steps" in out
    assert set(server.run.metrics["loss"]) == EVERY_STEP - {1}


def test_a_server_that_fails_is_not_asked_again_at_once(server: MlflowServer, tmp_path: Path) -> None:
    server.failing = {"": 1000}
    lesson(tmp_path, EVERY_STEP)
    assert len(server.calls) == 1


def test_metrics_that_are_refused_are_told_once(
    server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are sent by threads of MLflow's, which only write into its log."""
    server.failing = {"POST runs/log-batch": 1000}
    lesson(tmp_path, EVERY_STEP)
    told = capsys.readouterr()
    assert told.out.count("told to fail") == 1
    assert "MLflow lacks" in told.out
    assert "told to fail" not in told.err
    assert server.run.status == "FINISHED"


def test_a_training_of_before_does_not_end_the_run_of_the_next(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' callback ends the open run when it is collected, which may be in the midst of another training."""
    kept: list[tracking.Tracking] = []

    def attach_and_keep(trainer: Any, callback: tracking.Tracking) -> None:
        kept.append(callback)
        attach(trainer, callback)

    monkeypatch.setattr(tracking, "attach", attach_and_keep)
    lesson(tmp_path, EVERY_STEP)
    with mlflow.start_run():
        kept[0].callback.__del__()
        assert mlflow.active_run() is not None


def test_kubeflow_is_not_told_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within Kubeflow transformers would add it to whatever was asked for."""
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:9")
    config = training_config.check(settings(tmp_path, tmp_path), ["q_proj"])
    assert training_config.trainer_config(config, tmp_path / "checkpoints", "cpu", rows=10).report_to == []


def test_wandb_keeps_a_run_and_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server: what would be sent lies in the report folder."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "adapters")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracking.check("wandb")
    lesson(tmp_path, range(1, 3), report_to="wandb")
    first = json.loads((tmp_path / "checkpoints" / "tracking.json").read_text())["run"]
    lesson(tmp_path, range(3, 5), report_to="wandb")
    folders = sorted(path.name for path in (tmp_path / "report" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(name.endswith(f"-{first}") for name in folders)


@pytest.mark.parametrize(
    ("report_to", "hidden", "says"),
    [
        ("mlflow", "", "metrics are to go to MLflow, and MLFLOW_TRACKING_URI is not set"),
        ("mlflow", "mlflow", "the package mlflow is not installed; MLFLOW_TRACKING_URI is not set"),
        ("wandb", "wandb", "the package wandb is not installed; WANDB_API_KEY is not set"),
    ],
)
def test_what_is_lacking_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: Any, report_to: Any, hidden: str, says: str
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    if hidden:
        monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(BadInput) as refused:
        tune(settings(tmp_path / "nothing there", tmp_path, report_to=report_to))
    assert says in str(refused.value)


def test_a_key_of_the_map_is_refused_in_favour_of_the_flag(tmp_path: Path) -> None:
    given = settings(tmp_path, tmp_path, training_arguments={"report_to": "mlflow"})
    with pytest.raises(BadInput, match="has a flag of its own: --report-to"):
        training_config.check(given, ["q_proj"])


def test_tracking_shapes_no_adapter(tmp_path: Path) -> None:
    """A schedule does not tune anew because metrics go elsewhere."""
    plain = check_step.Settings(work=tmp_path)
    tracked = check_step.Settings(work=tmp_path, report_to="mlflow", run_name="x")
    assert check_step.settings_digest(plain) == check_step.settings_digest(tracked)
