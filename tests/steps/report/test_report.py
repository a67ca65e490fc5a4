"""The report of a run that succeeded, failed, or did not pass the gate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from report_sample import DIGEST, EVALUATION, IMAGE, PLAN, Reader, render, write, write_check, write_run

from steps.report import report_reader
from steps.report.formatting import format_duration, format_number
from steps.report.report_data import Failure
from steps.report.settings import Settings
from steps.runtime import entrypoint


def test_report_of_a_successful_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path)
    page = Reader(render(tmp_path))
    for words in (
        "bolt-assistant",
        "gate: pass",
        "its loss on held-out rows is 0.6312, compared with 3.901 for the base model",
        "It is served at http://127.0.0.1:41873/v1",
        "http://127.0.0.1:41873/v1 transformers",
        "16.2%",
        "Measured on 40 held-out rows",
        "3 held-out rows are also training rows",
        "25 Nm dry, 20 Nm oiled.",
        "About 25 Nm, dry; a fifth less when oiled.",
        "Use an A4-80 stainless bolt",
        "Who wrote Hamlet?",
        "https://data.example.com/faq/train-00000-of-00001.parquet",
        "revision 12fd25f77366fa6b3b4b768ec3050bf629380bac",
        IMAGE,
        DIGEST,
        "9.8 MB, pushed",
        "3 min 32 s",
        "--set tuning.learningRate",
        "lora.deeper",
        "transformers 5",
        "Peak memory 13.7 GiB during training",
    ):
        assert page.contains(words), words
    assert not page.contains("not created")
    assert not page.contains("Failures")
    assert not page.contains("could not be read")
    summary = capsys.readouterr().out.splitlines()
    assert "loss        3.901 -> 0.6312 on held-out rows" in summary
    assert f"image       {IMAGE}" in summary
    assert "endpoint    http://127.0.0.1:41873/v1" in summary
    assert "time        4 min 59 s" in summary
    assert f"report      {tmp_path / 'report' / 'report.html'}" in summary
    assert len(summary) <= 10


def test_charts_have_descriptions_for_screen_readers(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = Reader(render(tmp_path))
    charts = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert len(charts) == 5, "loss, learning rate, gradient norm, tokens per second, memory"
    assert all(set(str(chart["aria-labelledby"]).split()) <= ids for chart in charts)
    assert page.contains("held-out loss")
    assert page.contains("90 points.")
    assert page.contains("Reserved goes from 12.5 at step 1 to 13.72 at step 90")


def test_report_names_the_experiment_tracker(tmp_path: Path) -> None:
    write_run(tmp_path)
    write(tmp_path / "checkpoints" / "tracking.json", {"report_to": "mlflow", "run": "3f2a9c01b2d4"})
    assert Reader(render(tmp_path)).contains("Also in MLflow, run 3f2a9c01b2d4.")


def test_no_memory_chart_without_memory_in_the_log(tmp_path: Path) -> None:
    """A run of a version that did not log memory."""
    lines = [{"step": step, "loss": 3.0 / step, "grad_norm": 1.0} for step in (1, 2, 3)]
    write(tmp_path / "report" / "train.jsonl", "\n".join(map(json.dumps, lines)))
    page = Reader(render(tmp_path))
    assert page.contains("Gradient norm goes from 1")
    assert not page.contains("Memory") and not page.contains("Peak memory")


def test_a_single_step_has_values_and_no_charts(tmp_path: Path) -> None:
    write(
        tmp_path / "report" / "train.jsonl", json.dumps({"step": 1, "loss": 3.25, "grad_norm": 0.5, "memory_gib": 1.5})
    )
    page = Reader(render(tmp_path))
    assert not [tag for tag, _ in page.tags if tag == "svg"]
    assert (
        page.contains("Training loss 3.25") and page.contains("Gradient norm 0.5") and page.contains("Memory, GiB 1.5")
    )


def test_page_has_no_network_access_and_no_script(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = render(tmp_path)
    tags = Reader(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base", "form", "a"}
    assert not {name for _, attrs in tags for name in attrs} & {"src", "href", "style", "onload", "onclick"}
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in page
    assert len(page.encode()) < 100_000


def test_report_of_a_failed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, until="tune", steps=12)
    failures = [
        {
            "displayName": "evaluate",
            "templateName": "evaluate",
            "phase": "Failed",
            "message": "no space left on report/evaluation.json",
            "finishedAt": "2026-11-24T10:21:07Z",
        }
    ]
    # Argo quotes the list again inside a JSON string.
    for quoted in (json.dumps(failures), json.dumps(json.dumps(failures))):
        page = Reader(render(tmp_path, status="Failed", failures=quoted))
        assert page.contains("Failures")
        assert page.contains("no space left on report/evaluation.json")
        assert page.contains("The last finished step is tune.")
        assert page.contains("The adapter was not evaluated.")
        assert page.contains("Endpoint not created")
    assert "failed      evaluate: no space left" in capsys.readouterr().out


def test_the_failure_is_that_of_the_last_attempt(tmp_path: Path) -> None:
    write_run(tmp_path, until="download")
    failures = [
        {"displayName": "tune", "phase": "Failed", "message": "retryStrategy.expression evaluated to false"},
        {"displayName": "tune(1)", "phase": "Failed", "message": "Error (exit code 2): no rows\nfix: add rows"},
        {"displayName": "tune(0)", "phase": "Failed", "message": "Error (exit code 1): lost connection"},
        {"displayName": "fan(0:a)", "phase": "Failed", "message": "Error (exit code 1): other"},
    ]
    page = Reader(render(tmp_path, status="Failed", failures=json.dumps(failures)))
    assert page.contains("no rows") and page.contains("other")
    for hidden in ("retryStrategy", "lost connection", "exit code", "tune(1)"):
        assert not page.contains(hidden)


def test_an_image_that_could_not_be_pulled_in_advance_is_no_failure(tmp_path: Path) -> None:
    write_run(tmp_path, until="download")
    failures = [
        {"displayName": "pull-image", "templateName": "pull-image", "phase": "Failed", "message": "timed out"},
        {"displayName": "tune", "templateName": "tune", "phase": "Failed", "message": "no rows"},
    ]
    page = Reader(render(tmp_path, status="Failed", failures=json.dumps(failures)))
    assert page.contains("no rows")
    assert not page.contains("timed out")


@pytest.mark.parametrize("none", ["", "null", '"null"', "[]", "{{workflow.failures}}"])
def test_no_failures_section_without_failures(tmp_path: Path, none: str) -> None:
    page = Reader(render(tmp_path, failures=none))
    assert not page.contains("Failures")
    assert not page.contains("list of failures")


def test_unreadable_failures_are_shown_as_raw_text(tmp_path: Path) -> None:
    page = Reader(render(tmp_path, failures=r'"[{\"displayName\": \"tune\", \"message\": \"exit 137\x1b\"}]"'))
    assert page.contains("Failures")
    assert page.contains("exit 137")


def test_report_of_a_failed_gate(tmp_path: Path) -> None:
    write_run(tmp_path, until="evaluate")
    write(tmp_path / "report" / "evaluation.json", {**EVALUATION, "verdict": "fail", "adapter_loss": 4.2})
    page = Reader(render(tmp_path))
    assert page.contains("The adapter failed the gate")
    assert page.contains("It was not packaged or served.")


def test_a_retraining_compares_with_the_live_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path)
    write_check(tmp_path)
    write(tmp_path / "report" / "evaluation.json", {**EVALUATION, "previous_loss": 0.7})
    page = Reader(render(tmp_path))
    assert page.contains("Changed: data. The adapter that was live before this run:")
    assert page.contains(f"{IMAGE}@{DIGEST}")
    assert page.contains("0.7 for the live adapter")
    assert page.contains("Live adapter")
    assert page.contains("2.014")  # its perplexity
    summary = capsys.readouterr().out.splitlines()
    assert "changes     data" in summary
    assert "loss        3.901 -> 0.6312 on held-out rows, live adapter 0.7" in summary


def test_a_scheduled_run_without_changes_tunes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, until="download")
    write_check(tmp_path, changed=False, difference="nothing")
    page = Reader(render(tmp_path))
    assert page.contains("Data and settings are the same as those of the live adapter, so nothing was tuned.")
    assert page.contains("No changes. The adapter that was live before this run:")
    assert page.contains(f"{IMAGE}@{DIGEST}")
    assert "changes     nothing" in capsys.readouterr().out.splitlines()


def test_the_first_scheduled_run_has_no_live_adapter(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_check(tmp_path, previous="", difference="no adapter is live")
    page = Reader(render(tmp_path))
    assert page.contains("No adapter was live before this run.")
    assert not page.contains("Live adapter")


def test_confidence_interval_of_the_loss_ratio(tmp_path: Path) -> None:
    write_run(tmp_path)
    write(
        tmp_path / "report" / "evaluation.json",
        {**EVALUATION, "loss_ratio": {"low": 0.141, "high": 0.188, "level": 0.95}},
    )
    page = Reader(render(tmp_path))
    assert page.contains("is 14.1% to 18.8% of the base model's (95% confidence)")


def test_report_of_an_empty_folder(tmp_path: Path) -> None:
    page = Reader(render(tmp_path, plan="", status="{{workflow.status}}", failures="{{workflow.failures}}"))
    assert page.contains("No step finished.")
    assert page.contains("unknown")
    assert page.contains("The plan of the run is not available.")


def test_a_step_logged_again_after_a_restart_counts_once(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.9}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0}]
    write(tmp_path / "report" / "train.jsonl", "\n".join(map(json.dumps, lines)))
    assert Reader(render(tmp_path)).contains("Loss goes from 3 at step 1 to 1 at step 3; the lowest is 1. 3 points.")


def test_total_time_counts_parallel_steps_once(tmp_path: Path) -> None:
    for name, started, seconds in (
        ("provision", "10:00:00", 60),
        ("download", "10:00:00", 40),
        ("tune", "11:00:00", 5),
    ):
        timestamp = f"2026-11-24T{started}+00:00"
        write(tmp_path / "results" / f"{name}.json", {"result": {}, "started": timestamp, "seconds": seconds})
    data = report_reader.read_run(Settings(work=tmp_path))
    assert data.busy_seconds == 65


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (8.42, "8.42 s"), (252.0, "4 min 12 s"), (7500.0, "2 h 5 min"), (None, "–")],  # noqa: RUF001
)
def test_format_duration(seconds: float | None, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(3.90123, "3.901"), (40.0, "40"), (1234567.0, "1,234,567"), (14200.3, "14,200"), (2e-5, "2e-05")],
)
def test_format_number(value: float, words: str) -> None:
    assert format_number(value) == words


def test_weights_of_sources(tmp_path: Path) -> None:
    write_run(tmp_path)
    sources = [{"from": "a.parquet", "rows": 60, "weight": 0.5, "train_rows": 1027}, {"from": "b.parquet", "rows": 9}]
    write(tmp_path / "dataset" / "manifest.json", {"sources": sources})
    assert Reader(render(tmp_path)).contains("a.parquet (weight 0.5: 1,027 rows), b.parquet")


def test_program_has_no_heavy_imports(tmp_path: Path) -> None:
    write_run(tmp_path / "work")
    flags = {"work": str(tmp_path / "work"), "plan": json.dumps(PLAN), "status": "Succeeded", "failures": "null"}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "steps.report", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "ARGOTUNE_OUTPUTS": str(tmp_path / "outputs")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "steps.report.report_page" in imported
    assert not imported & {"torch", "transformers", "trl", "peft", "datasets", "hera", "workflows"}
    assert Path((tmp_path / "outputs" / "report-path").read_text()).is_file()


@pytest.mark.parametrize("text", ["", "{{workflow.failures}}", "null", '"[]"', r'"[{\"message\": \"\x1b\"}]"'])
def test_flags_that_argo_sets_are_never_rejected(tmp_path: Path, text: str) -> None:
    flags = ["--work", str(tmp_path), "--plan", text, "--status", text, "--failures", text]
    settings = entrypoint.parse(Settings, flags, "report")
    assert all(isinstance(failure, Failure) for failure in settings.failures)
    assert bool(settings.failures) == ("x1b" in text)
    assert (settings.plan == {}) == (text == "")
